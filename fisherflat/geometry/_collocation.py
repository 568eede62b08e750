"""Geodesics between two points as polynomials: spectral collocation, many paths and all their nodes at a time.

A path is known by its places at Chebyshev nodes, and Newton's method makes `u'' + Gamma(u', u')` vanish there
(Trefethen, *Spectral Methods in MATLAB*, 2000, chapters 6 and 14). A step takes one evaluation of the Christoffel
symbols, of all nodes of all paths at once, where shooting takes some hundred, one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.geometry._chebyshev import coefficients, derivative, interpolation, nodes, placed
from fisherflat.geometry._descent import LEVELS, descended
from fisherflat.geometry._interpolated import Local
from fisherflat.geometry._taped import Once

#: how many intervals are tried, one after the other; a path is kept by as many as the first of `_KEPT` that do
_ORDERS = (12, 24, 48, 96, 192, 384)
_KEPT = _ORDERS[2:]
#: steps of Newton's method for each
_STEPS = 10
#: how much of a flat metric is added to one, relative to its size: at first, and no more
_ADDED = 10.0, 1e-9
#: with so little of it, paths that were lost may have too few nodes
_CLOSE = 1e-3
#: what share of it is left in the next stage: at first, at least, and where it is no stage; and how many stages
_SHARES, _STAGES = (0.1, 0.01, 0.85), 48
#: a path is one where its last coefficients are so small, relative to how far it goes
_DECAYED = 3e-12
#: where more nodes than there may be would be needed; what that makes uncertain is in the error of the length
_NEARLY = 1e-8
#: where rounding may be all that moves a path, relative to how far it goes
_STILL = 1e-9
#: nor is anything asked for below so many roundings
_DIGITS = 64
#: the step of differences of Christoffel symbols, relative to how far a path goes
_DIFFERENCE = 1e-6


#: Christoffel symbols at places, as many on each of some paths that are named
Symbols = Callable[[Tensor, Tensor], Tensor]


@dataclass(eq=False)
class Curves:
    """Paths `[P]` by their places `[P, N + 1, k]` at Chebyshev nodes of time 0 to 1, NaN where none was found.

    **Attributes:** `local`, an interpolation of the metric on which some of them were found.
    """

    places: Float[Tensor, "P n k"]
    local: Local | None = None

    @classmethod
    def unknown(cls, u0: Float[Tensor, "P k"]) -> Curves:
        """Paths from points, none of which is found yet."""
        return cls(u0.new_full((len(u0), _KEPT[0] + 1, u0.shape[1]), math.nan))

    @property
    def missed(self) -> Tensor:
        """Those that were not found, `[P]`."""
        return self.places.isnan().flatten(1).any(1)

    def put(self, at: Tensor, found: Curves) -> None:
        """Write some of the paths."""
        order = max(self.places.shape[1], found.places.shape[1]) - 1
        self.places = self.resampled(order).places
        self.places[at] = found.resampled(order).places

    @property
    def velocity(self) -> Float[Tensor, "P k"]:
        """At the start."""
        return self.velocities[:, 0]

    @property
    def velocities(self) -> Float[Tensor, "P n k"]:
        """At the nodes."""
        moved = self.places - self.places[:, :1]  # of a path that stays, exactly zero
        return torch.einsum("mn,pnk->pmk", placed(derivative, self.places, self.places.shape[1] - 1), moved)

    def at(self, times: list[float]) -> Float[Tensor, "P T k"]:
        """The places at times."""
        values = placed(interpolation, self.places, self.places.shape[1] - 1, tuple(times))
        start = self.places[:, :1]  # a path that stays does so exactly
        return start + torch.einsum("tn,pnk->ptk", values, self.places - start)

    def resampled(self, order: int) -> Curves:
        """The same polynomials by more nodes."""
        return self if self.places.shape[1] == order + 1 else Curves(self.at(nodes(order).tolist()))


def between(local: Local, u0: Float[Tensor, "P k"], u1: Float[Tensor, "P k"], eps: float) -> Curves:
    """Geodesics from `u0` to `u1`, NaN where Newton's method finds none from the straight line."""
    return _refined(_of(local), _line(u0, u1, _ORDERS[0]), eps)


def bent(local: Local, u0: Float[Tensor, "P k"], u1: Float[Tensor, "P k"], eps: float) -> Curves:
    """Those that straight lines become where a flat metric is taken away from this one by and by, NaN where none is.

    With enough of a flat metric added, the straight line is nearly a geodesic, and Newton's method leads from the
    geodesic with some of it to the one with less.
    """
    found, left = Curves.unknown(u0), torch.arange(len(u0), device=u0.device)
    for order in _KEPT[1:3]:
        guess, added = _flattened(local, u0[left], u1[left], order, eps)
        if (reached := added == 0).any():
            found.put(left[reached], _refined(_of(local), guess[reached], eps))
        left = left[found.missed[left] & (added < _CLOSE)]  # the others are not lost for want of nodes
        if not len(left):
            break
    return found


