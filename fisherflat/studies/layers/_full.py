"""A part of a layer in all directions of what enters it, as a row of a table."""

from __future__ import annotations

import math

import torch

from fisherflat.errors import DegenerateImmersionWarning, PrecisionWarning, without
from fisherflat.geometry import SampledCurvature, StatisticalManifold
from fisherflat.jets.graph import Graph
from fisherflat.spaces.charts import Chart
from fisherflat.studies._journal import Row
from fisherflat.studies._sampled import BUDGET, ERROR
from fisherflat.studies.layers._measure import QUANTITIES, Surface

#: columns beside those of few directions -> what they say
SAMPLED = (
    "directions",
    "scalar_curvature_low",
    "scalar_curvature_high",
    "positive_planes",
    "negative_planes",
    "planes",
)


def in_all_directions(graph: Graph, chart: Chart, surface: Surface, engine: str, dtype: torch.dtype, seed: int) -> Row:
    """The scalar curvature at the chart's origin in all its directions, with its interval.

    Where structure says that it is zero nothing is sampled, and where the Jacobian is degenerate, as it is behind a
    norm, the row's `error` says what is left.
    """
    outputs = graph(chart.point).flatten()
    every = len(surface.pick(outputs)) == len(outputs)  # then structure shows in the graph itself
    mean = graph if every else lambda x: surface.pick(graph(x).flatten())
    manifold = StatisticalManifold(mean, chart, surface.family, engine=engine, dtype=dtype, degenerate="nan")
    with without(DegenerateImmersionWarning, PrecisionWarning):  # said in the row, and in a note
        found: SampledCurvature = manifold.sampled_scalar_curvature(
            torch.zeros(chart.k, dtype=torch.float64), ERROR, seed, BUDGET
        )
    low, high = found.interval
    numbers = dict.fromkeys(QUANTITIES, math.nan) | {
        "scalar_curvature": found.value,
        "mean_sectional_curvature": found.mean_sectional.value,
        "effective_rank": found.effective_dimension,
        "directions": found.k,
        "scalar_curvature_low": low,
        "scalar_curvature_high": high,
        "positive_planes": found.positive.value,
        "negative_planes": found.negative.value,
        "planes": found.pairs,
        "scalar_curvature_error": found.rounding,
    }
    about: Row = {"point": 0, "u": [], "rerouted": False, "negligible_image": None, "reached": found.reached}
    return about | numbers | {"verdict": found.verdict, "error": None if found.verdict else f"{found}"}


def unreached(rows: list[Row]) -> list[str]:
    """A sentence where the budget of planes ended first."""
    measured = [row for row in rows if row.get("planes")]
    short = [row for row in measured if not row["reached"]]
    if not short:
        return []
    return [
        f"At {len(short)} of {len(measured)} places in all directions {BUDGET} random planes did not suffice for a "
        f"standard error of {100 * ERROR:.3g} %; the intervals there are as wide as they are."
    ]
