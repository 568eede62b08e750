"""The geometry of a chart's image after every block, from one pass of 2-jets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.charts import Chart
from fisherflat.depth.stack import Map, Stack, in_pieces
from fisherflat.errors import InputError
from fisherflat.family import Gaussian
from fisherflat.geometry import Geometry
from fisherflat.jets.jet import Jet, size
from fisherflat.jets.taylor import TensorAlgebra

if TYPE_CHECKING:
    import pandas

#: the quantities that a profile holds for each depth, one number a point
QUANTITIES = (
    "scalar_curvature",
    "smallest_sectional_curvature",
    "largest_sectional_curvature",
    "second_fundamental_form_norm",
    "mean_curvature_norm",
    "volume_density",
    "condition_number",
)


@dataclass(frozen=True, eq=False)
class DepthProfile:
    """The geometry of a chart's image after 0, 1, ... L blocks; depth 0 is the chart itself.

    **Attributes:** all `[L+1, *batch]`: `scalar_curvature`, `smallest_sectional_curvature` and
    `largest_sectional_curvature` over all planes (see `Geometry.sectional_extremes`), in units of 1 / covariance;
    `second_fundamental_form_norm` and `mean_curvature_norm`, in units of its square root; `volume_density` and
    `condition_number` of the metric. `covariance` `[L+1]`, that of each depth where it is a number, else NaN; `dim`, k.
    """

    scalar_curvature: Float[Tensor, "depths *batch"]
    smallest_sectional_curvature: Float[Tensor, "depths *batch"]
    largest_sectional_curvature: Float[Tensor, "depths *batch"]
    second_fundamental_form_norm: Float[Tensor, "depths *batch"]
    mean_curvature_norm: Float[Tensor, "depths *batch"]
    volume_density: Float[Tensor, "depths *batch"]
    condition_number: Float[Tensor, "depths *batch"]
    covariance: Float[Tensor, " depths"]
    dim: int

    @property
    def depth(self) -> int:
        """L, the number of blocks."""
        return self.scalar_curvature.shape[0] - 1

    @property
    def mean_sectional_curvature(self) -> Float[Tensor, "depths *batch"]:
        """The mean over all planes, `scal / (k (k - 1))`; NaN for k = 1."""
        planes = self.dim * (self.dim - 1)
        return self.scalar_curvature / planes if planes else torch.full_like(self.scalar_curvature, float("nan"))

    def with_covariance(self, covariance: float) -> DepthProfile:
        """The same geometry measured with one number as the covariance of every depth; it only sets the unit.

        **Raises:** `InputError` where the covariance of some depth is no number, or `covariance` is not positive.
        """
        if not covariance > 0 or self.covariance.isnan().any():
            raise InputError(
                "only a profile whose covariances are numbers can be converted, and only to a positive one"
            )
        ratio = (covariance / self.covariance).to(self.scalar_curvature)
        ratio = ratio.reshape(-1, *(1,) * (self.scalar_curvature.dim() - 1))
        powers = {"condition_number": 0.0, "volume_density": -self.dim / 2}
        powers |= dict.fromkeys(("second_fundamental_form_norm", "mean_curvature_norm"), 0.5)
        columns = {name: getattr(self, name) * ratio ** powers.get(name, 1.0) for name in QUANTITIES}
        return DepthProfile(**columns, covariance=torch.full_like(self.covariance, covariance), dim=self.dim)

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
    names = [name for name in QUANTITIES if "sectional" not in name]
    columns = measure_depths(stack, u, [*names, "sectional_extremes"], degenerate=degenerate, memory=memory)
    smallest, largest = columns.pop("sectional_extremes").unbind(-1)
    columns |= {"smallest_sectional_curvature": smallest, "largest_sectional_curvature": largest}
    covariances = [g.covariance.item() if g.covariance.dim() == 0 else float("nan") for g in stack.families]
    return DepthProfile(**columns, covariance=torch.tensor(covariances, dtype=torch.float64), dim=chart.dim)


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
