"""Geodesics of a manifold, many at a time: from a velocity by scipy, between two points by collocation.

`u''^m = -Gamma^m_ij u'^i u'^j` (do Carmo, *Riemannian Geometry*, 1992,
chapter 3). All paths are one system of equations, so that an evaluation of the Christoffel symbols serves them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry._chebyshev import derivative, placed
from fisherflat.geometry._collocation import Curves, bent, between, lowest
from fisherflat.geometry._interpolated import DECAYED, Interpolated, Local, interpolated

#: of the integrator, and no less than so many roundings
_TOLERANCE, _DIGITS = 1e-11, 64
#: where a metric ends, steps would shrink for ever: so little of the way in so many evaluations is none
_WAY, _EVALUATIONS = 1e-3, 120
#: nodes of the quadrature of the length of a straight line
_NODES = 32
#: how often a fold is looked for more closely, and how much smaller an eigenvalue of the metric has become by then
_CLOSER, _VANISHES = 4, 1e-6

#: how much larger than what the points span the box is in which paths are looked for, along each axis and, as a share
#: of the longest, along all
_MARGINS = 0.05, 0.02
#: places for each path, and each of its directions and one, at which the metric may be asked for to interpolate it
_PLACES = 100
#: a geodesic that is so much longer than the straight line is looked for once more, relative to its length
_LONGER = 1e-9
#: how far it may be off along a path
_AGREES = 1e-10


class _Stuck(Exception):
    """An integration that makes no way."""


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
    """Geodesics of a manifold, given its metric and Christoffel symbols, to a relative rounding `eps`."""

    local: Local
    eps: float = torch.finfo(torch.float64).eps

    @property
    def tolerance(self) -> float:
        """Of the integrator, relative to the length of the step that a path makes in coordinates."""
        return max(_TOLERANCE, _DIGITS * self.eps)

    def metric(self, u: Float[Tensor, "P k"]) -> Float[Tensor, "P k k"]:
        """NaN where there is none."""
        return self.local(u)[0]

    def christoffel(self, u: Float[Tensor, "P k"]) -> Float[Tensor, "P k k k"]:
        """NaN where there are none."""
        return self.local(u)[1]

    def end(self, u: Float[Tensor, "P k"], v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """Where the geodesics from `u` with velocities `v` are at time 1."""
        from scipy.integrate import solve_ivp

        start = torch.stack([u, v]).double()
        dead = ~start.isfinite().all(-1).all(0)
        dead = dead | ~self.christoffel(start[0].masked_fill(dead[:, None], 0.0)).flatten(1).isfinite().all(-1)
        if dead.all():
            return torch.full_like(start[0], math.nan)
        start = torch.where(dead[:, None], start[:, ~dead][:, :1], start)  # as a path that runs, which is not looked at
        size = start[1].norm(dim=-1, keepdim=True).expand_as(start)
        count, mark = 0, 0.0

        def slope(t: float, flat: np.ndarray) -> np.ndarray:
            nonlocal count, mark
            count += 1
            if count % _EVALUATIONS == 0:
                if t - mark < _WAY:
                    raise _Stuck
                mark = t
            y = torch.from_numpy(flat.reshape(start.shape)).to(u.device)
            symbols = self.christoffel(y[0])  # not a number outside of the domain, where no step then leads
            turned = -torch.einsum("pmij,pi,pj->pm", symbols, y[1], y[1])
            return torch.stack([y[1], turned]).cpu().numpy().reshape(-1)

        try:
            with np.errstate(invalid="ignore"):  # a step that left the domain is tried again, shorter
                found = solve_ivp(
                    slope, (0.0, 1.0), start.cpu().numpy().reshape(-1), method="DOP853", t_eval=[1.0],
                    rtol=self.tolerance, atol=self.tolerance * size.cpu().numpy().reshape(-1) + 1e-300,
                )  # fmt: skip
            stuck = not found.success
        except _Stuck:
            stuck = True
        if stuck and len(u) > 1:  # by one of them perhaps, which the others are not to suffer from
            middle = len(u) // 2
            return torch.cat([self.end(u[:middle], v[:middle]), self.end(u[middle:], v[middle:])])
        if stuck:
            return torch.full_like(start[0], math.nan)
        return (
            torch.from_numpy(found.y[:, -1].reshape(start.shape)[0]).to(u.device).masked_fill(dead[:, None], math.nan)
        )

    @torch.no_grad()
    def join(self, u0: Float[Tensor, "P k"], u1: Float[Tensor, "P k"]) -> Curves:
        """Geodesics from `u0` to `u1`, NaN where none was found."""
        found = Curves.unknown(u0)
        near = self._around(u0, u1, _PLACES * (1 + u0.shape[1]) * len(u0))
        if near is not None:
            curves = between(near, u0, u1, self.eps)
            if self._agree(near, curves):
                found, found.local = curves, near
        if len(at := found.missed.nonzero()[:, 0]):
            found.put(at, between(self.local, u0[at], u1[at], self.eps))
        lengths, straight = self._quick(found)._compared(u0, u1, found)
        # missed, or longer than the straight line; nothing leads to where there is no metric
        most = straight * (1 + max(_LONGER, _DIGITS * self.eps))
        poor = ~(lengths <= most) & self.metric(u1).flatten(1).isfinite().all(1)
        for way in bent, lowest:
            if len(at := poor.nonzero()[:, 0]):
                other = way(self.local, u0[at], u1[at], self.eps)
                length = self.norm(u0[at], other.velocity)
                better = ~(length >= lengths[at]) & ~other.missed
                found.put(at[better], Curves(other.places[better]))
                lengths[at[better]] = length[better]
                poor = ~(lengths <= most) & poor
        return found

    def _quick(self, curves: Curves) -> Geodesics:
        """The same, by the interpolation on which some curves were found where there is one."""
        return self if curves.local is None else Geodesics(_instead(curves.local, self.local), self.eps)

    def _compared(self, u0: Tensor, u1: Tensor, curves: Curves) -> tuple[Tensor, Tensor]:
        """Lengths of curves and of straight lines, `[P]`."""
        return self.norm(u0, curves.velocity), self.straight(u0, u1)

    def _around(self, u0: Tensor, u1: Tensor, most: int) -> Interpolated | None:
        """The same on a box around points, `None` where that cannot be had, as where values have too few digits."""
        low, high = torch.minimum(u0, u1).amin(0), torch.maximum(u0, u1).amax(0)
        sides = high - low
        margin = _MARGINS[0] * sides + _MARGINS[1] * sides.amax()
        possible = self.eps < DECAYED and (margin > 0).all()
        return interpolated(self.local, low - margin, high + margin, most) if possible else None

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

    @torch.no_grad()
    def length(self, u0: Tensor, u1: Tensor, curves: Curves) -> Distance:
        """The lengths of geodesics from `u0` to `u1`, without gradients."""
        places = curves.places
        count = places.shape[1]
        quick = self._quick(curves)
        speeds = quick.norm(places.flatten(0, 1), curves.velocities.flatten(0, 1)).reshape(-1, count)
        value = self.norm(u0, curves.velocity)  # the same all along
        error = (speeds - value[:, None]).abs().amax(1) + quick.norm(u1, places[:, -1] - u1) + self.tolerance * value
        return Distance(value, error, quick.straight(u0, u1))

    def carried(self, curves: Curves, w: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        """What parallel transport along paths makes of vectors at their starts: one linear system each."""
        places, velocities = curves.places, curves.velocities
        p, count, k = places.shape
        known = places.isfinite().flatten(1).all(1)
        safe = torch.where(known[:, None, None], places, places.new_zeros(()))
        symbols = self.christoffel(safe.flatten(0, 1)).reshape(p, count, k, k, k)
        turning = torch.einsum("pnmij,pni->pnmj", symbols, velocities)
        rows = torch.arange(count, device=places.device)
        system = torch.einsum(
            "ab,mj->ambj", placed(derivative, places, count - 1), torch.eye(k, dtype=places.dtype, device=places.device)
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
        speeds = self.norm(places.reshape(-1, u0.shape[-1]), (u1 - u0).repeat(_NODES, 1)).reshape(_NODES, -1)
        return (weights.to(speeds) / 2) @ speeds

    def fold(self, u0: Float[Tensor, " k"], u1: Float[Tensor, " k"]) -> Float[Tensor, " k"] | None:
        """Where the metric is singular on the straight line between two points, about; `None` where it is not."""
        first, last, least = 0.0, 1.0, list[float]()
        for _ in range(_CLOSER):
            times = torch.linspace(first, last, 2 * _NODES + 1, dtype=u0.dtype, device=u0.device)
            metric = self.metric(u0 + times[:, None] * (u1 - u0))
            known = metric.isfinite().flatten(1).all(1)
            spread = torch.linalg.eigvalsh(torch.where(known[:, None, None], metric, torch.eye(len(u0)).to(metric)))
            ratios = torch.where(known, spread[:, 0] / spread[:, -1], torch.inf)
            at = int(ratios.argmin())
            least.append(ratios[at].item())
            first, last = times[max(at - 1, 0)].item(), times[min(at + 1, 2 * _NODES)].item()
        # what is small and no more is so, seen closer, too
        singular = least[-1] <= max(_DIGITS * self.eps, _VANISHES * least[0]) and least[-1] < math.inf
        return u0 + times[at] * (u1 - u0) if singular else None

    def norm(self, u: Float[Tensor, "P k"], v: Float[Tensor, "P k"]) -> Float[Tensor, " P"]:
        """The lengths of vectors `v` at `u`."""
        return torch.einsum("pij,pi,pj->p", self.metric(u), v, v).clamp_min(0).sqrt()


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


def no_geodesic(geodesics: Geodesics, bad: Tensor, u0: Tensor, u1: Tensor, what: str) -> InputError:
    """What is raised where there is none between some points `[P, k]`; `what` was found."""
    at = int(bad.nonzero()[0, 0])
    fold = geodesics.fold(u0[at].detach(), u1[at].detach())
    first, second = _place(u0[at]), _place(u1[at])
    why = "the points are too far apart, or the metric is singular between them. Try points between them"
    if fold is not None:
        why = f"the metric is singular between them, about at {_place(fold)}, which no geodesic crosses"
        why = f"{why}. Try points on one side of it"
    return InputError(
        f"{what} within the chart between {int(bad.sum())} of {len(bad)} pairs of points, the first {first} and "
        f'{second}: {why}, or degenerate="nan"'
    )


def _place(u: Tensor) -> str:
    return f"[{', '.join(f'{c:.6g}' for c in u.tolist())}]"
