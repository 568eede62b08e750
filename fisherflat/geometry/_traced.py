"""What needs no more than first derivatives, or one sum of second ones, where directions are many.

`H = (1/k) g^ij II_ij` is a trace: along directions that are orthonormal in the image it is the normal part of
`(1/k) sum_i d_i d_i f`, a Laplacian. So first derivatives are taken along the directions of the chart, `J^T = Q R`, and
that sum alone along `R^-T B`: `3 + 2 k` coefficients in the place of `1 + k + k (k + 1) / 2`. Points where first
derivatives show anything out of the ordinary are left to whole 2-jets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from fisherflat._arrays import some
from fisherflat._modes import lasting, unrounded
from fisherflat._typing import Bool, Tensor
from fisherflat.errors import DegenerateImmersionWarning, PrecisionWarning, UnsupportedOpError, without
from fisherflat.geometry._frame import inverse
from fisherflat.geometry._quantities import Geometry
from fisherflat.geometry._recharted import ILL_CONDITIONED, lengths
from fisherflat.geometry._words import warn_of
from fisherflat.jets import Jet
from fisherflat.jets.engines import in_chunks
from fisherflat.spaces.families import summed

Tensors = tuple[Tensor, ...]

#: quantities that first derivatives say, and those that a sum of second ones says
FIRST = ("metric", "volume_density", "singular_values", "condition_number", "effective_rank")
TRACES = ("mean_curvature", "mean_curvature_norm")
#: from so many directions on it pays for every map and family, whatever points share in whole 2-jets
MANY = 12


@lasting()
@unrounded
def measured(manifold: Any, names: Sequence[str], points: Tensor) -> Tensors | None:
    """Quantities of a `StatisticalManifold` at points `[*batch, k]`; `None` where it takes whole 2-jets, or these less.

    There are no gradients.
    """
    if manifold.k < MANY or not {*names} <= {*FIRST, *TRACES} or not names or manifold._taping:
        return None
    engine = manifold.engine
    if not hasattr(engine, "collapsed"):
        return None
    manifold._mapping.unchanged()
    flat, taken = points.reshape(-1, manifold.k), engine.bytes_per_coefficient * (2 + manifold.k)
    try:
        with torch.no_grad():
            pieces = list(in_chunks(lambda u: _at(manifold, names, u), flat, taken, engine.chunk_memory))
    except UnsupportedOpError:
        return None
    plain, *found = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    if some(~plain):
        with without(DegenerateImmersionWarning, PrecisionWarning):  # said below, of all points
            others = manifold._measured(lambda g: (g.degenerate, g.nearly_degenerate, *_read(g, names)), flat[~plain])
        masks = [torch.zeros_like(plain) for _ in range(2)]
        for values, rest in zip((*masks, *found), others, strict=True):
            values[~plain] = rest
        warn_of(*masks)
    return tuple(values.reshape((*points.shape[:-1], *values.shape[1:])) for values in found)


def _read(geometry: Geometry, names: Iterable[str]) -> Tensors:
    return tuple(getattr(geometry, name) for name in names)


def _at(manifold: Any, names: Sequence[str], u: Tensor) -> Tensors:
    """At which points `[P]` nothing is out of the ordinary, and there the quantities."""
    k, chart, engine = manifold.k, manifold.chart, manifold.engine

    def surface(u: Tensor, seconds: str, *basis: Tensor) -> Tensor:
        found = summed(manifold.family, engine.collapsed(u, seconds, *basis), k, manifold.output_shape)
        if found is None:
            raise UnsupportedOpError("the family's frames follow the directions")
        return found

    first = Geometry(Jet(surface(u, "none"), k), "nan", u, scale=lengths(chart).to(u).expand(len(u), -1))
    plain = ~first.degenerate & ~first.nearly_degenerate & (first.skewness <= ILL_CONDITIONED)
    values = {name: getattr(first, name) for name in names if name in FIRST}
    if len(values) < len(names):
        values |= _means(first, plain, lambda basis: surface(u[plain], "sum", basis), chart.basis.to(u))
        plain = plain & values["mean_curvature_norm"].isfinite()
    return plain, *(values[name] for name in names)


def _means(
    first: Geometry, plain: Bool[Tensor, " P"], surface: Callable[[Tensor], Tensor], basis: Tensor
) -> dict[str, Tensor]:
    """The mean curvature and its length at the points that are `plain`, no numbers at others."""
    k, found = first.k, first.working.value.new_full(first.working.value.shape, torch.nan)
    if some(plain):
        change = inverse(first.working_triangular[plain].mT)
        rows = surface((change @ basis.flatten(1)).unflatten(-1, basis.shape[1:]))
        tangents, trace = rows[:, 1 : 1 + k], rows[:, 1 + k :]
        for _ in range(2):  # tangents are orthonormal to some roundings, and so is what is left
            trace = trace - trace @ tangents.mT @ tangents
        found[plain] = trace[:, 0] / k
    return {"mean_curvature": found, "mean_curvature_norm": found.norm(dim=-1)}
