"""Geometry in coordinates that suit the surface, where those of the chart do not.

Rounding in curvature grows with the condition number of the metric. So where that is large the 2-jet is taken once
more, along directions `B' = T B` with `T` near `R^-T` (`J^T = Q R`), about orthonormal in the image. Any regular `T` is
a change of coordinates, so nothing depends on its own rounding, and it is a constant where gradients are taken; only
the directions themselves have to be formed without loss, for their terms may cancel. What comes out is carried back to
the coordinates of the chart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from fisherflat._arrays import some
from fisherflat._typing import Bool, Float, Tensor
from fisherflat.geometry._frame import nearly_degenerate
from fisherflat.geometry._precision import combined
from fisherflat.geometry._quantities import Geometry
from fisherflat.jets import Jet
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Family, Framed, ParametricFamily, framed

#: the skewness of the Jacobian from which on it pays: about what costs four digits
ILL_CONDITIONED = 2.0**7
#: how often coordinates are changed at most; the second change mends what rounding left of the first
_CHANGES = 2
#: the least eigenvalue of the Gram matrix of a chart's unit directions, to rounding zero, where they are parallel to
#: half the digits
_PARALLEL = 2.0**-48

#: from the jets of all outputs to those of the surface
Pick = Callable[[Tensor], Tensor]


class Jets(Protocol):
    """What gives jets: an engine."""

    def jet(self, u: Float[Tensor, "P k"], basis: Float[Tensor, "P k *shape"] | None = None) -> Float[Tensor, "P S D"]:
        """The 2-jets at the points `u`, along the chart's directions or along others at each point."""


@dataclass(frozen=True)
class Directions:
    """Other directions at some points: where, the change of coordinates `T`, elsewhere the identity, and `T B`."""

    where: Bool[Tensor, " P"]
    change: Float[Tensor, "P k k"]
    basis: Float[Tensor, "P k *shape"]


def lengths(chart: Chart) -> Float[Tensor, " k"]:
    """How long the directions of a chart are: what a Jacobian's columns are compared in."""
    return chart.basis.detach().reshape(chart.k, -1).norm(dim=1)


