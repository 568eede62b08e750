"""Geodesics of a manifold, many at a time: from a velocity by scipy, between two points by collocation.

Where collocation finds none, by shooting. `u''^m = -Gamma^m_ij u'^i u'^j` (do Carmo, *Riemannian Geometry*, 1992,
chapter 3). All paths are one system of equations, so that an evaluation of the Christoffel symbols serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry._chebyshev import derivative, nodes, table
from fisherflat.geometry._collocation import Curves, between
from fisherflat.geometry._interpolated import Interpolated, Local, interpolated

#: of the integrator, relative to the length of the step that a path makes in coordinates
_TOLERANCE = 1e-11
#: where shooting ends: how far from the target, relative to how far it is
_HIT = 3e-11
#: where a metric ends, steps would shrink for ever: so little of the way in so many evaluations is none
_WAY, _EVALUATIONS = 1e-3, 120
#: of Newton's method, for each stage; and the stages towards a target that is not reached at once
_STEPS, _STAGES = 12, 4
#: evaluations of the Christoffel symbols, after which shooting gives up
_PATIENCE = 4500
#: nodes of the quadrature of the length of a straight line
_NODES = 32

#: how much larger than what the points span the box is in which paths are looked for, and then that for the others,
#: along each axis and, as a share of the longest, along all
_CLOSE, _WIDE = (0.05, 0.02), (0.5, 0.2)
#: places for each path, and each of its directions and one, at which the metric may be asked for to interpolate it; and
#: for all paths that are not found in this way
_PLACES, _MORE = 100, 4400
#: how far it may be off along a path
_AGREES = 1e-10


class _Stuck(Exception):
    """An integration that makes no way."""


class _Spent(Exception):
    """Too many evaluations."""


def _counted(function: Local, most: int) -> Local:
    """The function, that many times."""
    left = most

    def call(u: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal left
        left -= 1
        if left < 0:
            raise _Spent
        return function(u)

    return call


class Distance(NamedTuple):
    """Lengths of geodesics, all `[*batch]`.

    `value`; `error`, an estimate from the speed that should not change along the way and from how far the end is from
    the target; `straight`, the length of the straight line in coordinates, which is no shorter.
    """

    value: Tensor
    error: Tensor
    straight: Tensor


@dataclass(frozen=True)
class Geodesics:
    """Geodesics of a manifold, given its metric and Christoffel symbols."""

    local: Local

    def metric(self, u: Float[Tensor, "P k"]) -> Float[Tensor, "P k k"]:
        """NaN where there is none."""
        return self.local(u)[0]

    def christoffel(self, u: Float[Tensor, "P k"]) -> Float[Tensor, "P k k k"]:
        """NaN where there are none."""
        return self.local(u)[1]

    def flow(
        self,
        u: Float[Tensor, "P k"],
        v: Float[Tensor, "P k"],
        times: list[float],
        w: Tensor | None = None,
        tolerance: float = _TOLERANCE,
    ) -> tuple[Tensor, ...]:
        """Places, velocities and, where there is `w`, what parallel transport makes of it, `[T, P, k]`, at `times`."""
        from scipy.integrate import solve_ivp

        parts = [u, v] if w is None else [u, v, w]
        start = torch.stack(parts).double()
        dead = ~start.isfinite().all(-1).all(0)
        dead = dead | ~self.christoffel(start[0].masked_fill(dead[:, None], 0.0)).flatten(1).isfinite().all(-1)
        if dead.all():
            return tuple(u.new_full((len(times), *u.shape), math.nan, dtype=torch.float64) for _ in parts)
        start = torch.where(dead[:, None], start[:, ~dead][:, :1], start)  # as a path that runs, which is not looked at
        scales = [start[1].norm(dim=-1, keepdim=True)] * 2 + [part.norm(dim=-1, keepdim=True) for part in start[2:]]
        size = torch.stack([scale.expand_as(u) for scale in scales])

        count, mark = 0, 0.0

        def slope(t: float, flat: np.ndarray) -> np.ndarray:
            nonlocal count, mark
            count += 1
            if count % _EVALUATIONS == 0:
                if t - mark < _WAY * times[-1]:
                    raise _Stuck
                mark = t
            y = torch.from_numpy(flat.reshape(start.shape)).to(u.device)
            symbols = self.christoffel(y[0])  # not a number outside of the domain, where no step then leads
            turned = [-torch.einsum("pmij,pi,pj->pm", symbols, y[1], x) for x in y[1:]]
            return torch.stack([y[1], *turned]).cpu().numpy().reshape(-1)

        try:
            with np.errstate(invalid="ignore"):  # a step that left the domain is tried again, shorter
                found = solve_ivp(
                    slope, (0.0, times[-1]), start.cpu().numpy().reshape(-1), method="DOP853", t_eval=times,
                    rtol=tolerance, atol=tolerance * size.cpu().numpy().reshape(-1) + 1e-300,
                )  # fmt: skip
            stuck = not found.success
        except _Stuck:
            stuck = True
        if stuck and len(u) > 1:  # by one of them perhaps, which the others are not to suffer from
            halves = [
                self.flow(u[some], v[some], times, None if w is None else w[some], tolerance)
                for some in (slice(len(u) // 2), slice(len(u) // 2, None))
            ]
            return tuple(torch.cat(pair, 1) for pair in zip(*halves, strict=True))
        if stuck:
            nan = u.new_full((len(times), *u.shape), math.nan, dtype=torch.float64)
            return tuple(nan for _ in parts)
        path = torch.from_numpy(found.y.T.reshape(len(times), *start.shape)).to(u.device)
        path = path.masked_fill(dead[:, None], math.nan)
        return tuple(path[:, n] for n in range(len(parts)))

    def end(self, u: Tensor, v: Tensor) -> Tensor:
        """Where the geodesics are at time 1, `[P, k]`."""
        return self.flow(u, v, [1.0])[0][-1]

    def join(self, u0: Float[Tensor, "P k"], u1: Float[Tensor, "P k"]) -> Curves:
        """Geodesics from `u0` to `u1`, NaN where none was found."""
        found = Curves.unknown(u0)
        most = _PLACES * (1 + u0.shape[1]) * len(u0)

        def tried(find: Callable[[Geodesics, Tensor, Tensor], Curves], near: Interpolated | None) -> None:
            at = found.missed.nonzero()[:, 0]
            if len(at):
                curves = find(self if near is None else Geodesics(near), u0[at], u1[at])
                if near is None or self._agree(near, curves):
                    found.put(at, curves)
                    found.local = found.local or near

        near = _around(self.local, u0, u1, _CLOSE, most)
        if near is not None:
            tried(Geodesics._collocated, near)
        tried(Geodesics._collocated, None)
        if len(at := found.missed.nonzero()[:, 0]):
            near = _around(self.local, u0[at], u1[at], _WIDE, max(most, _MORE)) or near
            if near is not None:
                tried(Geodesics._shot, near)
            tried(Geodesics._shot, None)
        return found

    def _agree(self, near: Interpolated, curves: Curves) -> bool:
        """Whether an interpolation is right at a place on each of the paths that were found on it."""
        there = ~curves.missed
        if not there.any():
            return True
        places, velocities = curves.places[there], curves.velocities[there]
        which = torch.arange(len(places), device=places.device)
        node = (0.618034 * (which + 1) % 1 * places.shape[1]).long()
        u, v = places[which, node], velocities[which, node]
        (metric, symbols), (metric_near, symbols_near) = self.local(u), near(u)
        bend, off = (torch.einsum("pmij,pi,pj->pm", s, v, v).norm(dim=-1) for s in (symbols, symbols_near - symbols))
        same = (metric_near - metric).flatten(1).norm(dim=-1) <= _AGREES * metric.flatten(1).norm(dim=-1)
        return bool((same & (off <= _AGREES * (v.norm(dim=-1) + bend))).all())

    def _collocated(self, u0: Tensor, u1: Tensor) -> Curves:
        return between(self.christoffel, u0, u1)

    def _shot(self, u0: Tensor, u1: Tensor) -> Curves:
        found = Curves.unknown(u0)
        patient = Geodesics(_counted(self.local, _PATIENCE))
        try:
            v = patient.shoot(u0, u1)
        except _Spent:
            return found
        if len(at := (~v.isnan().any(-1)).nonzero()[:, 0]):
            times = nodes(found.places.shape[1] - 1).tolist()
            path = self.flow(u0[at], v[at], times[1:])[0].movedim(0, 1)
            found.places[at], found.shot[at] = torch.cat([u0[at, None], path], 1), v[at]
        return found

    def places(self, u0: Tensor, curves: Curves, times: list[float]) -> Float[Tensor, "P T k"]:
        """Where paths are at times, the first of which is 0."""
        found = curves.at(times)
        if (shot := ~curves.shot.isnan().any(-1)).any():
            found[shot] = self.flow(u0[shot], curves.shot[shot], times)[0].movedim(0, 1)
        return found

    def shoot(self, u0: Float[Tensor, "P k"], u1: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """The velocities that lead from `u0` to `u1` in time 1, NaN where none was found.

        Newton's method, damped; a target that is not hit is approached in stages along the straight line.
        """
        there = self.christoffel(u1).flatten(1).isfinite().all(-1)
        if not there.all():  # nothing leads to where there is no metric
            found = torch.full_like(u0, math.nan)
            if there.any():
                found[there] = self.shoot(u0[there], u1[there])
            return found
        found = self._newton(u0, u1, u1 - u0)
        missed, stages = found.isnan().any(-1), _STAGES
        if missed.any():
            near, far = u0[missed], u1[missed]
            v = (far - near) / stages
            for stage in range(1, stages + 1):
                v = self._newton(near, near + (far - near) * stage / stages, v)
                if v.isnan().all():
                    break
                if stage < stages:
                    v = v * (stage + 1) / stage
            found[missed] = v
        return found

    def _newton(self, u0: Tensor, u1: Tensor, v: Tensor) -> Tensor:
        reach = (u1 - u0).norm(dim=-1)
        v, damping = v.clone(), torch.ones_like(reach)
        for tolerance, hit in ((1e-6, 1e-4), (_TOLERANCE, _HIT)):  # far from the target few digits are enough
            miss, jacobian = self._aimed(u0, u1, v, tolerance)
            for _ in range(_STEPS):
                size = miss.norm(dim=-1)
                left = (size > hit * reach) & size.isfinite() & (damping > 1e-3)
                if not left.any():
                    break
                step = torch.linalg.lstsq(jacobian[left], miss[left][..., None]).solution[..., 0]
                tried = v[left] + damping[left, None] * step
                missed, turned = self._aimed(u0[left], u1[left], tried, tolerance)
                better = missed.norm(dim=-1) < size[left]
                where = left.nonzero()[:, 0]
                good, bad = where[better], where[~better]
                v[good], miss[good], jacobian[good] = tried[better], missed[better], turned[better]
                damping[good] = (2 * damping[good]).clamp_max(1.0)
                damping[bad] /= 4
            v = v.masked_fill(~(miss.norm(dim=-1) <= 10 * hit * reach)[:, None], math.nan)
            if v.isnan().all():
                break
        return v.masked_fill(~(miss.norm(dim=-1) <= 1e-9 * reach)[:, None], math.nan)

    def _aimed(self, u0: Tensor, u1: Tensor, v: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
        """How far the end is from the target `[P, k]`, and the derivative of the end by the velocity `[P, k, k]`."""
        p, k = u0.shape
        h = tolerance**0.4 * v.norm(dim=-1)[:, None, None] + 1e-300
        identity = torch.eye(k, dtype=v.dtype, device=v.device)
        tried = torch.cat([v[:, None], v[:, None] + h * identity], 1)
        starts = u0[:, None].expand_as(tried)
        ends = self.flow(starts.reshape(-1, k), tried.reshape(-1, k), [1.0], tolerance=tolerance)[0][-1]
        ends = ends.reshape(p, k + 1, k)
        jacobian = ((ends[:, 1:] - ends[:, :1]) / h).mT
        known = jacobian.isfinite().all(-1).all(-1)[:, None, None]
        return u1 - ends[:, 0], torch.where(known, jacobian, identity)

    def length(self, u0: Tensor, u1: Tensor, curves: Curves) -> Distance:
        """The lengths of geodesics from `u0` to `u1`."""
        places = curves.places
        count = places.shape[1]
        quick = self if curves.local is None else Geodesics(_instead(curves.local, self.local))
        speeds = quick._norm(places.flatten(0, 1), curves.velocities.flatten(0, 1)).reshape(-1, count)
        value = self._norm(u0, curves.velocity)  # the same all along
        error = (speeds - value[:, None]).abs().amax(1) + quick._norm(u1, places[:, -1] - u1) + _TOLERANCE * value
        return Distance(value, error, quick.straight(u0, u1))

    def carried(self, u0: Tensor, curves: Curves, w: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """What parallel transport along paths makes of vectors at their starts: one linear system each."""
        if (shot := ~curves.shot.isnan().any(-1)).any():
            found = self.carried(u0, Curves.through(curves.places), w)
            found[shot] = self.flow(u0[shot], curves.shot[shot], [1.0], w[shot])[2][-1]
            return found
        places, velocities = curves.places, curves.velocities
        p, count, k = places.shape
        known = places.isfinite().flatten(1).all(1)
        safe = torch.where(known[:, None, None], places, places.new_zeros(()))
        symbols = self.christoffel(safe.flatten(0, 1)).reshape(p, count, k, k, k)
        turning = torch.einsum("pnmij,pni->pnmj", symbols, velocities)
        rows = torch.arange(count, device=places.device)
        system = torch.einsum(
            "ab,mj->ambj", table(derivative, places, count - 1), torch.eye(k, dtype=places.dtype, device=places.device)
        )
        system = system.expand(p, -1, -1, -1, -1).clone()
        system[:, rows, :, rows] += turning.movedim(1, 0)
        system = system.reshape(p, count * k, count * k)
        unknown = ~system.isfinite().flatten(1).all(1)
        system[unknown] = torch.eye(count * k).to(places)
        found = torch.linalg.solve(system[:, k:, k:], -(system[:, k:, :k] @ w[..., None]))[:, -k:, 0]
        return found.masked_fill(unknown[:, None], math.nan)

    def straight(self, u0: Tensor, u1: Tensor) -> Tensor:
        """The lengths of the straight lines in coordinates."""
        nodes, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(_NODES))
        times = ((nodes + 1) / 2).to(u0)
        places = u0 + times[:, None, None] * (u1 - u0)
        speeds = self._norm(places.reshape(-1, u0.shape[-1]), (u1 - u0).repeat(_NODES, 1)).reshape(_NODES, -1)
        return (weights.to(speeds) / 2) @ speeds

    def _norm(self, u: Tensor, v: Tensor) -> Tensor:
        return torch.einsum("pij,pi,pj->p", self.metric(u), v, v).clamp_min(0).sqrt()


def _around(local: Local, u0: Tensor, u1: Tensor, margins: tuple[float, float], most: int) -> Interpolated | None:
    """`local` on a box around points, `None` where that cannot be had."""
    low, high = torch.minimum(u0, u1).amin(0), torch.maximum(u0, u1).amax(0)
    sides = high - low
    margin = margins[0] * sides + margins[1] * sides.amax()
    return interpolated(local, low - margin, high + margin, most) if (margin > 0).all() else None


def _instead(near: Local, local: Local) -> Local:
    """`local`, by an interpolation where there is one."""

    def call(u: Tensor) -> tuple[Tensor, Tensor]:
        found = near(u)
        outside = found[0].isnan().flatten(1).any(1).nonzero()[:, 0]
        if len(outside):
            for part, known in zip(found, local(u[outside]), strict=True):
                part[outside] = known
        return found

    return call


def no_geodesic(bad: Tensor, u0: Tensor, u1: Tensor, what: str) -> InputError:
    """What is raised where there is none between some points `[P, k]`; `what` was found."""
    at = int(bad.nonzero()[0, 0])
    first, second = (f"[{', '.join(f'{c:.6g}' for c in u[at].tolist())}]" for u in (u0, u1))
    return InputError(
        f"{what} within the chart between {int(bad.sum())} of {len(bad)} pairs of points, the first {first} and "
        f"{second}: the points are too far apart, or the metric is singular between them. Try points between them, or "
        'degenerate="nan"'
    )
