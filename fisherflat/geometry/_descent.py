"""Rough geodesics by going down in energy: polygons that a Newton's method may start from, many at a time.

The energy of a polygon with sides `d_n` in times `t_n` is `sum |d_n|^2 / (2 t_n)`, measured at their middles. What
moving its corners by `x` does to a side is in the first order `c_n = x_(n+1) - x_n + Gamma(d_n, (x_n + x_(n+1)) / 2)`,
so that the energy is nearly `sum |d_n + c_n|^2 / (2 t_n)`: least squares, whose solution goes down wherever it starts.
This is the second variation of energy without the term of curvature (do Carmo, *Riemannian Geometry*, 1992, chapter 9),
which can make Newton's method go up. Corners lie at Chebyshev nodes of time.
"""

from __future__ import annotations

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.geometry._chebyshev import nodes, placed
from fisherflat.geometry._interpolated import Local

#: numbers of sides, one after the other, and steps for each, good ones and others
LEVELS = (24, 60), (48, 60), (96, 60), (192, 20), (384, 12)
#: the share of the energy that a step may promise where it is the last, for so few sides; for n times as many n^4 less
_LAST = 1e-4
#: how long a side may be, relative to how far the ends are apart
_LONG = 1 / 3
#: how much a step is held back: at first, at least and at most, in units of the metric's size
_DAMPING = 1e-4, 1e-12, 1e4


def descended(local: Local, u: Float[Tensor, "P m k"], sides: int, steps: int) -> Float[Tensor, "P n k"]:
    """From polygons with corners at the nodes of fewer sides down; NaN where these cross what has no metric."""
    times = placed(nodes, u, sides)
    u = _read(placed(nodes, u, u.shape[1] - 1), u, times)
    return _down(local, u, times.diff()[:, None], steps, _LAST * (LEVELS[0][0] / sides) ** 4)


def _read(before: Float[Tensor, " m"], u: Float[Tensor, "P m k"], times: Float[Tensor, " n"]) -> Float[Tensor, "P n k"]:
    """Where polygons with corners at some times are at others."""
    at = torch.searchsorted(before, times[1:-1].contiguous(), right=True).clamp(1, len(before) - 1)
    share = ((times[1:-1] - before[at - 1]) / (before[at] - before[at - 1]))[:, None]
    return torch.cat([u[:, :1], u[:, at - 1] + share * (u[:, at] - u[:, at - 1]), u[:, -1:]], 1)


def _down(local: Local, u: Float[Tensor, "P n k"], times: Float[Tensor, "m 1"], steps: int, last: float) -> Tensor:
    """As far down as steps of least squares lead, each held back by as much as it takes (Levenberg and Marquardt)."""
    here = _energy(local, u, times)
    moving = here[0].isfinite()
    u = torch.where(moving[:, None, None], u, torch.nan)
    damping = torch.full_like(here[0], _DAMPING[0])
    for _ in range(steps):
        at = moving.nonzero()[:, 0]
        if not len(at):
            break
        energy, metric, symbols = (part[at] for part in here)
        step, gain = _step(u[at], times, metric, symbols, damping[at])
        tried = u[at] + step
        found = _energy(local, tried, times)
        better = found[0] < energy - gain / 8
        for part, new in zip((u, *here), (tried, *found), strict=True):
            part[at[better]] = new[better]
        damping[at] = torch.where(better, damping[at] / 8, damping[at] * 8).clamp_min(_DAMPING[1])
        moving[at] = torch.where(better, gain > last * energy, damping[at] <= _DAMPING[2])
    return u


def _energy(local: Local, u: Float[Tensor, "P n k"], times: Float[Tensor, "m 1"]) -> tuple[Tensor, Tensor, Tensor]:
    """Energies `[P]`, infinite where there is no metric, and metric and Christoffel symbols at the middles of sides."""
    (p, count, k), side = u.shape, u[:, 1:] - u[:, :-1]
    metric, symbols = local(((u[:, 1:] + u[:, :-1]) / 2).reshape(-1, k))
    metric, symbols = metric.reshape(p, count - 1, k, k), symbols.reshape(p, count - 1, k, k, k)
    energy = torch.einsum("pni,pnij,pnj->p", side / times / 2, metric, side)
    long = side.norm(dim=-1).amax(1) > _LONG * (u[:, -1] - u[:, 0]).norm(dim=-1)
    energy = energy.masked_fill(long, torch.inf)  # of a metric that was not looked at on the way
    return energy.nan_to_num(torch.inf, torch.inf), metric, symbols


def _step(
    u: Tensor, times: Tensor, metric: Tensor, symbols: Tensor, damping: Tensor
) -> tuple[Float[Tensor, "P n k"], Float[Tensor, " P"]]:
    """The step of least squares, and the energy that it is to gain at first: twice what it promises."""
    p, count, k = u.shape
    side = u[:, 1:] - u[:, :-1]
    half = torch.einsum("pnmij,pni->pnmj", symbols, side) / 2
    identity = torch.eye(k, dtype=u.dtype, device=u.device)
    ends = torch.stack([half - identity, half + identity], 2)  # of a side, by its corners
    lowered = metric[:, :, None] @ ends / times[..., None, None]
    slope, n = u.new_zeros(p, count, k), count - 1
    system = u.new_zeros(p, count, k, count, k)
    rows = torch.arange(n, device=u.device)
    held = damping * metric.diagonal(dim1=-2, dim2=-1).mean((-2, -1))
    for one in range(2):
        slope[:, one : one + n] += torch.einsum("pnij,pni->pnj", lowered[:, :, one], side)
        for other in range(2):
            system[:, rows + one, :, rows + other] += (ends[:, :, one].mT @ lowered[:, :, other]).movedim(1, 0)
        for other, sign in ((one, 1.0), (1 - one, -1.0)):
            system[:, rows + one, :, rows + other] += sign * held[:, None, None] * identity / times[..., None, None]
    inner = system[:, 1:-1, :, 1:-1].reshape(p, (n - 1) * k, -1)
    down = slope[:, 1:-1].reshape(p, -1)
    solved, failed = torch.linalg.solve_ex(inner, -down)
    step = torch.nn.functional.pad(solved.reshape(p, n - 1, k), (0, 0, 1, 1))
    return step.masked_fill((failed != 0)[:, None, None], torch.nan), -(down * solved).sum(-1)
