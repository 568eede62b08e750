"""A metric and its Christoffel symbols on a box, as polynomials, where these have all the digits.

Many geodesics between points of a box ask for them at thousands of places that lie close together. Values on a grid of
Chebyshev nodes determine polynomials whose last coefficients say how good they are (Trefethen, *Approximation Theory
and Approximation Practice*, 2013, chapters 3 and 8). Whoever uses them compares them with the metric itself where it
matters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.geometry._chebyshev import coefficients, nodes, placed

#: metric and Christoffel symbols `[P, k, k]`, `[P, k, k, k]` at points `[P, k]`, NaN where there are none
Local = Callable[[Tensor], tuple[Tensor, Tensor]]

#: how small the last coefficients have to be, relative to the largest
DECAYED = 2e-11
#: intervals along an axis that are tried, the first to see how many it takes
_ORDERS = (8, 16, 20, 24, 28, 32, 40, 48, 64, 80)
#: of the intervals that a geometric decay from there would take, so many are tried
_HOPE = 0.7


@dataclass(frozen=True, eq=False)
class Interpolated:
    """A `Local` on a box, NaN outside.

    Polynomials are the metric and the Christoffel symbols of the first kind: those of the second are quotients, whose
    poles would be added.

    **Attributes:** `centre`, `half`, of the box and of its sides, `[k]`; `table`, coefficients `[n, ..., n, k² + k³]`.
    """

    centre: Float[Tensor, " k"]
    half: Float[Tensor, " k"]
    table: Tensor

    def __call__(self, u: Float[Tensor, "P k"]) -> tuple[Tensor, Tensor]:
        """As a `Local`."""
        (p, k), n = u.shape, len(self.table)
        x = (u - self.centre) / self.half
        angles = x.clamp(-1, 1).acos()
        waves = (angles[..., None] * torch.arange(n, dtype=u.dtype, device=u.device)).cos()  # [P, k, n]
        found = (waves[:, 0] @ self.table.reshape(n, -1)).reshape(p, -1)
        for axis in range(1, k):
            found = torch.bmm(waves[:, axis, None], found.reshape(p, n, -1))[:, 0]
        found = found.masked_fill(~(x.abs() <= 1 + 1e-12).all(-1, keepdim=True), math.nan)
        metric, lowered = found[:, : k * k].reshape(p, k, k), found[:, k * k :].reshape(p, k, k * k)
        return metric, torch.linalg.solve_ex(metric, lowered).result.reshape(p, k, k, k)


def interpolated(local: Local, low: Float[Tensor, " k"], high: Float[Tensor, " k"], most: int) -> Interpolated | None:
    """`local` on the box, or `None` where more than `most` places would not tell it, or it is not smooth there."""
    centre, half, k = (low + high) / 2, (high - low) / 2, len(low)
    order, last = _ORDERS[0], 0
    if (order + 1) ** k + (_ORDERS[1] + 1) ** k > most:  # the first of which seldom do
        return None
    while (order + 1) ** k <= most:
        most -= (order + 1) ** k
        along = [centre[axis] + half[axis] * (2 * placed(nodes, low, order) - 1) for axis in range(k)]
        metric, symbols = local(torch.cartesian_prod(*along).reshape(-1, k))
        values = torch.cat([metric.flatten(1), (metric @ symbols.flatten(2)).flatten(1)], 1)
        if not values.isfinite().all():
            return None
        entries, by = values.reshape(*[order + 1] * k, -1), placed(coefficients, values, order)
        for axis in range(k):
            entries = torch.tensordot(by, entries, dims=([1], [axis])).movedim(0, axis)
        tail = _tail(entries, half)
        if tail <= DECAYED:
            return Interpolated(centre, half, entries)
        if tail >= 1:
            return None
        last, needed = order, _HOPE * order * math.log(DECAYED) / math.log(tail)
        order = next((one for one in _ORDERS if one > last and one >= needed), most + 1)
    return None


def _tail(entries: Tensor, half: Tensor) -> float:
    """The largest of the last two coefficients along any axis, relative to the size of what they are of."""
    k, last = len(half), len(entries) - 2
    ends = [entries.narrow(axis, last, 2).abs().flatten(0, k - 1).amax(0) for axis in range(k)]
    tail, size = torch.stack(ends).amax(0), entries.abs().flatten(0, k - 1).amax(0)
    square = half[:, None] * half  # in units of the box, in which both are squares of lengths
    units = torch.cat([square.flatten(), (half[:, None, None] * square).flatten()])
    return float((tail * units).amax() / (size * units).amax())
