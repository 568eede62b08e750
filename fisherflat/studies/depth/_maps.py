"""Curvature over a rectangle of a chart after every block: the numbers behind a strip of maps."""

from __future__ import annotations

import torch

from fisherflat.errors import InputError
from fisherflat.geometry import CurvatureField
from fisherflat.studies.depth._profile import measure_depths
from fisherflat.studies.depth._stack import Stack


def curvature_fields(
    stack: Stack, extent: tuple[float, float, float, float], resolution: int = 41
) -> dict[str, CurvatureField]:
    """Curvature and metric on a grid after each block, by label, from one pass; NaN where the metric is singular.

    **Args:** `extent`, `(low 0, high 0, low 1, high 1)` in coordinates; `resolution`, points a side.

    **Raises:** `InputError` for a chart that is not two-dimensional, `CovarianceError`.
    """
    if stack.chart.dim != 2:
        raise InputError(f"a map needs a chart with 2 coordinates, this one has {stack.chart.dim}")
    low0, high0, low1, high1 = extent
    first, second = (torch.linspace(*ends, resolution, dtype=torch.float64) for ends in ((low0, high0), (low1, high1)))
    u = torch.stack(torch.meshgrid(first, second, indexing="xy"), -1)
    found = measure_depths(stack, u, ["scalar_curvature", "metric"], degenerate="nan")
    return {
        stage.label: CurvatureField(u, scalar_curvature.cpu(), metric.cpu(), extent)
        for stage, scalar_curvature, metric in zip(
            stack.stages, found["scalar_curvature"][1:], found["metric"][1:], strict=True
        )
    }
