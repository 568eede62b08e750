"""Depth: profiles over plain forward passes, budgets over profiles, and how both grow with the number of blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
import torch

from fisherflat._typing import Tensor
from fisherflat.jets import pairs, size
from fisherflat.lab.bench import minilm
from fisherflat.lab.bench._measure import Spread, interleaved, seconds
from fisherflat.lab.bench.floor import fastest, floors
from fisherflat.lab.bench.maps import Subject, subject
from fisherflat.lab.bench.memory import peak
from fisherflat.studies.depth import Stack, budget, profile

#: what is measured of a random stack: width, tokens, k, points, numbers of blocks
RANDOM: dict[str, Any] = {"width": 512, "tokens": 32, "k": 3, "points": 16, "depths": (6, 12, 24)}
QUICK: dict[str, Any] = {"width": 32, "tokens": 8, "k": 3, "points": 2, "depths": (2, 4, 8)}


def encoder(k: int) -> tuple[Subject, list[Callable[[Tensor], Tensor]]]:
    """MiniLM's whole encoder on the chart of its first block, and its blocks."""
    parts = [minilm.subject(name, k) for name in minilm.NAMES]

    def forward(x: Tensor) -> Tensor:
        return reduce(lambda states, part: part.forward(states), parts, x)

    chart, dtype = parts[0].chart, parts[0].dtype
    return Subject("minilm", forward, forward, forward, forward, chart, dtype), [part.module for part in parts]


def over_floor(repeats: int, points: int = 64, k: int = 2) -> dict[str, Any]:
    """Time of MiniLM's profile over S plain passes of the encoder, and of its budgets over the profile's second order.

    The second-order part of a profile is taken to be its share of the coefficients, k(k+1)/2 of S.
    """
    whole, blocks = encoder(k)
    stack, u = Stack(blocks, whole.chart, "calibrated"), whole.points(points)
    calls: dict[Any, Callable[[], object]] = dict(floors(whole, points))
    calls["profile"] = lambda: profile(stack, u)
    calls["role"] = lambda: budget(stack.at_the_end(), u, "role")
    calls["layer"] = lambda: budget(stack.at_the_end(), u, "layer")
    samples = interleaved(calls, repeats, whole.device)
    batch, share = fastest(samples), len(pairs(k)) / size(k)
    labels = {"role": len({role for stage in stack.stages for role in stage.bending}), "layer": len(stack.stages)}
    return {
        "blocks": len(blocks),
        "k": k,
        "points": points,
        "floor_batch": batch,
        "seconds": {what: Spread.of(samples[what]) for what in (batch, "profile", "role", "layer")},
        "profile_over_floor": Spread.ratio(samples["profile"], samples[batch]),
        "labels": labels,
        "budget_over_second_order": {
            by: Spread.ratio(samples[by], samples["profile"], 1 / share) for by in ("role", "layer")
        },
    }


def growth(width: int, tokens: int, k: int, points: int, depths: tuple[int, ...]) -> dict[str, Any]:
    """Seconds and peak memory of the profile of stacks of random pre-norm blocks, all tokens moving, by their depth.

    Each once: the deepest takes long. The exponents are slopes of lines through the logarithms.
    """
    elapsed, peaks = {}, {}
    for depth in depths:
        made = subject(f"block-{width}x{depth}", k, tokens=tokens)
        assert isinstance(made.module, torch.nn.Sequential)
        stack, u = Stack(list(made.module), made.chart, "calibrated"), made.points(points)
        profile(stack, u[:1])
        elapsed[depth] = seconds(_profile(stack, u), made.device)
        peaks[depth] = peak(_profile(stack, u[:2]), made.device)
    return {
        "width": width, "tokens": tokens, "k": k, "points": points, "seconds": elapsed, "peak_bytes": peaks,
        "exponents": {what: _slope(values) for what, values in (("time", elapsed), ("memory", peaks))},
    }  # fmt: skip


def _profile(stack: Stack, u: Tensor) -> Callable[[], object]:
    return lambda: profile(stack, u)


def _slope(values: Mapping[int, float]) -> float:
    return float(np.polyfit(np.log(list(values)), np.log(list(values.values())), 1)[0])
