"""The geometry of a map on a chart, as rows of a table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import DegenerateImmersionWarning
from fisherflat.geometry import Geometry, StatisticalManifold, refined
from fisherflat.jets.engines import in_chunks
from fisherflat.jets.graph import Graph
from fisherflat.parts import rerouted
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian
from fisherflat.studies.layers._tasks import Row

#: column -> how it is read off a geometry
QUANTITIES: dict[str, Callable[[Geometry], Tensor]] = {
    "scalar_curvature": lambda g: g.scalar_curvature,
    "mean_sectional_curvature": lambda g: g.scalar_curvature / (g.k * (g.k - 1)),
    "smallest_sectional_curvature": lambda g: g.sectional_extremes[..., 0],
    "largest_sectional_curvature": lambda g: g.sectional_extremes[..., 1],
    "second_fundamental_form_norm": lambda g: g.second_fundamental_form_norm,
    "mean_curvature_norm": lambda g: g.mean_curvature_norm,
    "volume_density": lambda g: g.volume_density,
    "effective_rank": lambda g: g.effective_rank,
    "condition_number": lambda g: g.condition_number,
}
FLAT, POSITIVE, NEGATIVE = "flat to rounding", "positive", "negative"
#: what cancellation leaves of the terms that cancel, in units of the machine precision
ROUNDING = 1e3

#: picks some of the outputs of a map, `[..., D]` -> `[..., m]`
Pick = Callable[[Tensor], Tensor]


def everything(outputs: Tensor) -> Tensor:
    """All outputs."""
    return outputs


def measure(
    graph: Graph,
    chart: Chart,
    points: Float[Tensor, "P k"],
    surfaces: Mapping[str, tuple[Pick, Gaussian]],
    *,
    engine: str = "taylor",
    dtype: torch.dtype = torch.float64,
) -> dict[str, list[Row]]:
    """One row a point for each of some surfaces that one map draws: all its outputs, or those of one head.

    **Args:** `surfaces`: by name, which outputs, and their family. Jets are computed once for all of them.

    **Returns:** by name, rows with `point`, `u`, `rerouted`, the numbers of `QUANTITIES`, `verdict` and `error`.

    **Raises:** what `StatisticalManifold` and its engines raise; points where the metric is degenerate are no error
    but rows that say so.
    """
    manifold = StatisticalManifold(graph, chart, engine=engine, dtype=dtype, degenerate="nan")
    u = points.to(chart.point.device, dtype)

    @torch.no_grad()
    def piece(chunk: Tensor) -> Tensor:
        jet, found = manifold.engine.jet(chunk), []
        for pick, family in surfaces.values():
            geometry = refined(manifold.engine, chart, chunk, jet, family, "nan", pick)
            found.append(torch.stack([*(read(geometry) for read in QUANTITIES.values()), flat_to_rounding(geometry)]))
        return torch.stack(found).double().cpu()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateImmersionWarning)  # such points have an error in their row
        pieces = list(in_chunks(piece, u, manifold.engine.bytes_per_point, manifold.engine.chunk_memory))
    numbers = torch.cat(pieces, -1).transpose(1, 2).tolist()
    places = list(zip(range(len(points)), points.tolist(), rerouted(graph, chart, points).tolist(), strict=True))
    return {
        name: [_row(*place, values) for place, values in zip(places, of_surface, strict=True)]
        for name, of_surface in zip(surfaces, numbers, strict=True)
    }


def _row(point: int, u: list[float], rerouted: bool, values: list[float]) -> Row:
    row: Row = {"point": point, "u": u, "rerouted": rerouted, **dict(zip(QUANTITIES, values, strict=False))}
    scal = row["scalar_curvature"]
    if scal == scal:
        return row | {"verdict": FLAT if values[-1] else POSITIVE if scal > 0 else NEGATIVE, "error": None}
    return row | {
        "verdict": None,
        "error": "the metric is degenerate here: some direction of the chart changes nothing",
    }


def flat_to_rounding(geometry: Geometry) -> Tensor:
    """Whether the scalar curvature at each point is zero to rounding.

    It is a difference, `|tr II|^2 - |II|^2`. It is zero to rounding where it is small against the sum of the two, or
    where the second fundamental form itself is no more than the rounding of the values, seen in the frame of the
    metric. That is a measurement, not a proof.
    """
    scal, form = geometry.scalar_curvature, geometry.second_fundamental_form_norm
    noise = ROUNDING * torch.finfo(scal.dtype).eps
    affine = form <= noise * geometry.jet.value.norm(dim=-1) / geometry.singular_values[..., -1] ** 2
    return affine | (scal.abs() <= noise * geometry.cancellation_scale)
