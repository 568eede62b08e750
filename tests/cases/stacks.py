"""Stacks of blocks for the tests of depth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import fisherflat as ff

Map = Callable[[Tensor], Tensor]


class Residual(nn.Module):
    """`x + attention(x)`, and behind it `x + mlp(norm(x))` where there is an MLP."""

    def __init__(self, dim: int, gate: ff.layers.Gate | None, mlp: bool) -> None:
        super().__init__()
        self.attention = ff.layers.SelfAttention(dim, heads=2, gate=gate)
        self.norm = nn.LayerNorm(dim)
        self.mlp = ff.layers.GatedMLP(dim, 2 * dim) if mlp else None

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x if self.mlp is None else x + self.mlp(self.norm(x))


class Bypassed(nn.Module):
    """`x + inner(x)`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Alone(nn.Module):
    """Each number by itself, through a bijection."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.factor * x**3


class Stack(nn.Module):
    """Layers in a list, one after the other, as models hold their blocks."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def residual_stack(depth: int, dim: int = 8, gate: ff.layers.Gate | None = None, mlp: bool = True) -> list[Map]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [Residual(dim, gate, mlp).double() for _ in range(depth)]


def linear_stack(depth: int, dim: int = 8) -> list[Map]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [nn.Linear(dim, dim).double() for _ in range(depth)]


def paraboloid_stack(depth: int, a: float) -> tuple[list[Map], ff.charts.Chart]:
    """Residual bilinear layers that each add `a (u^2 + v^2)` to the last of three coordinates, over the plane."""
    axes = torch.eye(3, dtype=torch.float64)
    layer = ff.layers.BilinearAttention(axes[None, :2], axes[None, :2], a * axes[2:])
    return [lambda x: x + layer(x)] * depth, ff.charts.affine(torch.zeros(3), axes[:2])
