"""Null directions of the Fisher metric of the weights, lifted ones, and conserved charges."""

from __future__ import annotations

import pytest
import torch
from cases.gated_mlps import DEGREES, layer, normal
from torch import Tensor
from torch.func import functional_call, jacrev

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.gated_mlp import _null as null
from fisherflat.layers import MLP_ACTIVATIONS, GatedMLP


def jacobian(mlp: GatedMLP, x: Tensor) -> Tensor:
    """Of all outputs by gates, ups (a bias is their last weight) and values, by automatic differentiation."""
    names = [name for name, _ in mlp.named_parameters() if name != "down.bias"]
    fixed = {"down.bias": mlp.down.bias.detach()} if mlp.down.bias is not None else {}
    weights = {name: mlp.get_parameter(name).detach() for name in names}
    parts = jacrev(lambda p: functional_call(mlp, p | fixed, (x,)).flatten())(weights)
    parts = {name: part.flatten(2) if name.endswith("weight") else part[..., None] for name, part in parts.items()}
    columns = []
    for name in ("gate", "up"):
        both = [parts[f"{name}.{kind}"] for kind in ("weight", "bias") if f"{name}.{kind}" in parts]
        columns.append(torch.cat(both, -1).flatten(1))
    return torch.cat([*columns, parts["down.weight"].transpose(1, 2).flatten(1)], 1)


@pytest.mark.parametrize("activation", MLP_ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_symmetries_are_all_null_directions_that_there_are(activation: str, bias: bool) -> None:
    mlp, x = layer(activation, bias, dim=5, hidden=4), normal(80, 5, seed=40)
    found = ff.symmetry.null_directions(mlp, x)
    assert found.dimension == found.predicted == (8 if activation in DEGREES else 4)
    assert found.residual < 1e-7 and found.gap > 1e6
    derivative = jacobian(mlp, x)
    singular = torch.linalg.svdvals(derivative)
    assert (derivative @ found.basis.T).norm() < 1e-9 * singular[0]
    assert (singular < 1e-11 * singular[0]).sum() == found.dimension  # by another route: the whole Jacobian at once
    torch.testing.assert_close(found.basis @ found.basis.T, torch.eye(found.dimension).double())


def test_the_spectrum_is_that_of_the_schur_complement() -> None:
    mlp, x = layer("silu"), normal(60, 5, seed=41)
    metric = jacobian(mlp, x).T @ jacobian(mlp, x) / len(x)
    a, b, c = metric[:40, :40], metric[:40, 40:], metric[40:, 40:]
    expected = torch.linalg.eigvalsh(a - b @ torch.linalg.solve(c, b.T))
    found = ff.symmetry.null_directions(mlp, x).spectrum
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12 * expected[-1].item())


def test_few_inputs_and_silent_units_have_more_null_directions() -> None:
    mlp = layer("relu")
    x = normal(3, 5, seed=42)
    for weight in (mlp.gate.weight, None):
        derivative = jacobian(mlp, x)
        found = ff.symmetry.null_directions(mlp, x)
        assert found.dimension == derivative.shape[1] - torch.linalg.matrix_rank(derivative, rtol=1e-11)
        assert (derivative @ found.basis.T).abs().max() < 1e-10
        if weight is not None:
            x = normal(60, 5, seed=43).abs()
            weight.data[1] = -weight.data[1].abs()  # never active on these inputs


