"""2-jets from a map's values alone, each entry with an error that covers it: Romberg's table of differences.

Central differences at steps that halve are extrapolated; for each entry the column and step of least estimated error
are taken, and smaller steps must agree within their own errors, or else they are believed. The estimate of the error
has three parts: what one more extrapolation changes (which is far more than what it leaves), rounding, and the noise
seen at the smallest steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: steps along unit directions: 1/8, 1/16, ..., 2^-14
STEPS = 2.0 ** -torch.arange(3.0, 15.0, dtype=torch.float64)
COLUMNS = 5
SAFETY = 20  # a chance agreement of two entries of the table must not pass for a small error


@dataclass(frozen=True)
class Estimate:
    """Numbers `[D]` with the errors that cover them; infinite where nothing is known."""

    value: Tensor
    error: Tensor

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.value + other.value, self.error + other.error)

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.error * abs(factor))

    def split(self, size: int) -> list[Estimate]:
        """Those of so many numbers each."""
        return [Estimate(*pair) for pair in zip(self.value.split(size), self.error.split(size), strict=True)]

    def contradicts(self, other: Estimate) -> Tensor:
        """Where the two cannot be the same number."""
        slack = self.error + other.error + 1e-6 * torch.maximum(self.value.abs(), other.value.abs())
        return (self.value - other.value).abs() > slack  # false where an error is infinite or a value not a number


@dataclass(frozen=True)
class Truth:
    """What the values of a map say of its 2-jet in two coordinates.

    **Attributes:** `jet`, six estimates: value, two first and three second derivatives; `kink` `[D]`: where the map is
    certainly not twice differentiable; `smooth` `[D]`: where it is, as far as limits from both sides can say.
    """

    jet: list[Estimate]
    kink: Tensor
    smooth: Tensor

    @property
    def value(self) -> Tensor:
        return self.jet[0].value

    def combined(self, weights: Tensor, entries: Tensor) -> Truth:
        """The same of combinations `[n, m]` of m entries of the output."""
        jet = [Estimate(weights @ e.value[entries], weights.abs() @ e.error[entries]) for e in self.jet]
        kink, smooth = self.kink[entries].any(), self.smooth[entries].all()
        return Truth(jet, kink.expand(len(weights)), smooth.expand(len(weights)))


@dataclass(frozen=True)
class _Lines:
    """Values on lines, side by side as entries, which are all treated alike: at the point `[D]`, ahead and behind."""

    at: Tensor
    ahead: Tensor
    behind: Tensor


def truth(f: Callable[[Tensor], Tensor], u: Tensor) -> Truth:
    """The 2-jet of `f: R^2 -> R^D` at `u`.

    Four directions are one more than a quadratic form needs, so that a map which is smooth along every line and still
    not differentiable (`x y^2 / (x^2 + y^2)` at 0) is seen.
    """
    at = f(u)
    one, two = torch.eye(2, dtype=torch.float64)
    lines = _lines(f, u, at, [one, two, one + two, one - two])
    first, second = (_central(lines, order).split(len(at)) for order in (1, 2))
    kink = first[2].contradicts(first[0] + first[1]) | first[3].contradicts(first[0] + first[1] * -1)
    kink |= (second[2] + second[3]).contradicts((second[0] + second[1]) * 2)
    size = torch.stack([e.value.abs().nan_to_num(0.0) for e in (*first, *second)]).amax(0) + at.abs()
    smooth, sizes = ~kink, size.repeat(4)
    for order in (0, 1, 2):
        ahead, behind = _one_sided(lines, order).split(4 * len(at))
        near = (ahead.value - behind.value).abs() <= 1e-3 * sizes  # false where one of them is not a number
        near &= ahead.error + behind.error <= 0.1 * sizes + 1e-9
        kink |= ahead.contradicts(behind).view(4, -1).any(0)
        smooth &= near.view(4, -1).all(0)
    smooth &= ~kink
    exact = Estimate(at, torch.where(at.isfinite(), 1e-14 * at.abs(), torch.inf))
    mixed = (second[2] + second[3] * -1) * 0.25
    return Truth([exact, *first[:2], second[0], mixed, second[1]], kink, smooth)


def _lines(f: Callable[[Tensor], Tensor], u: Tensor, at: Tensor, directions: list[Tensor]) -> _Lines:
    ahead, behind = (
        torch.cat([torch.stack([f(u + side * h * way) for h in STEPS]) for way in directions], 1) for side in (1, -1)
    )
    return _Lines(at.repeat(len(directions)), ahead, behind)


def _central(lines: _Lines, order: int) -> Estimate:
    """The derivative along each line: differences have an expansion in even powers of the step."""
    h = STEPS[:, None]
    if order == 1:
        return _romberg((lines.ahead - lines.behind) / (2 * h), 4, _noise(lines) / h)
    return _romberg((lines.ahead - 2 * lines.at + lines.behind) / h**2, 4, 4 * _noise(lines) / h**2)


def _one_sided(lines: _Lines, order: int) -> Estimate:
    """Limit, first or second derivative ahead and then behind: expansions in all powers of the step."""
    h, at, noise = STEPS[:, None], lines.at.repeat(2), _noise(lines).repeat(2)
    values = torch.cat([lines.ahead, lines.behind], 1)
    if order == 0:
        return _romberg(values, 2, noise + 0 * h)
    if order == 1:
        slopes = torch.cat([lines.ahead - lines.at, -(lines.behind - lines.at)], 1) / h
        return _romberg(slopes, 2, 2 * noise / h)
    twice, once, h = values[:-1], values[1:], h[1:]
    return _romberg((twice - 2 * once + at) / h**2, 2, 4 * noise / h**2)


def _noise(lines: _Lines) -> Tensor:
    """How far single values are off: rounding of them and of the point, or more where the smallest steps say so."""
    slope = (lines.ahead - lines.behind)[-1].abs() / (2 * STEPS[-1])
    rounding = 4e-16 * torch.maximum(lines.at.abs(), torch.maximum(lines.ahead.abs(), lines.behind.abs())[-3:].amax(0))
    differences = (lines.ahead - 2 * lines.at + lines.behind)[-3:]
    seen = (differences[1:] - differences[:-1] / 4).abs().amax(0)
    return torch.maximum(rounding + 2e-15 * slope, seen)


def _romberg(column: Tensor, base: int, noise: Tensor) -> Estimate:
    """The limit for vanishing steps of the rows of `column` `[steps, D]`, with `noise` in each of them."""
    estimates, errors = [column], [torch.full_like(column, torch.inf)]
    for m in range(1, COLUMNS):
        before = estimates[-1]
        finer = before[1:] + (before[1:] - before[:-1]) / (base**m - 1)
        change = torch.maximum((finer - before[1:]).abs(), (finer - before[:-1]).abs())
        estimates.append(finer)
        errors.append(change + 4 * noise[m:] + 1e-15 * finer.abs())
    # row j of column m rests on the steps j .. j + m: put all in one list, and know the smallest step of each
    table, error = torch.cat(estimates[1:]), torch.cat(errors[1:])
    finest = torch.cat([torch.arange(m, len(column)) for m in range(1, COLUMNS)])
    error = torch.where(error.isfinite() & table.isfinite(), error, torch.inf)
    while True:
        best = error.argmin(0, keepdim=True)
        value, least = table.gather(0, best)[0], error.gather(0, best)[0]
        later = finest[:, None] > finest[best]
        denied = (later & error.isfinite() & ((table - value).abs() > 4 * (error + least))).any(0)
        if not denied.any():
            second = torch.where(later, error, torch.inf).argmin(0, keepdim=True)  # the best of smaller steps
            apart = torch.where(later.any(0), (table.gather(0, second)[0] - value).abs(), 0.0)
            return Estimate(value, torch.maximum(SAFETY * least, 2 * apart.nan_to_num(torch.inf)))
        # something lies between the larger steps and the smaller ones, such as a kink nearby: believe the smaller
        error = torch.where(denied & ~later, torch.inf, error)
