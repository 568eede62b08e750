"""What the certificate files in `tests/data/certificates` are about: weights are multiples of 1/64, exact anywhere.

The files name lines of this module, so that it is not to be changed, only added to at its end.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fisherflat as ff


def numbers(seed: int, *shape: int) -> Tensor:
    """Dyadic numbers between -1/2 and 1/2, from integers alone."""
    entries = [((i * i * 37 + i * 11 + seed * 29) * 7 % 67 - 33) / 64 for i in range(1, 1 + math.prod(shape))]
    return torch.tensor(entries, dtype=torch.float64).reshape(shape)


class Attention(nn.Module):
    """Self-attention with two heads of width 2, and a gate where there is an activation for one."""

    def __init__(self, gate: str | None = None) -> None:
        super().__init__()
        for seed, name in enumerate(("query", "key", "value", "output", "gate"), 1):
            self.register_parameter(name, nn.Parameter(numbers(seed, 4, 4), requires_grad=False))
        self.activation = gate

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = ((x @ w).unflatten(-1, (2, 2)).transpose(0, 1) for w in (self.query, self.key, self.value))
        y = ((q @ k.mT / 2).softmax(-1) @ v).transpose(0, 1).flatten(1)
        if self.activation is not None:
            y = y * getattr(F, self.activation)(x @ self.gate)
        return y @ self.output


HIDDEN = 4 * numbers(7, 3, 4)
CHART = ff.charts.token(HIDDEN, 1, 2 * numbers(8, 2, 4))


def cylinder(u: Tensor) -> Tensor:
    return torch.stack([u[0].cos(), u[0].sin(), u[1] * 0.25])


def gated_mlp() -> nn.Module:
    mlp = ff.layers.GatedMLP(4, 6).double()
    with torch.no_grad():
        for seed, parameter in enumerate(mlp.parameters(), 11):
            parameter.copy_(numbers(seed, *parameter.shape))
    return mlp
