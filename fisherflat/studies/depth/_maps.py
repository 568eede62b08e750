"""Curvature over a rectangle of a chart after every block: the numbers behind a strip of maps."""

from __future__ import annotations

from collections.abc import Sequence

from fisherflat.geometry import CurvatureField, grid
from fisherflat.parts.readings import LIVE
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian
from fisherflat.studies.depth._depths import NEEDED, Depths, judged, measure_depths
from fisherflat.studies.depth._stack import Map, Stack


def curvature_fields(
    blocks: Map | Sequence[Map],
    chart: Chart,
    extent: tuple[float, float, float, float],
    *,
    resolution: int = 41,
    family: Gaussian | str | None = None,
    halves: bool = False,
    reading: str = LIVE,
) -> dict[str, CurvatureField]:
    """Curvature and metric on a grid after each block, from one pass of 2-jets; for `fisherflat.plot.depth_maps`.

    **Args:**

    - `blocks`, maps of one tensor, in order; `chart`, with 2 coordinates.
    - `extent`, `(low 0, high 0, low 1, high 1)` in coordinates; `resolution`, points a side.
    - `family`, `halves` and `reading` as in `fisherflat.depth_profile`.

    **Returns:** by label, such as `layer 3`, the field; NaN where the metric is singular.

    **Raises:** `InputError` for a chart that is not two-dimensional, a rectangle that is empty or not finite, or a
    `resolution` below 2; `CovarianceError`.

    >>> import torch, fisherflat as ff
    >>> bowl = lambda x: x + torch.stack([0 * x[0], 0 * x[1], x[0] ** 2 + x[1] ** 2])
    >>> chart = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])
    >>> fields = ff.curvature_fields([bowl, bowl], chart, (-1.0, 1.0, -1.0, 1.0), resolution=3)
    >>> {label: field.scalar_curvature[1, 1].item() for label, field in fields.items()}  # 8 L² at the bottom
    {'layer 0': 8.0, 'layer 1': 32.0}
    """
    stack = Stack(blocks, chart, family, halves=halves)
    return fields_after_blocks(stack if reading == LIVE else stack.read(reading), extent, resolution)


def fields_after_blocks(
    stack: Stack, extent: tuple[float, float, float, float], resolution: int
) -> dict[str, CurvatureField]:
    """The fields of a stack that has been traced; see `curvature_fields`."""
    u, bounds = grid(stack.chart.k, extent, resolution)
    depths = Depths(stack)
    found = measure_depths(depths, u, list(dict.fromkeys(("scalar_curvature", "metric", *NEEDED))), degenerate="nan")
    errors, verdicts = judged(depths, u, found)
    return {
        label: CurvatureField(u, scal.cpu(), metric.cpu(), bounds, error.cpu(), codes.cpu(), stack.family)
        for label, scal, metric, error, codes in zip(
            stack.labels, found["scalar_curvature"][1:], found["metric"][1:], errors[1:], verdicts[1:], strict=True
        )
    }
