"""Curvature along the depth in all directions of what enters the first block, at the token's own state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from fisherflat.geometry import SampledCurvature, Verdict, sampled_at
from fisherflat.studies._sampled import BUDGET, ERROR
from fisherflat.studies.depth._profile import QUANTITIES, DepthProfile, measured_with
from fisherflat.studies.depth._sampled import tangents_after
from fisherflat.studies.depth._stack import Stack


@torch.no_grad()
def sampled_profile(stack: Stack, seed: int, step: Callable[[str], None] = lambda label: None) -> DepthProfile:
    """The scalar curvature after every map, from random planes, with its interval and a sentence.

    One block is in memory at a time: planes pass them one after the other, for each depth anew. Where structure says
    that it is zero, nothing is sampled; where the Jacobian is degenerate, as behind a norm, the sentence says what is
    left.
    """
    found, at = list[SampledCurvature](), stack.chart.point.new_zeros(stack.chart.k)
    for depth, label in enumerate(("chart", *stack.labels)):
        step(label)
        tangents = tangents_after(stack, depth, at)
        proved = tangents.k == tangents.outputs or not any(stage.bending for stage in stack.stages[:depth])
        found.append(sampled_at(tangents, ERROR, seed, BUDGET, proved, "nan"))

    def column(read: Callable[[SampledCurvature], float]) -> torch.Tensor:
        return torch.tensor([[read(one)] for one in found], dtype=torch.float64)

    verdicts = [[-1 if one.verdict is None else list(Verdict).index(Verdict(one.verdict))] for one in found]
    nothing: dict[str, Any] = dict.fromkeys(QUANTITIES, torch.full((len(found), 1), math.nan, dtype=torch.float64))
    return DepthProfile(
        **nothing | {"scalar_curvature": column(lambda one: one.value)},
        **measured_with(stack),
        passed=stack.passed,
        labels=stack.labels,
        k=stack.chart.k,
        reading=stack.reading,
        scalar_curvature_error=column(lambda one: one.rounding),
        verdicts=torch.tensor(verdicts),
        scalar_curvature_low=column(lambda one: one.interval[0]),
        scalar_curvature_high=column(lambda one: one.interval[1]),
        planes=column(lambda one: one.pairs),
        said=tuple(map(str, found)),
    )
