"""Reading the units of gated MLPs, homogeneity, and the defects of their symmetries."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from cases.gated_mlps import DEGREES, layer, normal
from cases.tiny_models import tiny_model
from torch import Tensor, nn
from torch.nn import functional as F

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.layers import MLP_ACTIVATIONS, GatedMLP
from fisherflat.models import Model


@pytest.mark.parametrize("options", [{}, {"mlp_bias": True}], ids=["no bias", "bias"])
@pytest.mark.parametrize(
    ("kind", "activation"),
    [("llama", "silu"), ("qwen3", "silu"), ("gemma2", "gelu_tanh"), ("phi3", "silu"), ("modernbert", "gelu")],
)
def test_mlps_of_checkpoints_are_rewritten_exactly(kind: str, activation: str, options: dict[str, bool]) -> None:
    block = Model(tiny_model(kind, **options)).blocks([5, 6, 7])[0]
    units = ff.symmetry.gated_units(block.mlp)
    assert units.name == activation
    assert units.constant == (kind in ("llama", "modernbert") and bool(options))
    x = normal(3, 32, seed=1)
    with torch.no_grad():
        expected = block.mlp(x)
        assert (units(x) - expected).abs().max() < 1e-12 * expected.abs().max()
        assert (units.as_bilinear_attention()(x) - expected).abs().max() < 1e-12 * expected.abs().max()


def test_minilm_is_said_to_be_not_gated(minilm_path: Path) -> None:
    block = ff.load(minilm_path).blocks("a short text")[0]
    with pytest.raises(InputError, match="not gated"):
        ff.symmetry.gated_units(block.mlp)


class WrittenOut(nn.Module):
    """A gate and a factor from one matrix, biases added after it, a scale before a written-out swish."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.shift, self.out = normal(5, 8, seed=1), normal(8, seed=2), normal(4, 5, seed=3)

    def forward(self, x: Tensor) -> Tensor:
        up, gate = (x @ self.both + self.shift).split(4, -1)
        gate = gate * 1.5
        return (up * (gate * torch.sigmoid(1.702 * gate))) @ self.out * 0.5 + 1


def test_any_module_of_the_form_is_read() -> None:
    module = WrittenOut()
    units = ff.symmetry.gated_units(module, normal(3, 5))
    x = normal(7, 5, seed=4)
    torch.testing.assert_close(units(x), module(x), rtol=1e-12, atol=1e-12)
    assert units.homogeneity.degree is None and not units.homogeneity.proved
    with pytest.raises(InputError, match="give an input"):
        ff.symmetry.gated_units(module)
    with pytest.raises(InputError, match="another way"):
        ff.symmetry.gated_units(lambda x: x + module(x), normal(3, 5))
    with pytest.raises(InputError, match="not of the form"):
        ff.symmetry.gated_units(lambda x: torch.tanh(module(x)), normal(3, 5))


