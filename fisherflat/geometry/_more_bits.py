"""Points whose digits are poor, computed once more in as many bits as they need, by the same rules in balls.

What comes out of balls are the parts of which geometry is made: an orthonormal frame of the tangent space, the change
of coordinates to it, and the normal parts of second derivatives. They are rounded once, at the end, so that no digit is
lost before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from fisherflat._typing import Bool, Float, Tensor
from fisherflat.errors import EnclosureError, FisherflatError, UnsupportedOpError
from fisherflat.geometry._quantities import Geometry
from fisherflat.geometry._recharted import Pick
from fisherflat.jets import Jet, pair_index, pairs
from fisherflat.jets.graph import Graph
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Family, Gaussian, ParametricFamily

#: in bits, how many are tried one after the other
_BITS = (256, 1024, 4096)
#: a point is poor where fewer bits of its scalar curvature are right, although it is no smaller than so many bits
#: against the terms that cancel in it, which happens behind the jet
_POOR, _CANCELLED = 20, 40
#: how small a ball is to be, against the largest number of its kind
_RIGHT = 2.0**-60

#: value, `T` of the change of coordinates and its inverse, frame, second derivatives and their normal parts
Parts = tuple[np.ndarray, ...]


def poor(
    value: Float[Tensor, "*batch"], error: Float[Tensor, "*batch"], scale: Float[Tensor, "*batch"]
) -> Bool[Tensor, "*batch"]:
    """Where too few digits of a scalar curvature are right, given its error and `Geometry.cancellation_scale`."""
    return (error > 2.0**-_POOR * value.abs()) & (error > 2.0**-_CANCELLED * scale)


def in_more_bits(
    geometry: Geometry,
    graphs: Iterable[Graph] | None,
    chart: Chart,
    u: Float[Tensor, "P k"],
    family: Family | ParametricFamily,
    where: Bool[Tensor, " P"] | None = None,
    pick: Pick | None = None,
) -> tuple[Geometry, list[str]]:
    """The geometry with its poor points computed anew.

    **Args:** `graphs`, one after the other, which are passed anew for each point and number of bits; `where` (default:
    where its own error says so); `pick`, which of the outputs the surface has.

    **Returns:** it, and for each point that could not be, why not; there the estimate stands.
    """
    reasons: list[str] = []
    if where is None:
        where = poor(geometry.scalar_curvature, geometry.error("scalar_curvature"), geometry.cancellation_scale)
    elif not where.any():
        return geometry, reasons
    found: dict[int, list[Tensor]] = {}
    for point in where.nonzero()[:, 0].tolist():
        try:
            if graphs is None or type(family) is not Gaussian:
                what = (
                    "the autodiff engine has no graph, from which balls are computed"
                    if graphs is None
                    else f"more bits are there for Gaussians of one covariance, and {type(family).__name__} is another "
                    "family"
                )
                raise UnsupportedOpError(what)
            found[point] = [
                torch.from_numpy(part).to(u) for part in _parts(graphs, chart, u[point].tolist(), family, pick)
            ]
        except (FisherflatError, ImportError, ZeroDivisionError) as error:
            reasons.append(str(error))
    if not found:
        return geometry, reasons
    at = torch.tensor(list(found), device=u.device)
    parts = [torch.stack(column) for column in zip(*found.values(), strict=True)]
    result = _replaced(geometry, at, parts)
    before = geometry.again
    if before is not None:

        def again(runs: int) -> Geometry:
            # what was rounded once is perturbed once, where there is noise
            noisy = [part.expand(runs, *part.shape) * 1 for part in parts]
            return _replaced(before(runs), at, noisy)

        result.again = again
    return result, reasons


def _replaced(geometry: Geometry, at: Tensor, parts: Sequence[Tensor]) -> Geometry:
    """The geometry with other parts at some of its points, on its last axis of points."""
    value, change, back, frame, second, normal = parts
    working = geometry.working.coefficients.clone()
    working[..., at, :, :] = torch.cat([value.unsqueeze(-2), frame, second], -2)
    whole = geometry.normal.clone()
    whole[..., at, :, :] = normal
    forth, inverse = (part.clone() for part in geometry.changes)
    forth[..., at, :, :], inverse[..., at, :, :] = change, back
    scale = geometry.scale.clone()
    scale[..., at, :] = 1.0  # about orthonormal
    found = Geometry(Jet(working, geometry.k), "nan", scale=scale, change=forth, back=inverse, normal=whole)
    found.nearly_degenerate = geometry.nearly_degenerate
    return found


def _parts(
    graphs: Iterable[Graph], chart: Chart, point: Sequence[float], family: Gaussian, pick: Pick | None = None
) -> Parts:
    """The parts at a point, rounded to floats.

    **Raises:** `EnclosureError` where no number of bits suffices, `UnsupportedOpError` for an op without a ball rule.
    """
    from flint import arb, ctx

    before = ctx.prec
    try:
        for bits in _BITS:
            ctx.prec = bits
            try:
                jet = _jet(graphs, chart, [arb(x) for x in point])
                if pick is not None:
                    jet = jet[:, pick(torch.arange(jet.shape[1])).numpy()]
                balls = _in_balls(jet, chart.k, family)
            except (EnclosureError, ZeroDivisionError, ValueError):
                continue
            if all(map(_known, balls)):
                return tuple(np.vectorize(float, otypes=[np.float64])(part) for part in balls)
    finally:
        ctx.prec = before
    raise EnclosureError(f"{_BITS[-1]} bits do not suffice")


def _jet(graphs: Iterable[Graph], chart: Chart, point: Sequence[Any]) -> np.ndarray:
    """The 2-jet `[S, D]` in balls."""
    from flint import arb

    from fisherflat.jets.balls import chart_in_balls, through

    k, series = chart.k, chart_in_balls(chart, point)
    for graph in graphs:
        series = through(graph, series)
        del graph  # before the next one is there
    values = series.data.balls
    out = np.full((1 + k + len(pairs(k)), values[0].size), arb(0), dtype=object)
    out[: values.shape[0]] = values.reshape(values.shape[0], -1)
    return out


def _in_balls(jet: np.ndarray, k: int, family: Gaussian) -> list[np.ndarray]:
    """The parts in balls; Gram and Schmidt need no more in as many bits as this."""
    from fisherflat.jets.balls import balls

    if family.covariance.dim() < 2:
        white = jet / np.frompyfunc(lambda x: x.sqrt(), 1, 1)(balls(family.covariance))
    else:
        high, low = (balls(part) for part in family.root())
        white = _product(jet, (high + low).T)
    rows: list[np.ndarray] = []
    change = _identity(k)
    for i in range(k):
        row = white[1 + i].copy()
        for j, other in enumerate(rows):
            inner = row @ other
            row, change[i] = row - inner * other, change[i] - inner * change[j]
        length = (row @ row).sqrt()
        rows.append(row / length)
        change[i] = change[i] / length
    frame = np.array(rows, dtype=object)
    back = white[1 : 1 + k] @ frame.T  # R^T, since the frame is orthonormal
    index = pair_index(k).tolist()
    hessian = np.array([[white[1 + k + index[i][j]] for j in range(k)] for i in range(k)], dtype=object)
    second = np.array(
        [
            sum(change[a, i] * change[b, j] * hessian[i, j] for i in range(a + 1) for j in range(b + 1))
            for a, b in pairs(k)
        ],
        dtype=object,
    )
    normal = second - (second @ frame.T) @ frame if k < frame.shape[1] else second * 0
    return [white[0], change, back, frame, second, normal]


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    from fisherflat.jets.balls import matrix

    return np.array((matrix(a) * matrix(b)).tolist(), dtype=object)


def _identity(k: int) -> np.ndarray:
    from flint import arb

    return np.array([[arb(int(i == j)) for j in range(k)] for i in range(k)], dtype=object)


def _known(balls: np.ndarray) -> bool:
    """Whether all balls are small against the largest of their row."""
    rows = balls.reshape(-1, balls.shape[-1])
    for row in rows:
        if not all(x.is_finite() for x in row):
            return False
        largest = max(abs(float(x.mid())) for x in row)
        if any(float(x.rad()) > _RIGHT * largest for x in row):
            return False
    return True
