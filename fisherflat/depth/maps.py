"""Curvature over a rectangle of a chart after every block: the numbers behind a strip of maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fisherflat.charts import Chart
from fisherflat.depth.profile import measure_depths
from fisherflat.depth.stack import Map, Stack
from fisherflat.errors import InputError
from fisherflat.family import Gaussian
from fisherflat.field import CurvatureField


def curvature_fields(
    blocks: Sequence[Map],
    chart: Chart,
    extent: tuple[float, float, float, float],
    resolution: int = 41,
    family: Gaussian | str | None = None,
) -> list[CurvatureField]:
    """Curvature and metric on a grid after 1, 2, ... L blocks, from one pass; NaN where the metric is singular.

    **Args:** `extent`, `(low 0, high 0, low 1, high 1)` in coordinates; `resolution`, points a side; the others as in
    `depth_profile`. **Raises:** `InputError` for a chart that is not two-dimensional, and what `depth_profile` raises.
    """
    if chart.dim != 2:
        raise InputError(f"a map needs a chart with 2 coordinates, this one has {chart.dim}")
    low0, high0, low1, high1 = extent
    first, second = (torch.linspace(*ends, resolution, dtype=torch.float64) for ends in ((low0, high0), (low1, high1)))
    u = torch.stack(torch.meshgrid(first, second, indexing="xy"), -1)
    stack = Stack(blocks, chart, family if family is not None else Gaussian())
    found = measure_depths(stack, u, ["scalar_curvature", "metric"], degenerate="nan")
    return [
        CurvatureField(u, scalar_curvature.cpu(), metric.cpu(), extent)
        for scalar_curvature, metric in zip(found["scalar_curvature"][1:], found["metric"][1:], strict=True)
    ]