@pytest.mark.parametrize("activation", MLP_ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_layers_are_read_from_weights_as_from_their_graph(activation: str, bias: bool) -> None:
    mlp, x = layer(activation, bias), normal(3, 5, seed=20)
    for units in (ff.symmetry.gated_units(mlp), ff.symmetry.gated_units(lambda x: mlp(x), x)):
        assert units.name == activation
        assert units.homogeneity.degree == DEGREES.get(activation) and units.homogeneity.proved
        torch.testing.assert_close(units(x), mlp(x), rtol=1e-12, atol=1e-12)


def test_degrees_of_known_activations_agree_with_the_test_on_them_as_strangers() -> None:
    for name, function in MLP_ACTIVATIONS.items():
        assert ff.symmetry.homogeneity(name) == DEGREES.get(name)
        tested = ff.symmetry.homogeneity_evidence(lambda z, function=function: function(z))
        assert tested.degree == DEGREES.get(name) and not tested.proved


def test_callables_are_tested_and_refuted_by_numbers() -> None:
    assert ff.symmetry.homogeneity(torch.relu) == ff.symmetry.homogeneity(F.leaky_relu) == 1
    assert ff.symmetry.homogeneity(lambda z: z**3) == 3
    assert ff.symmetry.homogeneity(lambda z: z.abs().sqrt()) == 0.5
    assert ff.symmetry.homogeneity(torch.sign) == 0
    assert ff.symmetry.homogeneity(F.hardtanh) is None
    assert ff.symmetry.homogeneity(torch.exp) is None
    assert ff.symmetry.homogeneity(lambda z: z.clamp(min=500) - 500) is None  # zero up to 500
    # a power on each side, of two different degrees
    evidence = ff.symmetry.homogeneity_evidence(lambda z: torch.where(z > 0, z, z**3)).evidence
    assert "φ(2z)/φ(z) is 2 at z" in evidence and "and 8 at z" in evidence
    for bad, what in ((lambda z: z.sum(), "entry by entry"), (lambda z: 0 * z, "zero wherever"), (None, "failed")):
        with pytest.raises(InputError, match=what):
            ff.symmetry.homogeneity(bad or (lambda z: z.missing()))
    with pytest.raises(InputError, match="'swish'"):
        ff.symmetry.homogeneity("swish")


def changed(mlp: GatedMLP, gate: Tensor, up: Tensor) -> GatedMLP:
    other = copy.deepcopy(mlp)
    other.gate.weight.data, other.up.weight.data = gate, up
    return other


@pytest.mark.parametrize("activation", MLP_ACTIVATIONS)
def test_defects_are_those_of_layers_with_other_weights(activation: str) -> None:
    mlp, x = layer(activation), normal(2, 6, 5, seed=30)
    degree = DEGREES.get(activation)
    with torch.no_grad():
        y = mlp(x)
        swapped = changed(mlp, mlp.up.weight, mlp.gate.weight)(x)
        scaled = changed(mlp, 3 * mlp.gate.weight, mlp.up.weight / 3 ** (degree or 1))(x)
    exchange = ff.symmetry.exchange_defect(mlp, x)
    torch.testing.assert_close(exchange, (swapped - y).norm() / y.norm(), rtol=1e-10, atol=1e-14)
    assert (exchange < 1e-13) == (activation == "identity")
    inverse = ff.symmetry.inverse_scaling_defect(mlp, x, 3)
    torch.testing.assert_close(inverse, (scaled - y).norm() / y.norm(), rtol=1e-10, atol=1e-14)
    assert (inverse < 1e-13) == (degree is not None)


def test_defects_by_unit_and_factor_have_their_shapes() -> None:
    mlp, x = layer("silu", bias=True), normal(6, 5, seed=31)
    factors = torch.tensor([1.0, 2.0, 4.0])
    by_unit = ff.symmetry.inverse_scaling_defect(mlp, x, factors, by_unit=True)
    assert by_unit.shape == (3, 4) and (by_unit[0] == 0).all() and (by_unit[1:] > 0).all()
    assert ff.symmetry.inverse_scaling_defect(mlp, x, factors).shape == (3,)
    assert ff.symmetry.exchange_defect(mlp, x, by_unit=True).shape == (4,)
    mlp.gate.weight.data[2], mlp.gate.bias.data[2] = 0, 0  # silu(0) = 0: a silent unit has no defect of scaling
    assert ff.symmetry.inverse_scaling_defect(mlp, x, 2.0, by_unit=True)[2] == 0
    with pytest.raises(InputError, match="positive"):
        ff.symmetry.inverse_scaling_defect(mlp, x, -1.0)
    with pytest.raises(InputError, match="width 5"):
        ff.symmetry.exchange_defect(mlp, normal(3, 4))


def test_large_pre_activations_make_silu_nearly_symmetric() -> None:
    mlp, x = layer("silu"), normal(50, 5, seed=32)
    small = ff.symmetry.inverse_scaling_defect(mlp, x, 2.0)
    mlp.gate.weight.data *= 100
    assert ff.symmetry.inverse_scaling_defect(mlp, x, 2.0) < 0.1 * small


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_an_activation_with_numbers_of_its_own_is_not_taken_for_the_plain_one(beta: float) -> None:
    """softplus with another beta is another function, in the units, as bilinear attention, and as memories."""
    gate, up, down = torch.randn(3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mlp = lambda x: (torch.nn.functional.softplus(x @ gate, beta) * (x @ up)) @ down  # noqa: E731
    units = ff.symmetry.gated_units(mlp, x)
    assert (units.name == "softplus") == (beta == 1.0)
    torch.testing.assert_close(units.as_bilinear_attention()(x), mlp(x), rtol=1e-12, atol=1e-12)
    plain = lambda x: torch.nn.functional.softplus(x @ gate, beta) @ down  # noqa: E731
    torch.testing.assert_close(ff.memories.extract(plain, x)(x), plain(x), rtol=1e-12, atol=1e-12)
