"""Gated MLPs as bilinear attention, and its best rank-1 approximation in two senses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fisherflat.errors import InputError
from fisherflat.layers import MLP_ACTIVATIONS, BilinearAttention, GatedMLP


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("activation", MLP_ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_a_gated_mlp_is_bilinear_attention_for_every_activation(activation: str, bias: bool) -> None:
    mlp = GatedMLP(6, 9, activation, bias).double()
    for index, parameter in enumerate(mlp.parameters()):
        parameter.data.copy_(normal(*parameter.shape, seed=index))
    x = normal(2, 5, 6, seed=99)
    bilinear = mlp.as_bilinear_attention()
    torch.testing.assert_close(bilinear(x), mlp(x), rtol=1e-12, atol=1e-12)
    assert bilinear.query.shape == (9, 1, 6 + bias)


def descended(target: Tensor, form: bool, seed: int) -> float:
    g, u = normal(2, len(target), seed=seed).unbind()
    optimizer = torch.optim.LBFGS(
        [g.requires_grad_(), u.requires_grad_()], max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-16
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        difference = target - torch.outer(g, u)
        value = ((difference + difference.T) / 2 if form else difference).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return loss().item() ** 0.5


def minimised(target: Tensor, form: bool) -> float:
    """The least Frobenius norm of `target - g uᵀ`, or of its symmetric part, by brute force from several starts."""
    return min(descended(target, form, seed) for seed in range(6))


@pytest.mark.parametrize("sense", ["matrix", "function"])
@pytest.mark.parametrize("rank", [2, 4])
def test_rank_one_is_as_good_as_brute_force(sense: str, rank: int) -> None:
    bilinear = BilinearAttention(normal(3, rank, 4, seed=1), normal(3, rank, 4, seed=2), normal(3, 4, seed=3))
    found = bilinear.rank_one(sense)
    for target, mine, error in zip(bilinear.matrices(), found.attention.matrices(), found.error, strict=True):
        target, mine = target.detach(), mine.detach()
        whole = target if sense == "matrix" else (target + target.T) / 2
        least = minimised(target, sense == "function")
        assert error * whole.norm() == pytest.approx(least, rel=1e-6)
        left = target - mine if sense == "matrix" else whole - (mine + mine.T) / 2
        assert left.norm() == pytest.approx(least, rel=1e-6)


def test_definite_forms_keep_one_eigenvalue() -> None:
    query = normal(1, 3, 5, seed=4)
    for sign in (1, -1):
        bilinear = BilinearAttention(query, sign * query, normal(1, 5))
        spectrum = torch.linalg.eigvalsh(query[0].T @ query[0])
        found = bilinear.rank_one()
        expected = (spectrum[:-1].square().sum() / spectrum.square().sum()).sqrt()
        torch.testing.assert_close(found.error[0], expected)


def test_the_gaussian_error_is_that_of_many_inputs() -> None:
    bilinear = BilinearAttention(normal(2, 3, 4, seed=5), normal(2, 3, 4, seed=6), torch.eye(2, 4).double())
    x = normal(400_000, 4, seed=7)
    with torch.no_grad():
        for sense in ("matrix", "function"):
            found = bilinear.rank_one(sense)
            scores, change = bilinear(x)[:, :2], (bilinear(x) - found.attention(x))[:, :2]
            sampled = change.square().mean(0).sqrt() / scores.square().mean(0).sqrt()
            torch.testing.assert_close(sampled, found.gaussian_error, rtol=2e-2, atol=0)


def test_one_unit_is_an_indefinite_form_of_rank_two_and_its_own_best_unit() -> None:
    g, u = normal(2, 1, 1, 6, seed=8).unbind()
    bilinear = BilinearAttention(g, u, normal(1, 6))
    dot, norms = (g * u).sum(), g.norm() * u.norm()
    torch.testing.assert_close(bilinear.form_spectrum()[0], torch.stack([dot - norms, dot + norms]) / 2)
    torch.testing.assert_close(bilinear.rank_profile()[0], norms[None])
    for sense in ("matrix", "function"):
        found = bilinear.rank_one(sense)
        assert found.error.max() < 1e-12 and found.gaussian_error.max() < 1e-7
        x = normal(5, 6, seed=9)
        torch.testing.assert_close(found.attention(x), bilinear(x))


def test_an_antisymmetric_part_does_not_act_and_costs_nothing_in_the_sense_of_functions() -> None:
    g, u, a, b = normal(4, 6, seed=10).unbind()
    query, key = torch.stack([g, a, b])[None], torch.stack([u, b, -a])[None]
    bilinear = BilinearAttention(query, key, normal(1, 6))
    assert bilinear.rank_one("matrix").error.item() > 0.1
    found = bilinear.rank_one("function")
    assert found.error.item() < 1e-12
    x = normal(5, 6, seed=11)
    torch.testing.assert_close(found.attention(x), bilinear(x))


def test_what_cannot_be_approximated_or_does_not_fit_is_refused() -> None:
    mlp = GatedMLP(4, 5, "silu")
    with pytest.raises(InputError, match="activation on its query factor"):
        mlp.as_bilinear_attention().rank_one()
    with pytest.raises(InputError, match="not 'tensor'"):
        GatedMLP(4, 5, "identity").as_bilinear_attention().rank_one("tensor")
    with pytest.raises(InputError, match=r"\[h, rank, d \+ 1\]"):
        BilinearAttention(normal(2, 1, 4), normal(2, 1, 4), normal(2, 4), constant=True)
    with pytest.raises(InputError, match="bias of bilinear attention"):
        BilinearAttention(normal(2, 1, 4), normal(2, 1, 4), normal(2, 4), bias=normal(3))
    with pytest.raises(InputError, match="'swish'"):
        BilinearAttention(normal(2, 1, 4), normal(2, 1, 4), normal(2, 4), "swish")
