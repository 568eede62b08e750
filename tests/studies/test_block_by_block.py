"""Depths of models that do not fit into memory: one block's weights at a time, and the numbers of all at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from cases.surfaces import random
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.studies.depth import Stack, budget, profile
from fisherflat.studies.depth._attribution import sampled_budget
from fisherflat.studies.depth._full import sampled_profile

D, N, LAYERS = 6, 4, 3
STATES = random(N, D, seed=1)
CHART = ff.charts.token(STATES, 1, random(2, D, seed=2))
U = random(3, 2, seed=3) / 4


class Block(nn.Module):
    """Attention and a gated MLP with residual sums, and a term that cancels and takes most digits with it."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.attention, self.mlp, self.large = ff.layers.SelfAttention(D, heads=2), ff.layers.GatedMLP(D, 8), large

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        x = x + self.mlp(x)
        if not self.large:
            return x
        term = self.large * torch.tanh(x.sum(-1, keepdim=True) / 9)
        return (x + term) - term


class FromDisk(Sequence):
    """Blocks that are made when they are taken out; it is counted how many have their weights in memory then."""

    def __init__(self, large: float = 0.0) -> None:
        self._large, self._made, self.most = large, list[weakref.ref[Any]](), 0

    def __len__(self) -> int:
        return LAYERS

    def __getitem__(self, index: Any) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(index)
            block = Block(self._large).double()
        for module in block.modules():
            for name, weight in list(module.named_parameters(recurse=False)):
                values = weight.detach().numpy().copy()
                self._made.append(weakref.ref(values))  # alive as long as some tensor has this memory
                setattr(module, name, nn.Parameter(torch.from_numpy(values), requires_grad=False))
        mine = len(list(block.parameters()))
        self.most = max(self.most, sum(one() is not None for one in self._made) // mine)
        return block


def profiled(stack: Stack, **options: Any) -> list[Tensor | None]:
    found = profile(stack, U, **options)
    return [found.scalar_curvature, found.smallest_sectional_curvature, found.covariance, found.verdicts]


def attributed(stack: Stack) -> list[Tensor | None]:
    found = budget(stack, U)
    return [found.matrix, found.traces, found.products]


def in_all_directions(stack: Stack) -> list[Tensor | None]:
    found = sampled_profile(stack, 0)
    return [found.scalar_curvature, found.scalar_curvature_low, found.planes]


MEASURES: dict[str, tuple[float, dict[str, Any], Callable[[Stack], list[Tensor | None]]]] = {
    "profile": (0.0, {}, profiled),
    "all errors": (0.0, {}, lambda stack: profiled(stack, errors="all")),
    "halves": (0.0, {"halves": True}, profiled),
    "calibrated": (0.0, {"family": "calibrated", "moved": [1]}, profiled),
    "held": (0.0, {}, lambda stack: profiled(stack.read("frozen pattern"))),
    "held, halves": (0.0, {"halves": True}, lambda stack: profiled(stack.read("frozen pattern+mlp gate"))),
    "more bits": (1e13, {"family": "calibrated"}, lambda stack: profiled(stack, precision="auto")),
    "all directions": (0.0, {"halves": True}, in_all_directions),
    "all directions, held": (0.0, {"moved": [1, 2]}, lambda stack: in_all_directions(stack.read("frozen pattern"))),
    "all directions, budget": (0.0, {}, lambda stack: [sampled_budget(stack, torch.zeros(2), planes=8).matrix]),
    "budget": (0.0, {}, attributed),
    "budget, held, halves": (0.0, {"halves": True}, lambda stack: attributed(stack.read("frozen pattern"))),
}


@pytest.mark.parametrize("name", MEASURES)
def test_one_block_at_a_time_gives_the_numbers_of_all(name: str) -> None:
    large, options, measure = MEASURES[name]
    blocks = FromDisk(large)
    found = measure(Stack(blocks, CHART, keep=False, **options))
    assert blocks.most == 1
    held = FromDisk(large)
    truth = measure(Stack(held, CHART, **options))
    assert held.most == LAYERS  # the test would see it
    for here, there in zip(found, truth, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_points_pass_all_blocks_thrice(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are traced, measured, and measured with noise: what was measured is not measured again for its error."""
    traced, parts = list[int](), Stack._parts

    def counted(self: Stack, index: int, x: Tensor) -> Any:
        traced.append(index)
        return parts(self, index, x)

    monkeypatch.setattr(Stack, "_parts", counted)
    profile(Stack(FromDisk(), CHART, keep=False), U)
    assert traced == 3 * list(range(LAYERS))
