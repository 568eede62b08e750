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
from fisherflat.geometry._chebyshev import coefficients, derivative, interpolation, nodes, table
from fisherflat.geometry._interpolated import Local

#: how many intervals are tried, one after the other
_ORDERS = (12, 24, 48)
#: steps of Newton's method for each
_STEPS = 10
#: stages towards a target that is not reached at once
_STAGES = 24
#: a path is one where its last coefficients are so small, relative to how far it goes
_DECAYED = 3e-12
#: the step of differences of Christoffel symbols, relative to how far a path goes
_DIFFERENCE = 1e-6


@dataclass(eq=False)
class Curves:
    """Paths `[P]` by their places `[P, N + 1, k]` at Chebyshev nodes of time 0 to 1, NaN where none was found.

    **Attributes:** `shot` `[P, k]`, first velocities of paths that are no such polynomials, NaN for those that are;
    `local`, an interpolation of the metric on which some of them were found.
    """

    places: Float[Tensor, "P n k"]
    shot: Float[Tensor, "P k"]
    local: Local | None = None

    @classmethod
    def through(cls, places: Float[Tensor, "P n k"]) -> Curves:
        """Polynomials."""
        return cls(places, torch.full_like(places[:, 0], math.nan))

    @classmethod
    def unknown(cls, u0: Float[Tensor, "P k"]) -> Curves:
        """Paths from points, none of which is found yet."""
        return cls.through(u0.new_full((len(u0), _ORDERS[-1] + 1, u0.shape[1]), math.nan))

    @property
    def missed(self) -> Tensor:
        """Those that were not found, `[P]`."""
        return self.places.isnan().flatten(1).any(1)

    def put(self, at: Tensor, found: Curves) -> None:
        """Write some of the paths."""
        self.places[at], self.shot[at] = found.places, found.shot

    @property
    def velocity(self) -> Float[Tensor, "P k"]:
        """At the start."""
        return torch.where(self.shot.isnan(), self.velocities[:, 0], self.shot)

    @property
    def velocities(self) -> Float[Tensor, "P n k"]:
        """At the nodes."""
        moved = self.places - self.places[:, :1]  # of a path that stays, exactly zero
        return torch.einsum("mn,pnk->pmk", table(derivative, self.places, self.places.shape[1] - 1), moved)

    def at(self, times: list[float]) -> Float[Tensor, "P T k"]:
        """The places at times."""
        values = table(interpolation, self.places, self.places.shape[1] - 1, tuple(times))
        return torch.einsum("tn,pnk->ptk", values, self.places)

    def resampled(self, order: int) -> Curves:
        """The same polynomials by more nodes."""
        return self if self.places.shape[1] == order + 1 else Curves.through(self.at(nodes(order).tolist()))


def between(christoffel: Callable[[Tensor], Tensor], u0: Float[Tensor, "P k"], u1: Float[Tensor, "P k"]) -> Curves:
    """Geodesics from `u0` to `u1`, NaN where Newton's method from the straight line finds none.

    **Args:** `christoffel`, of points `[P, k]`, NaN where there are none.
    """
    found = _refined(christoffel, _line(u0, u1, _ORDERS[0]))
    missed = found.isnan().flatten(1).any(1).nonzero()[:, 0]
    if len(missed):
        found[missed] = _in_stages(christoffel, u0[missed], u1[missed])
    return Curves.through(found)


def _refined(christoffel: Callable[[Tensor], Tensor], guess: Float[Tensor, "P n k"]) -> Float[Tensor, "P m k"]:
    """From guesses, with as many nodes as it takes; NaN where there are too few, or Newton's method is lost."""
    found = torch.full((len(guess), _ORDERS[-1] + 1, guess.shape[2]), math.nan, dtype=guess.dtype, device=guess.device)
    left, start = torch.arange(len(guess), device=guess.device), Curves.through(guess)
    for order in (order for order in _ORDERS if order >= guess.shape[1] - 1):
        curves, converged = _newton(christoffel, start.resampled(order).places)
        done = converged & _decayed(curves)
        found[left[done]] = Curves.through(curves[done]).resampled(_ORDERS[-1]).places
        open_ = converged & ~done  # what did not converge will not with more nodes
        left, start = left[open_], Curves.through(curves[open_])
        if not len(left):
            break
    return found


def _in_stages(christoffel: Callable[[Tensor], Tensor], u0: Tensor, u1: Tensor) -> Float[Tensor, "P m k"]:
    """Towards targets along the straight line, each from the path to the one before."""
    found = torch.full((len(u0), _ORDERS[-1] + 1, u0.shape[1]), math.nan, dtype=u0.dtype, device=u0.device)
    left, step = torch.arange(len(u0), device=u0.device), (u1 - u0) / _STAGES
    curves = _line(u0, u0 + step, _ORDERS[1])
    times = table(nodes, u0, _ORDERS[1])[:, None]
    for stage in range(_STAGES):
        if stage:
            curves = curves + times * step[left, None]
        curves, converged = _newton(christoffel, curves)
        left, curves = left[converged], curves[converged]
        if not len(left):
            return found
    found[left] = _refined(christoffel, curves)
    return found


def _newton(christoffel: Callable[[Tensor], Tensor], places: Float[Tensor, "P n k"]) -> tuple[Tensor, Tensor]:
    """The places after Newton's method, and for which paths it converged."""
    p, count, k = places.shape
    first = table(derivative, places, count - 1)
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
        by_v = 2 * torch.einsum("pnmij,pnj->pnmi", symbols[:, :, 0], v)
        inner = count - 2
        jacobian = torch.einsum("ab,mi->ambi", second[:, 1:-1], identity).expand(len(at), -1, -1, -1, -1).clone()
        jacobian += torch.einsum("pami,ab->pambi", by_v, first[1:-1, 1:-1])
        rows = torch.arange(inner, device=u.device)
        jacobian[:, rows, :, rows] += slopes.mT.movedim(1, 0)
        good = residual.isfinite().all(-1).all(-1) & jacobian.isfinite().flatten(1).all(-1)
        step = torch.zeros_like(residual)
        if good.any():
            square = jacobian[good].reshape(-1, inner * k, inner * k)
            solved, info = torch.linalg.solve_ex(square, residual[good].reshape(-1, inner * k))
            step[good] = solved.reshape(-1, inner, k)
            good[good.clone()] &= (info == 0) & solved.isfinite().all(-1)
        moved = step.flatten(1).abs().amax(1)
        good &= moved < 2 * size  # or it is lost
        u[at[good], 1:-1] -= step[good]
        still = (moved < 1e-13 * size) | ((moved < 1e-9 * size) & (moved >= before[at] / 2))  # rounding is all it moves
        converged[at[good & still]] = True
        before[at] = moved
        moving[at[~good | still]] = False
    return u, converged


def _decayed(places: Float[Tensor, "P n k"]) -> Tensor:
    """Whether the last coefficients of the polynomials vanish."""
    n = places.shape[1] - 1
    sizes = torch.einsum("mn,pnk->pmk", table(coefficients, places, n), places).norm(dim=-1)
    reach = (places[:, -1] - places[:, 0]).norm(dim=-1)
    return sizes[:, -3:].amax(1) <= _DECAYED * reach


def _line(u0: Tensor, u1: Tensor, order: int) -> Tensor:
    return u0[:, None] + table(nodes, u0, order)[:, None] * (u1 - u0)[:, None]
