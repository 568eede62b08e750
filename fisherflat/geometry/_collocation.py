"""Geodesics between two points as polynomials: spectral collocation, many paths and all their nodes at a time.

A path is known by its places at Chebyshev nodes, and Newton's method makes `u'' + Gamma(u', u')` vanish there
(Trefethen, *Spectral Methods in MATLAB*, 2000, chapters 6 and 14). A step takes one evaluation of the Christoffel
symbols, of all nodes of all paths at once, where shooting takes some hundred, one after the other.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from fisherflat._typing import Float, Tensor
from fisherflat.geometry._chebyshev import coefficients, derivative, interpolation, nodes, placed
from fisherflat.geometry._interpolated import Local
from fisherflat.geometry._taped import Once

#: how many intervals are tried, one after the other; a path is kept by as many as the first of `_KEPT` that do
_ORDERS = (12, 24, 48, 96, 192, 384)
_KEPT = _ORDERS[2:]
#: steps of Newton's method for each
_STEPS = 10
#: stages towards a target that is not reached at once
_STAGES = 24
#: what a rough path may be off, relative to its speed, and how many steps it may have
_ROUGH, _MOST = 1e-3, 1500
#: a path is one where its last coefficients are so small, relative to how far it goes
_DECAYED = 3e-12
#: where more nodes than there may be would be needed; what that makes uncertain is in the error of the length
_NEARLY = 1e-8
#: the step of differences of Christoffel symbols, relative to how far a path goes
_DIFFERENCE = 1e-6


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


def between(local: Local, u0: Float[Tensor, "P k"], u1: Float[Tensor, "P k"], *, patient: bool = True) -> Curves:
    """Geodesics from `u0` to `u1`, NaN where Newton's method finds none from the straight line, nor from a rough path.

    **Args:** `local`; `patient`, whether rough paths are looked for, one at a time.
    """

    def christoffel(u: Tensor) -> Tensor:
        return local(u)[1]

    found = _refined(christoffel, _line(u0, u1, _ORDERS[0]))
    missed = found.missed.nonzero()[:, 0]
    if patient and len(missed):
        missed = missed[christoffel(u1[missed]).flatten(1).isfinite().all(1)]  # nothing leads to where there is none
        for at in missed.tolist():
            if (rough := _relaxed(local, u0[at], u1[at])) is not None:
                found.put(missed.new_tensor([at]), _refined(christoffel, rough[None]))
        missed = missed[found.missed[missed]]
    if patient and len(missed):
        found.put(missed, _in_stages(christoffel, u0[missed], u1[missed]))
    return found


def _refined(christoffel: Callable[[Tensor], Tensor], guess: Float[Tensor, "P n k"]) -> Curves:
    """From guesses, with as many nodes as it takes; NaN where there are too few, or Newton's method is lost.

    Too few nodes do not see a metric that changes fast, so that what did not converge is tried again with more.
    """
    found, start = Curves.unknown(guess[:, 0]), Curves(guess)
    left = torch.arange(len(guess), device=guess.device)
    for order in (order for order in _ORDERS if order >= guess.shape[1] - 1):
        guess = start.resampled(order).places
        curves, converged = _newton(christoffel, guess)
        done = converged & _decayed(curves, _NEARLY if order == _ORDERS[-1] else _DECAYED)
        if done.any():
            found.put(left[done], Curves(curves[done]).resampled(max(order, _KEPT[0])))
        start = Curves(torch.where(converged[:, None, None], curves, guess)[~done])
        left = left[~done]
        if not len(left):
            break
    return found


def _in_stages(christoffel: Callable[[Tensor], Tensor], u0: Tensor, u1: Tensor) -> Curves:
    """Towards targets along the straight line, each from the path to the one before."""
    found = Curves.unknown(u0)
    left, step = torch.arange(len(u0), device=u0.device), (u1 - u0) / _STAGES
    curves = _line(u0, u0 + step, _ORDERS[1])
    times = placed(nodes, u0, _ORDERS[1])[:, None]
    for stage in range(_STAGES):
        if stage:
            curves = curves + times * step[left, None]
        curves, converged = _newton(christoffel, curves)
        left, curves = left[converged], curves[converged]
        if not len(left):
            return found
    found.put(left, _refined(christoffel, curves))
    return found


def _relaxed(local: Local, u0: Float[Tensor, " k"], u1: Float[Tensor, " k"]) -> Tensor | None:
    """A rough path `[n, k]` by scipy's solver of boundary-value problems, whose steps follow what the metric does.

    It tells within some thousand places where there is none.
    """
    from scipy.integrate import solve_bvp

    k, start, end = len(u0), u0.cpu().numpy(), u1.cpu().numpy()

    def slope(t: np.ndarray, y: np.ndarray) -> np.ndarray:
        places, velocities = (torch.from_numpy(np.ascontiguousarray(part.T)).to(u0) for part in (y[:k], y[k:]))
        turned = -torch.einsum("pmij,pi,pj->mp", local(places)[1], velocities, velocities)
        return np.concatenate([y[k:], turned.cpu().numpy()])

    line, along = np.linspace(0, 1, 8 * _ORDERS[2] + 1), end - start
    halfway = torch.from_numpy((line[1:] + line[:-1]) / 2).to(u0)[:, None]
    speed = torch.einsum("pij,i,j->p", local(u0 + halfway * (u1 - u0))[0], u1 - u0, u1 - u0).sqrt().cpu().numpy()
    if not np.isfinite(speed).all() or not speed.all():
        speed = np.ones_like(speed)
    passed = np.concatenate([[0.0], np.cumsum(speed / speed.sum())])
    times = np.linspace(0, 1, _ORDERS[1] + 9)
    share = np.interp(times, passed, line)  # the straight line, at one speed
    guess = np.concatenate([start[:, None] + share * along[:, None], np.gradient(share, times) * along[:, None]])
    with np.errstate(all="ignore"), warnings.catch_warnings():  # where there is no metric it gives up by itself
        warnings.simplefilter("ignore")
        found = solve_bvp(
            slope, lambda a, b: np.concatenate([a[:k] - start, b[:k] - end]), times, guess, tol=_ROUGH, max_nodes=_MOST
        )
    if found.status != 0 or not np.isfinite(found.y).all():
        return None
    path = torch.from_numpy(found.sol(placed(nodes, u0, _ORDERS[3]).cpu().numpy())[:k].T.copy()).to(u0)
    path[0], path[-1] = u0, u1
    return path


def _newton(christoffel: Callable[[Tensor], Tensor], places: Float[Tensor, "P n k"]) -> tuple[Tensor, Tensor]:
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
        h = (_DIFFERENCE * size)[:, None, None, None]
        tried = torch.cat([here[:, 1:-1, None], here[:, 1:-1, None] + h * identity], 2)
        symbols = christoffel(tried.reshape(-1, k)).reshape(*tried.shape[:3], k, k, k)
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
        still = (moved < 1e-13 * size) | ((moved < 1e-9 * size) & (moved >= before[at] / 2))  # rounding is all it moves
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
