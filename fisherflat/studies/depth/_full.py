"""Curvature along the depth in all directions of what enters the first block, at the token's own state."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from fisherflat.errors import DegenerateImmersionWarning, PrecisionWarning, without
from fisherflat.geometry import SampledCurvature, Verdict
from fisherflat.studies._sampled import BUDGET, ERROR
from fisherflat.studies.depth._profile import QUANTITIES, DepthProfile, measured_with
from fisherflat.studies.depth._sampled import manifold_after
from fisherflat.studies.depth._stack import Stack


def sampled_profile(stack: Stack, seed: int, step: Callable[[str], None] = lambda label: None) -> DepthProfile:
    """The scalar curvature after every map, from random planes, with its interval and a sentence.

    Where structure says that it is zero, nothing is sampled; where the Jacobian is degenerate, as behind a norm, the
    sentence says what is left.
    """
    found: list[SampledCurvature] = []
    for depth, label in enumerate(("chart", *stack.labels)):
        step(label)
        with without(DegenerateImmersionWarning, PrecisionWarning):  # the sentences say it
            manifold = manifold_after(stack, depth, degenerate="nan")
            at = torch.zeros(stack.chart.k, dtype=torch.float64)
            found.append(manifold.sampled_scalar_curvature(at, ERROR, seed, BUDGET))

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
