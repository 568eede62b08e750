"""Curvature by roles, with gradients: the numbers of a budget, and the slopes of differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.training import attributed


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.attention = nn.LayerNorm(6), ff.layers.SelfAttention(6, heads=2, gate=ff.layers.Gate())
        self.mlp = ff.layers.GatedMLP(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.mlp(x)


BLOCK = Block().double()
CHART = ff.charts.token(drawn(4, 6, seed=1), -1, drawn(2, 6, seed=2))
M = ff.StatisticalManifold(BLOCK, CHART, ff.Gaussian(0.3), differentiable=True)
U = 0.3 * drawn(3, 2, seed=3)


def test_as_a_budget_has_it() -> None:
    found = attributed(M, U)
    budget = ff.curvature_budget(BLOCK, CHART, U, family=ff.Gaussian(0.3))
    want = dict(zip(budget.labels, budget.attributed.unbind(-1), strict=True))
    assert {"norm", "pattern", "attention_gate", "mlp_gate"} <= set(found)
    assert all(torch.allclose(value, want[role], rtol=1e-9, atol=1e-12) for role, value in found.items())
    assert torch.allclose(sum(found.values()), M.scalar_curvature(U), rtol=1e-10)


@pytest.mark.parametrize("role", ["norm", "pattern", "attention_gate", "mlp_gate"])
def test_its_gradient(role: str) -> None:
    BLOCK.zero_grad()
    attributed(M, U)[role].sum().backward()
    for seed, parameter in enumerate(BLOCK.parameters()):
        v, h = drawn(*parameter.shape, seed=seed), 2.0**-13
        with torch.no_grad():
            parameter.add_(h * v)
            ahead = attributed(M, U)[role].sum().item()
            parameter.sub_(2 * h * v)
            behind = attributed(M, U)[role].sum().item()
            parameter.add_(h * v)
        own = 0.0 if parameter.grad is None else (parameter.grad * v).sum().item()
        assert math.isclose(own, (ahead - behind) / (2 * h), rel_tol=1e-4, abs_tol=1e-5)


def test_of_other_manifolds() -> None:
    with pytest.raises(ff.errors.InputError, match="differentiable=True"):
        attributed(ff.StatisticalManifold(BLOCK, CHART), U)
