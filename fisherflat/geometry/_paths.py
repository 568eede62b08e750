"""What a manifold says of its geodesics."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any, SupportsIndex

import torch

from fisherflat._arrays import integer
from fisherflat._display import displayed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError, NotDifferentiableError
from fisherflat.geometry._collocation import Curves, taped
from fisherflat.geometry._geodesics import Distance, Geodesics, no_geodesic
from fisherflat.geometry._interpolated import Local
from fisherflat.geometry._quantities import Geometry
from fisherflat.geometry._taped import elsewhere, smooth
from fisherflat.spaces.charts import Chart


@displayed
class Paths:
    """The part of `StatisticalManifold` that follows geodesics."""

    if TYPE_CHECKING:  # what `StatisticalManifold` has
        degenerate: str
        differentiable: bool
        chart: Chart
        dtype: torch.dtype
        engine: Any

        @property
        def k(self) -> int: ...
        @property
        def _taping(self) -> bool: ...
        def _points(self, u: Any, name: str = "u") -> Tensor: ...
        def _mapped(self, function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]: ...
        def _geometry(self, jet: Tensor, points: Tensor) -> Geometry: ...
        def metric(self, u: Any) -> Tensor: ...
        def christoffel(self, u: Any) -> Tensor: ...
        def riemann(self, u: Any) -> Tensor: ...
        def ricci(self, u: Any) -> Tensor: ...
        def scalar_curvature(self, u: Any) -> Tensor: ...

    @cached_property
    def _geodesics(self) -> Geodesics:
        return Geodesics(_local(self._untaped(degenerate="nan")), torch.finfo(self.dtype).eps)

    def _untaped(self, degenerate: str) -> Any:
        """The same manifold, which records no gradients."""
        found = copy(self)
        # the engine is that of the live weights, also without a tape
        found.engine, found.degenerate, found.differentiable = self.engine, degenerate, False
        return found

    @property
    def _on_tape(self) -> Geodesics:
        """The same as `_geodesics`, with gradients."""
        tolerant = copy(self)
        tolerant.engine, tolerant.degenerate = self.engine, "nan"
        return Geodesics(_local(tolerant), torch.finfo(self.dtype).eps)

    def _paired(self, u0: Any, u1: Any, name: str) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        first, second = self._points(u0), self._points(u1, name)
        try:
            first, second = torch.broadcast_tensors(first, second)
        except RuntimeError as error:
            raise InputError(f"u0 {list(first.shape)} and {name} {list(second.shape)} do not fit together") from error
        return first.reshape(-1, self.k).double(), second.reshape(-1, self.k).double(), tuple(first.shape[:-1])

    def _between(self, u0: Any, u1: Any) -> tuple[Tensor, Tensor, Curves, tuple[int, ...]]:
        """Start and end `[P, k]` of geodesics, those, and the batch shape."""
        start, end, batch = self._paired(u0, u1, "u1")
        last = self.__dict__.get("_joined")  # a distance and a path are often asked for between the same points
        if (
            last is not None
            and last[0] == self.chart.written
            and all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(last[1:], (start, end), strict=False))
        ):
            self.metric(start[:1])  # which notices weights that have changed
            curves = last[3]
        else:
            curves = self._geodesics.join(start.detach(), end.detach())
        self.__dict__["_joined"] = None if self.differentiable else (self.chart.written, start, end, curves)
        missed = curves.missed
        if missed.any() and self.degenerate == "raise":
            raise no_geodesic(self._geodesics, missed, start, end, "no geodesic was found")
        return start, end, taped(self._on_tape.local, start, end, curves) if self._taping else curves, batch

    def exp(self, u: Any, v: Any) -> Float[Tensor, "*batch k"]:
        """Where the geodesic from `u` with velocity `v` is after unit time; NaN where it left the domain.

        **Raises:** `DegenerateImmersionError` where there is no geometry at `u`, `NotDifferentiableError` where a
        gradient would be recorded: what this integrates has none, see `log`.

        >>> import fisherflat as ff
        >>> M = ff.StatisticalManifold(lambda u: u, ff.charts.identity(2))
        >>> M.exp([0.0, 0.0], [1.0, 2.0]).tolist()
        [1.0, 2.0]
        """
        start, v, batch = self._paired(u, v, "v")
        metric = self.metric(u)  # which raises, or warns
        if self._taping and (metric.requires_grad or v.requires_grad):
            raise NotDifferentiableError(
                "exp integrates step by step and has no gradient, and here one would be recorded: call it under "
                "torch.no_grad(), or use log, distance and geodesic between two points, which have gradients"
            )
        return self._geodesics.end(start, v).reshape(*batch, self.k)

    def log(self, u0: Any, u1: Any) -> Float[Tensor, "*batch k"]:
        """The velocity of the geodesic from `u0` that is at `u1` after unit time, in coordinates.

        **Raises:** `InputError` where none was found within the chart, unless `degenerate` is `"nan"`.
        """
        *_, curves, batch = self._between(u0, u1)
        return curves.velocity.reshape(*batch, self.k)

    def distance(self, u0: Any, u1: Any, *, error: bool = False) -> Any:
        """The length of the geodesic between points, `[*batch]`, in standard deviations for Gaussians.

        **Args:** `error`: return a `Distance`: lengths, their errors, and the lengths of straight lines in coordinates.

        **Raises:** `InputError` where no geodesic was found that is no longer than the straight line in coordinates,
        unless `degenerate` is `"nan"`; `NotDifferentiableError` where a gradient is recorded and two points are one,
        at which a distance has none.

        >>> import fisherflat as ff
        >>> M = ff.StatisticalManifold(lambda u: u, ff.charts.identity(2), ff.Gaussian(4.0))
        >>> M.distance([0.0, 0.0], [6.0, 8.0]).item()
        5.0
        """
        start, end, curves, batch = self._between(u0, u1)
        found = self._geodesics.length(start, end, curves)
        longer = found.value > found.straight * (1 + 1e-9) + found.error
        if longer.any() and self.degenerate == "raise":
            raise no_geodesic(
                self._geodesics, longer, start, end, "only a geodesic longer than the straight line was found"
            )
        if self._taping:
            found = self._lengths(start, end, curves, found, longer | found.value.isnan())
        value, wrong, straight = (part.masked_fill(longer, torch.nan).reshape(batch) for part in found)
        return Distance(value, wrong, straight) if error else value

    def _lengths(self, start: Tensor, end: Tensor, curves: Curves, found: Distance, bad: Tensor) -> Distance:
        """What was found, with the gradients of lengths where nothing is bad."""
        live = self._on_tape

        def lengths(start: Tensor, velocity: Tensor, end: Tensor) -> tuple[Tensor, ...]:
            return live.norm(start, velocity), live.straight(start, end)

        value, straight = elsewhere(bad, (found.value, found.straight), lengths, start, curves.velocity, end)
        value = smooth(value, lambda: found.value == 0, "the distance of a point from itself is asked for")
        return Distance(value, found.error, straight)

    def geodesic(self, u0: Any, u1: Any, points: SupportsIndex = 65) -> Float[Tensor, "*batch points k"]:
        """`points` places on the geodesic from `u0` to `u1`, both included, evenly spaced along it.

        **Raises:** `InputError` where none was found within the chart, and for fewer than two points.
        """
        count = integer(points, "points, how many a geodesic is drawn with,", 2)
        *_, curves, batch = self._between(u0, u1)
        return curves.at([n / (count - 1) for n in range(count)]).reshape(*batch, count, self.k)

    def parallel_transport(self, u0: Any, u1: Any, v: Any) -> Float[Tensor, "*batch k"]:
        """The tangent vector `v` at `u0`, carried along the geodesic to `u1` without turning, in coordinates."""
        *_, curves, batch = self._between(u0, u1)
        w = self._points(v, "v").double().expand(*batch, self.k).reshape(-1, self.k)
        followed = self._on_tape if self._taping else self._geodesics
        return followed.carried(curves, w).reshape(*batch, self.k)

    def to_geomstats(self) -> Any:
        """This manifold for geomstats: `R^k` equipped with this metric, its curvature and its geodesics.

        **Returns:** a `geomstats` space, whose `.metric` goes into its estimators, such as `FrechetMean(space)`.

        **Raises:** `ImportError` where geomstats is not installed (the extra `bench` brings it).
        """
        from fisherflat.geometry._geomstats import space

        return space(self._untaped(self.degenerate))


def _local(manifold: Any) -> Local:
    """Its metric and Christoffel symbols."""

    def read(jet: Tensor, points: Tensor) -> tuple[Tensor, ...]:
        geometry = manifold._geometry(jet, points)
        return geometry.metric.double(), geometry.christoffel.double()

    def local(u: Tensor) -> tuple[Tensor, Tensor]:
        metric, symbols = manifold._mapped(read, u.to(manifold.dtype))
        return metric, symbols

    return local