def refined(
    engine: Jets,
    chart: Chart,
    u: Float[Tensor, "P k"],
    jet: Float[Tensor, "P S D"],
    family: Family | ParametricFamily,
    degenerate: str,
    pick: Pick = lambda jet: jet,
    shape: tuple[int, ...] | None = None,
) -> Geometry:
    """The geometry of a surface from its jet, in better coordinates at the points that need them.

    **Args:** `jet`, the engine's at `u`; `pick`, which of its outputs the surface has, and their `shape` (default:
    all in one axis).

    **Returns:** it; it can tell the errors of its quantities.
    """
    scale = first_scale = lengths(chart).to(u).expand(len(u), -1)

    def surface(jet: Tensor) -> Framed:
        found = Jet(pick(jet), chart.k)
        return framed(family, found, found.coefficients.shape[-1:] if shape is None else shape)

    given = surface(jet)
    ambient = given.ambient
    geometry = first = Geometry(Jet(given.coefficients, chart.k), "nan", u, scale=scale, ambient=ambient)
    near, directions = geometry.nearly_degenerate, None

    def along(directions: Directions, poor: Tensor) -> Geometry:
        """The same surface, along these directions at the points that are poor."""
        nonlocal scale, ambient
        working = geometry.working.coefficients.clone()
        scale = torch.where(poor[:, None], 1.0, scale)  # what comes is about orthonormal
        better = surface(engine.jet(u[poor].contiguous(), directions.basis[poor]))
        working[poor], ambient = better.coefficients, ambient.replaced(poor, better.ambient)
        return Geometry(Jet(working, chart.k), degenerate, u, scale=scale, change=directions.change, ambient=ambient)

    if some(geometry.degenerate):
        parallel = _parallel(chart)
        if parallel is None:
            geometry = Geometry(geometry.working, degenerate, u, scale=scale, ambient=ambient)  # which may raise
        else:  # perhaps in this chart alone
            directions = _moved(chart, geometry, geometry.degenerate, parallel, None)
            geometry = along(directions, directions.where)
    for _ in range(_CHANGES if chart.k > 1 else 0):
        poor = (geometry.skewness > ILL_CONDITIONED) & ~geometry.degenerate
        if not some(poor):
            break
        inner = geometry.working_triangular[poor].detach().double().transpose(-1, -2)
        directions = _moved(chart, geometry, poor, inner, directions)
        geometry = along(directions, poor)
    if directions is not None:
        # where the directions are no longer than what they do, they were parallel in the chart, and that is mended
        steepness = (first.working.jacobian.norm(dim=-1) / first_scale).amax(-1)
        reach = directions.basis.flatten(2).norm(dim=-1).amax(-1)
        near = near & (~directions.where | nearly_degenerate(1 / (reach * steepness), geometry.ambient_dim))
    geometry.nearly_degenerate = near

    def again(runs: int) -> Geometry:
        # all runs at once, as so many points: each entry has a noise of its own
        def repeated(tensor: Tensor) -> Tensor:
            return tensor.expand(runs, *tensor.shape).flatten(0, 1)

        basis = None
        if directions is not None or u.dtype != torch.float64:
            given = directions.basis if directions is not None else chart.basis.to(u).expand(len(u), *chart.basis.shape)
            given = repeated(given)
            basis = given * 1  # perturbed where there is noise: these have been rounded, the chart's own are exact
            if directions is not None and u.dtype == torch.float64:
                where = repeated(directions.where)
                basis = torch.where(where.reshape(-1, *(1,) * (basis.dim() - 1)), basis, given)
        points = repeated(u)
        found = surface(engine.jet(points, basis))
        change = None if directions is None else repeated(directions.change)
        noisy = Jet(found.coefficients, chart.k)
        return Geometry(noisy, "nan", points, scale=repeated(scale), change=change, ambient=found.ambient).reshaped(
            (runs, len(u))
        )

    geometry.again = again
    return geometry


def _parallel(chart: Chart) -> Float[Tensor, "k k"] | None:
    """`R^T` of the chart's own directions, where these are nearly parallel; `None` where they are not, or quite.

    What its lost digits leave, further changes of coordinates mend.
    """
    flat = chart.basis.detach().double().reshape(chart.k, -1)
    size = flat.norm(dim=1)
    if chart.k == 1 or flat.shape[1] < chart.k or not size.all():
        return None
    unit = flat / size[:, None]
    if torch.linalg.eigvalsh(unit @ unit.T)[0] > _PARALLEL:
        return None
    triangular = torch.linalg.qr(flat.T, mode="r").R
    return triangular.T if triangular.diagonal().all() else None


def _moved(
    chart: Chart, geometry: Geometry, poor: Bool[Tensor, " P"], inner: Float[Tensor, "..."], before: Directions | None
) -> Directions:
    """Directions about orthonormal in the image at the points that are `poor`, those of `before` at the others.

    **Args:** `inner`, `R^T` of the directions that are in use, in which they are to be orthonormal.
    """
    basis = chart.basis.to(geometry.degenerate.device)
    identity = torch.eye(chart.k, dtype=torch.float64, device=basis.device)
    change = identity.expand(len(poor), -1, -1).clone() if before is None else before.change.clone()
    change[poor] = torch.linalg.solve_triangular(inner.to(change).expand_as(change[poor]), change[poor], upper=False)
    dtype = geometry.working.coefficients.dtype
    found = basis.to(dtype).expand(len(poor), *basis.shape).clone() if before is None else before.basis.clone()
    found[poor] = combined(change[poor], basis).to(dtype)
    return Directions(poor if before is None else poor | before.where, change, found)
