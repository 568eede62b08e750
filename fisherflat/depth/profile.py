"""The geometry of a chart's image after every block, from one pass of 2-jets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.charts import Chart
from fisherflat.depth.stack import Map, Stack, in_pieces
from fisherflat.family import Gaussian
from fisherflat.geometry import Geometry
from fisherflat.jets.jet import Jet, size
from fisherflat.jets.taylor import TensorAlgebra

if TYPE_CHECKING:
    import pandas

#: the quantities of `Geometry` that a profile holds for each depth
QUANTITIES = (
    "scalar_curvature",
    "second_fundamental_form_norm",
    "mean_curvature_norm",
    "volume_density",
    "condition_number",
)


@dataclass(frozen=True, eq=False)
class DepthProfile:
    """The geometry of a chart's image after 0, 1, ... L blocks; depth 0 is the chart itself.

    **Attributes:** `scalar_curvature` `[L+1, *batch]`, in units of 1 / covariance; `second_fundamental_form_norm`
    (its square root units), `mean_curvature_norm`, `volume_density`, `condition_number` of the metric, all
    `[L+1, *batch]`; `covariance` `[L+1]`, the covariance of each depth where it is a number, else NaN.
    """

    scalar_curvature: Float[Tensor, "depths *batch"]
    second_fundamental_form_norm: Float[Tensor, "depths *batch"]
    mean_curvature_norm: Float[Tensor, "depths *batch"]
    volume_density: Float[Tensor, "depths *batch"]
    condition_number: Float[Tensor, "depths *batch"]
    covariance: Float[Tensor, " depths"]

    @property
    def depth(self) -> int:
        """L, the number of blocks."""
        return self.scalar_curvature.shape[0] - 1

    @property
    def table(self) -> pandas.DataFrame:
        """A row for each depth and point."""
        import pandas

        columns = {name: getattr(self, name).reshape(self.depth + 1, -1) for name in QUANTITIES}
        points = columns["scalar_curvature"].shape[1]
        return pandas.DataFrame(
            {
                "depth": torch.arange(self.depth + 1).repeat_interleave(points).numpy(),
                "point": torch.arange(points).repeat(self.depth + 1).numpy(),
                **{name: values.reshape(-1).cpu().numpy() for name, values in columns.items()},
            }
        )


def depth_profile(
    blocks: Sequence[Map],
    chart: Chart,
    u: Any,
    family: Gaussian | str | None = None,
    *,
    degenerate: str = "raise",
    memory: int | None = None,
) -> DepthProfile:
    """The geometry of the chart's image after every block, from one pass of 2-jets.

    **Args:** `blocks`: maps of one tensor, in order (whole blocks, or half-blocks for a finer profile); `chart`; `u`
    `[*batch, k]`; `family`: a Gaussian for all depths (default `Gaussian()`), or `"calibrated"` for the dimensionless
    profile (see `Stack`); `degenerate` as in `StatisticalManifold`; `memory`, a budget in bytes.

    **Raises:** `InputError`, `MapError`, `TraceError`, `DegenerateImmersionError`.
    """
    stack = Stack(blocks, chart, family if family is not None else Gaussian())
    columns = measure_depths(stack, u, QUANTITIES, degenerate=degenerate, memory=memory)
    covariances = [g.covariance.item() if g.covariance.dim() == 0 else float("nan") for g in stack.families]
    return DepthProfile(**columns, covariance=torch.tensor(covariances, dtype=torch.float64))


def measure_depths(
    stack: Stack, u: Any, quantities: Sequence[str], *, degenerate: str = "raise", memory: int | None = None
) -> dict[str, Tensor]:
    """Quantities of `Geometry`, by name, `[L+1, *batch, ...]` after 0, 1, ... L blocks of a stack.

    **Raises:** `CovarianceError` where the family does not fit the width of some depth.
    """
    for gaussian, dim in zip(stack.families, stack.sizes, strict=True):
        gaussian.check(dim)
    k, points = stack.chart.dim, stack.chart.coordinates(u)

    def measure(chunk: Tensor) -> list[Tensor]:
        depths = zip(stack.families, stack.depths(chunk, TensorAlgebra()), strict=True)
        found = [Geometry(Jet(gaussian.whiten(c), k), degenerate, chunk) for gaussian, c in depths]
        return [torch.stack([getattr(geometry, name) for geometry in found]) for name in quantities]

    pieces = in_pieces(measure, points.reshape(-1, k), stack.bytes_per_coefficient() * size(k), memory)
    joined = [torch.cat(parts, 1) for parts in zip(*pieces, strict=True)]
    shaped = [values.reshape(values.shape[0], *points.shape[:-1], *values.shape[2:]) for values in joined]
    return dict(zip(quantities, shaped, strict=True))