def lowest(local: Local, u0: Float[Tensor, "P k"], u1: Float[Tensor, "P k"], eps: float) -> Curves:
    """Those from polygons that went down in energy from the straight line, NaN where none is."""
    found, left = Curves.unknown(u0), torch.arange(len(u0), device=u0.device)
    u = torch.stack([u0, u1], 1)
    for sides, steps in LEVELS:
        if len(left):
            u = descended(local, u, sides, steps)
            kept = u.isfinite().flatten(1).all(1)
            left, u = left[kept], u[kept]
        if len(left) and sides >= _KEPT[1]:
            curves, converged = _newton(_of(local), u, eps)
            found.put(left[converged], _refined(_of(local), curves[converged], eps))
            missed = found.missed[left]
            left, u = left[missed], u[missed]
    return found


def _of(local: Local) -> Symbols:
    return lambda u, at: local(u)[1]


def _flattened(local: Local, u0: Tensor, u1: Tensor, order: int, eps: float) -> tuple[Tensor, Tensor]:
    """Places of geodesics, of a metric to which less and less is added, and how much still is, relative to its size."""
    u, k = _line(u0, u1, order), u0.shape[1]
    sizes = local(u.reshape(-1, k))[0].diagonal(dim1=-2, dim2=-1).mean(-1).reshape(len(u), -1)
    size = sizes.nan_to_num(0.0, 0.0).amax(1)
    identity = torch.eye(k, dtype=u.dtype, device=u.device)
    added, share = _ADDED[0] * size / _SHARES[0], torch.full_like(size, _SHARES[0])
    moving = sizes.isfinite().all(1)
    for _ in range(_STAGES):
        at = moving.nonzero()[:, 0]
        if not len(at):
            break
        less = share[at] * added[at]
        less = torch.where(less < _ADDED[1] * size[at], 0.0, less)

        def symbols(places: Tensor, which: Tensor, less: Tensor = less) -> Tensor:
            metric, given = local(places)
            more = less[which].repeat_interleave(len(places) // len(which))[:, None, None] * identity
            return torch.linalg.solve_ex(metric + more, metric @ given.flatten(2)).result.reshape(given.shape)

        tried, converged = _newton(symbols, u[at], eps)
        u[at[converged]] = tried[converged]
        added[at] = torch.where(converged, less, added[at])
        # less of a step where it was lost, and more where it was not
        share[at] = torch.where(converged, share[at] ** 1.5, share[at] ** 0.4).clamp_min(_SHARES[1])
        moving[at] = (added[at] > 0) & (share[at] <= _SHARES[2])
    return u, added / size


def _refined(christoffel: Symbols, guess: Float[Tensor, "P n k"], eps: float) -> Curves:
    """From guesses, with as many nodes as it takes; NaN where there are too few, or Newton's method is lost.

    Too few nodes do not see a metric that changes fast, so that what did not converge is tried again with more.
    """
    found, start = Curves.unknown(guess[:, 0]), Curves(guess)
    left = torch.arange(len(guess), device=guess.device)
    for order in (order for order in _ORDERS if order >= guess.shape[1] - 1):
        guess = start.resampled(order).places
        curves, converged = _newton(christoffel, guess, eps)
        done = converged & _decayed(curves, max(_NEARLY if order == _ORDERS[-1] else _DECAYED, _DIGITS * eps))
        if done.any():
            found.put(left[done], Curves(curves[done]).resampled(max(order, _KEPT[0])))
        start = Curves(torch.where(converged[:, None, None], curves, guess)[~done])
        left = left[~done]
        if not len(left):
            break
    return found


def _newton(christoffel: Symbols, places: Float[Tensor, "P n k"], eps: float) -> tuple[Tensor, Tensor]:
    """The places after Newton's method, and for which paths it converged."""
    p, count, k = places.shape
    first = placed(derivative, places, count - 1)
    second = (first @ first)[1:-1]
    reach = (places[:, -1] - places[:, 0]).norm(dim=-1)
    u, moving = places.clone(), torch.ones(p, dtype=torch.bool, device=places.device)
    converged = reach == 0
    moving &= ~converged
    identity = torch.eye(k, dtype=u.dtype, device=u.device)
    before = torch.full_like(reach, math.inf)
    for _ in range(_STEPS):
        at = moving.nonzero()[:, 0]
        if not len(at):
            break
        here, size = u[at], reach[at]
        v = torch.einsum("mn,pnk->pmk", first, here)[:, 1:-1]
        h = (max(_DIFFERENCE, eps**0.5) * size)[:, None, None, None]
        tried = torch.cat([here[:, 1:-1, None], here[:, 1:-1, None] + h * identity], 2)
        symbols = christoffel(tried.reshape(-1, k), at).reshape(*tried.shape[:3], k, k, k)
        pulls = torch.einsum("pnlmij,pni,pnj->pnlm", symbols, v, v)
        residual = torch.einsum("mn,pnk->pmk", second, here) + pulls[:, :, 0]
        slopes = (pulls[:, :, 1:] - pulls[:, :, :1]) / h  # [p, n, l, m]
        system = _system(first, second, symbols[:, :, 0], v, slopes.mT)
        good = residual.isfinite().all(-1).all(-1) & system.isfinite().flatten(1).all(-1)
        step = torch.zeros_like(residual)
        if good.any():
            solved, info = torch.linalg.solve_ex(system[good], residual[good].flatten(1))
            step[good] = solved.reshape(-1, count - 2, k)
            good[good.clone()] &= (info == 0) & solved.isfinite().all(-1)
        moved = step.flatten(1).abs().amax(1)
        good &= moved < 2 * size  # or it is lost
        u[at[good], 1:-1] -= step[good]
        still = (moved < 1e-13 * size) | (
            (moved < max(_STILL, _DIGITS * eps) * size) & (moved >= before[at] / 2)
        )  # rounding is all it moves
        converged[at[good & still]] = True
        before[at] = moved
        moving[at[~good | still]] = False
    return u, converged


def _system(first: Tensor, second: Tensor, symbols: Tensor, v: Tensor, slopes: Tensor) -> Float[Tensor, "P m m"]:
    """What Newton's method solves: derivatives of `u'' + Gamma(u', u')` at inner nodes by the places of these.

    **Args:** matrices that make `u'` and `u''` (the latter at inner nodes); Christoffel symbols and velocities there;
    `slopes` `[P, n, l, m]`, derivatives of `Gamma^l(u', u')` by the place alone, of velocities that stay.
    """
    p, inner, k = v.shape
    identity = torch.eye(k, dtype=v.dtype, device=v.device)
    found = torch.einsum("ab,mi->ambi", second[:, 1:-1], identity).expand(p, -1, -1, -1, -1).clone()
    found += torch.einsum("pami,ab->pambi", 2 * torch.einsum("pnmij,pnj->pnmi", symbols, v), first[1:-1, 1:-1])
    rows = torch.arange(inner, device=v.device)
    found[:, rows, :, rows] += slopes.movedim(1, 0)
    return found.reshape(p, inner * k, inner * k)


def taped(local: Local, u0: Float[Tensor, "P k"], u1: Float[Tensor, "P k"], curves: Curves) -> Curves:
    """The same paths, with gradients by their ends and by all that `local` depends on.

    They are those of one more step of Newton's method from the paths, with its system as it is: what the implicit
    function theorem says, since that a geodesic's equation holds is all that makes its places.
    """
    there = ~curves.missed
    if not there.any():
        return curves
    places = curves.places[there]
    p, count, k = places.shape
    first = placed(derivative, places, count - 1)
    second = (first @ first)[1:-1]

    def christoffel(u: Tensor) -> Tensor:
        return local(u.reshape(-1, k))[1].reshape(p, count - 2, k, k, k)

    ends = u0[there, None], u1[there, None]
    u = torch.cat([ends[0], places[:, 1:-1], ends[1]], 1)
    v, symbols = torch.einsum("mn,pnk->pmk", first, u)[:, 1:-1], christoffel(places[:, 1:-1])
    residual = torch.einsum("mn,pnk->pmk", second, u) + torch.einsum("pnmij,pni,pnj->pnm", symbols, v, v)
    if not residual.requires_grad:
        return curves
    inner, held = places[:, 1:-1].clone().requires_grad_(), v.detach()
    pulls = torch.einsum("pnmij,pni,pnj->mpn", christoffel(inner), held, held)
    slopes = [
        torch.autograd.grad(pull.sum(), inner, retain_graph=True)[0] if pull.requires_grad else torch.zeros_like(inner)
        for pull in pulls
    ]
    system = _system(first, second, symbols.detach(), held, torch.stack(slopes, -2))
    step = torch.linalg.solve(system, residual.flatten(1)).reshape(p, count - 2, k)
    moved = torch.cat([ends[0], places[:, 1:-1] - Once.apply(step - step.detach()), ends[1]], 1)
    return Curves(curves.places.index_put((there,), moved), curves.local)


def _decayed(places: Float[Tensor, "P n k"], to: float) -> Tensor:
    """Whether the last coefficients of the polynomials vanish."""
    n = places.shape[1] - 1
    moved = places - places[:, :1]  # of a path that stays, exactly zero
    sizes = torch.einsum("mn,pnk->pmk", placed(coefficients, places, n), moved).norm(dim=-1)
    reach = (places[:, -1] - places[:, 0]).norm(dim=-1)
    return sizes[:, -3:].amax(1) <= to * reach


def _line(u0: Tensor, u1: Tensor, order: int) -> Tensor:
    return u0[:, None] + placed(nodes, u0, order)[:, None] * (u1 - u0)[:, None]