@pytest.mark.parametrize("activation", ["silu", "relu2", "gelu"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_metric_on_generators_is_that_of_the_jacobian(activation: str, bias: bool) -> None:
    mlp, x = layer(activation, bias), normal(60, 5, seed=44)
    degree = DEGREES.get(activation, 1)
    units = ff.symmetry.gated_units(mlp)
    rows = torch.zeros(8, 4 * (2 * units.gate.shape[1] + 5), dtype=torch.float64)
    for unit in range(4):
        gate, up, value = (torch.zeros_like(w) for w in (units.gate, units.up, units.value))
        gate[unit], up[unit] = units.gate[unit], -degree * units.up[unit]
        rows[unit] = torch.cat([gate.flatten(), up.flatten(), value.flatten()])
        gate[unit], up[unit], value[unit] = 0, units.up[unit], -units.value[unit]
        rows[4 + unit] = torch.cat([gate.flatten(), up.flatten(), value.flatten()])
    rows /= rows.norm(dim=1, keepdim=True)
    moved = jacobian(mlp, x) @ rows.T
    expected = moved.T @ moved / len(x)
    found = ff.symmetry.generator_metric(mlp, x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ff.symmetry.broken_scaling(mlp, x).eigenvalue, found.diagonal()[:4])


def test_inputs_in_several_pieces_are_averaged() -> None:
    mlp, x = layer("silu"), normal(2500, 5, seed=48)
    few, many = ff.symmetry.generator_metric(mlp, x[:500]), ff.symmetry.generator_metric(mlp, x[500:])
    torch.testing.assert_close(ff.symmetry.generator_metric(mlp, x), 0.2 * few + 0.8 * many)


def test_broken_strength_does_not_depend_on_scales_and_falls_with_the_pre_activation() -> None:
    mlp, x = layer("silu"), normal(500, 5, seed=45)
    before = ff.symmetry.broken_scaling(mlp, x)
    assert ((before.strength > 0.05) & (before.strength < 2**0.5)).all()
    mlp.up.weight.data *= 7
    mlp.down.weight.data /= 3
    torch.testing.assert_close(ff.symmetry.broken_scaling(mlp, x).strength, before.strength)
    mlp.gate.weight.data[1] *= 100
    after = ff.symmetry.broken_scaling(mlp, x)
    assert after.strength[1] < 0.02 * before.strength[1]
    assert after.effective_degree[1] == pytest.approx(1, abs=1e-2)
    small = layer("silu")
    small.gate.weight.data *= 1e-4
    torch.testing.assert_close(
        ff.symmetry.broken_scaling(small, x).effective_degree, torch.ones(4).double(), rtol=0, atol=1e-3
    )
    exact = ff.symmetry.broken_scaling(layer("relu2"), x)
    assert exact.strength.max() < 1e-12
    torch.testing.assert_close(exact.effective_degree, torch.full((4,), 2.0).double())


def drift(activation: str, steps: int) -> tuple[float, float]:
    """How far the charges move in a training time of 1 with that many steps of gradient descent."""
    mlp = layer(activation, bias=True)
    x, target = normal(40, 5, seed=46), normal(40, 5, seed=47)
    before = ff.symmetry.conserved_charges(mlp)
    optimizer = torch.optim.SGD(mlp.parameters(), lr=0.25 / steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (mlp(x) / 10 - target).square().sum(1).mean().backward()
        optimizer.step()
    after = ff.symmetry.conserved_charges(mlp)
    assert after.inverse_scaling_conserved == (activation in DEGREES)
    return (
        (after.inverse_scaling - before.inverse_scaling).abs().max().item(),
        (after.output_scaling - before.output_scaling).abs().max().item(),
    )


@pytest.mark.parametrize("activation", ["identity", "relu", "relu2", "silu", "sigmoid"])
def test_charges_are_conserved_as_the_step_goes_to_zero_where_the_symmetry_holds(activation: str) -> None:
    coarse, fine = drift(activation, 100), drift(activation, 400)
    assert fine[1] < 0.3 * coarse[1]
    if activation in DEGREES:
        assert fine[0] < 0.3 * coarse[0]
    else:
        assert fine[0] > 0.9 * coarse[0] and fine[0] > 1e-2


@pytest.mark.parametrize("activation", ["identity", "relu", "silu"])
@pytest.mark.parametrize("count", [80, 3])
def test_large_metrics_give_the_same_from_their_lowest_eigenvectors(
    activation: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlp, x = layer(activation, bias=True), normal(count, 5, seed=49)  # with 3 inputs there are more than predicted
    whole = ff.symmetry.null_directions(mlp, x)
    monkeypatch.setattr(null, "_WHOLE", 0)
    monkeypatch.setattr(null, "_MORE", 12)
    found = ff.symmetry.null_directions(mlp, x)
    assert found.dimension == whole.dimension > 0 and found.residual < 1e-7 and found.gap > 1e6
    torch.testing.assert_close(found.basis.T @ found.basis, whole.basis.T @ whole.basis)
    above = slice(found.dimension, len(found.spectrum))
    if count == 80:
        assert len(found.spectrum) == found.predicted + 12 < len(whole.spectrum)
        torch.testing.assert_close(found.spectrum[above][0], whole.spectrum[above][0], rtol=1e-2, atol=0)


def test_an_mlp_too_large_for_dense_algebra_is_refused() -> None:
    with pytest.raises(InputError, match="generator_metric"):
        ff.symmetry.null_directions(GatedMLP(65, 128), normal(2, 65))
