"""The curvature of a two-dimensional manifold on a grid of its chart: the numbers behind a map."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass

import torch

from fisherflat._arrays import integer
from fisherflat._display import Card, displayed
from fisherflat._typing import Float, Int, Tensor
from fisherflat.errors import DegenerateImmersionWarning, InputError, without
from fisherflat.geometry._manifold import StatisticalManifold
from fisherflat.geometry._words import FLAT_WORDS, Verdict
from fisherflat.spaces.families import ParametricFamily, labelled

_WORDS = tuple(Verdict)


@displayed
@dataclass(frozen=True, eq=False)
class CurvatureField:
    """Scalar curvature and metric on a grid, from `curvature_field`.

    The first axis of the tensors is the second coordinate, as in an image.

    **Attributes:**

    - `u`: the coordinates, `[rows, columns, 2]`.
    - `scalar_curvature`: `[rows, columns]`, in units of 1 / covariance, NaN where the metric is singular.
    - `metric`: `[rows, columns, 2, 2]`.
    - `extent`: the rectangle of coordinates, `(low 0, high 0, low 1, high 1)`.
    - `scalar_curvature_error` `[rows, columns]`, how far off rounding may have put it: estimated at a sample of points,
      carried over to the others; `verdicts` `[rows, columns]`, what is known of it, as positions among
      `fisherflat.geometry.Verdict`, -1 where there is no number. Both are `None` in a field of an older release.
    - `family`, by name, where it has a metric of its own, in which curvature is a pure number.
    """

    u: Float[Tensor, "rows columns 2"]
    scalar_curvature: Float[Tensor, "rows columns"]
    metric: Float[Tensor, "rows columns 2 2"]
    extent: tuple[float, float, float, float]
    scalar_curvature_error: Float[Tensor, "rows columns"] | None = None
    verdicts: Int[Tensor, "rows columns"] | None = None
    family: str | None = None

    @property
    def decided(self) -> Float[Tensor, "rows columns"]:
        """The scalar curvature, NaN where it is undecided."""
        if self.verdicts is None:
            return self.scalar_curvature
        return self.scalar_curvature.masked_fill(self.verdicts == _WORDS.index(Verdict.UNDECIDED), float("nan"))

    @property
    def total_curvature(self) -> float:
        """`∫ |K| dA` over the rectangle in radians, `K = scal / 2`: free of units, the same for every covariance.

        Without undecided points.
        """
        density = self.metric.det().clamp_min(0).sqrt()
        low0, high0, low1, high1 = self.extent
        mean = (self.decided.abs() / 2 * density).nanmean().item()
        return mean * (high0 - low0) * (high1 - low1)

    @property
    def verdict(self) -> Verdict:
        """One word for the grid: curved where any point is, else undecided, else flat, proved where all points are."""
        if self.verdicts is None:
            return Verdict.CURVED if self.scalar_curvature.nan_to_num().any() else Verdict.FLAT
        found = self.verdicts[self.verdicts >= 0]
        return _WORDS[int(found.max())] if found.numel() else Verdict.UNDECIDED

    @property
    def is_flat(self) -> bool:
        """Whether the curvature is zero all over the grid, to its error or by structure."""
        return self.verdict in FLAT_WORDS

    def _card(self) -> Card:
        known = self.decided[self.decided.isfinite()]
        about: dict[str, object] = {"extent": self.extent, "points": list(self.scalar_curvature.shape)}
        about |= {"verdict": str(self.verdict), "points with a number": known.numel()}
        if known.numel():
            low, middle, high = known.min().item(), known.median().item(), known.max().item()
            about[labelled("scalar curvature", self.family)] = f"{low:.3g} to {high:.3g}, median {middle:.3g}"
        return Card("CurvatureField", about)


def grid(
    k: int, extent: tuple[float, float, float, float], resolution: int
) -> tuple[Float[Tensor, "rows columns 2"], tuple[float, float, float, float]]:
    """The points of a map over a rectangle of a chart of `k` coordinates, and its bounds as numbers.

    **Raises:** as `curvature_field`.
    """
    if k != 2:
        raise InputError(f"a map needs a chart with 2 coordinates, this one has {k}")
    try:
        low0, high0, low1, high1 = (float(bound) for bound in extent)
        if not all(map(math.isfinite, (low0, high0, low1, high1))) or low0 >= high0 or low1 >= high1:
            raise ValueError("no rectangle")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"extent must be (low 0, high 0, low 1, high 1) with low < high, all finite; got {extent!r}"
        ) from error
    side = integer(resolution, "resolution, in points a side,", 2)
    first, second = (torch.linspace(*ends, side, dtype=torch.float64) for ends in ((low0, high0), (low1, high1)))
    return torch.stack(torch.meshgrid(first, second, indexing="xy"), -1), (low0, high0, low1, high1)


def curvature_field(
    M: StatisticalManifold, extent: tuple[float, float, float, float], *, resolution: int = 101
) -> CurvatureField:
    """The scalar curvature and the metric of a manifold over a rectangle of its chart.

    Points where the metric is singular, or outside the map's domain, are NaN here, whatever `M` does with them.

    **Args:**

    - `M`: a manifold with k = 2.
    - `extent`: the rectangle of coordinates, `(low 0, high 0, low 1, high 1)`.
    - `resolution`: how many points a side, borders included.

    **Returns:** a `CurvatureField`; `fisherflat.plot.curvature_map` draws one.

    **Raises:** `InputError` where the chart is not two-dimensional, the rectangle is empty or not finite, or
    `resolution` is below 2.

    >>> import torch, fisherflat as ff
    >>> M = ff.StatisticalManifold(lambda u: torch.cat([u, u.prod()[None]]), ff.charts.identity(2))  # a saddle
    >>> ff.curvature_field(M, (-1, 1, -1, 1), resolution=3).scalar_curvature[1, 1].item()
    -2.0
    """
    if not isinstance(M, StatisticalManifold):
        raise InputError(f"a map is drawn of a StatisticalManifold, got {type(M).__name__}")
    u, bounds = grid(M.k, extent, resolution)
    tolerant = copy(M)
    tolerant.degenerate = "nan"
    with without(DegenerateImmersionWarning):  # a map shows its holes
        found = tolerant.judged(u, ["scalar_curvature", "metric"])
    return CurvatureField(
        u.cpu(), found["scalar_curvature"].cpu(), found["metric"].cpu(), bounds,
        found["scalar_curvature_error"].cpu(), found["verdicts"].cpu(),
        repr(M.family) if isinstance(M.family, ParametricFamily) else None,
    )  # fmt: skip
