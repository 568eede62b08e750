"""The scalar curvature in all directions, as random planes tell it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry._planes import NONE, PROVED
from fisherflat.geometry._words import Verdict

#: the two-sided 95 % quantile of the normal distribution
_NORMAL = 1.959963984540054


class Bounded(NamedTuple):
    """A number with its 95 % interval.

    >>> from fisherflat.geometry import Bounded
    >>> Bounded(0.5, 0.4, 0.6).low
    0.4
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SampledCurvature:
    """A scalar curvature estimated from random planes; see `StatisticalManifold.sampled_scalar_curvature`.

    **Attributes:**

    - `value`, `standard_error`: in units of 1 / covariance, as `scalar_curvature`; NaN where there is no geometry.
    - `k`: the dimension; `pairs`: how many planes the value is from.
    - `estimator`: `"pairs"` (the mean over planes), `"exact trace and pairs"`, `"proved"` (zero by structure, nothing
      was sampled) or `"none"` (no geometry).
    - `asked`: the relative standard error that was asked for; `budget`: planes at most.
    - `rounding`: what rounding may have left in the value.
    - `effective_dimension`: how many directions the output tells apart, as `Geometry.effective_rank`; `rank`: how many
      to rounding.
    - `open`: whether no more outputs move than there are directions, at the point and close by. The image is an open
      piece of their space then, and flat whatever the map is.
    - `planes`: the sectional curvatures `[pairs]`; `plane_rounding`: what rounding may have left in them.

    >>> import torch, fisherflat as ff
    >>> sphere = lambda u: torch.cat([u, (1 - u.square().sum()).sqrt()[None]])
    >>> M = ff.StatisticalManifold(sphere, ff.charts.identity(20))
    >>> found = M.sampled_scalar_curvature(torch.zeros(20))
    >>> round(found.value, 9), round(found.mean_sectional.value, 9), found.positive.value
    (380.0, 1.0, 1.0)
    """

    value: float
    standard_error: float
    k: int
    pairs: int
    estimator: str
    asked: float
    budget: int
    rounding: float
    effective_dimension: float
    rank: int
    open: bool
    planes: Float[Tensor, " pairs"] = field(repr=False)
    plane_rounding: Float[Tensor, " pairs"] = field(repr=False)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the value, of Student's t distribution."""
        reach = student(self.pairs - 1) * self.standard_error if self.pairs > 1 else self.standard_error
        return self.value - reach, self.value + reach

    @property
    def reached(self) -> bool:
        """Whether the standard error is as small as was asked for, or no more than what rounding leaves."""
        return self.standard_error <= max(self.asked * abs(self.value), self.rounding)

    @property
    def mean_sectional(self) -> Bounded:
        """The mean of the sectional curvature over all planes, `scal / (k (k - 1))`."""
        planes = self.k * (self.k - 1)
        return Bounded(self.value / planes, *(end / planes for end in self.interval))

    @property
    def positive(self) -> Bounded:
        """The share of planes of positive curvature, beyond rounding (interval: Wilson, *JASA* 22, 1927)."""
        return self._share(self.planes > self.plane_rounding)

    @property
    def negative(self) -> Bounded:
        """The share of planes of negative curvature, beyond rounding."""
        return self._share(self.planes < -self.plane_rounding)

    def quantile(self, q: float) -> Bounded:
        """A quantile of the sectional curvature over random planes, its interval from order statistics.

        **Args:** `q`, from 0 to 1: 0.5 is the median.

        **Raises:** `InputError` for another number.
        """
        if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q <= 1:
            raise InputError(f"a quantile is asked for by a number from 0 to 1, got {q!r}")
        n = len(self.planes)
        if n == 0:
            known = 0.0 if self.estimator == PROVED else math.nan
            return Bounded(known, known, known)
        ordered = self.planes.sort().values
        spread = _NORMAL * math.sqrt(n * q * (1 - q))
        low, high = max(0, math.floor(n * q - spread)), min(n - 1, math.ceil(n * q + spread))
        return Bounded(float(torch.quantile(ordered, q)), float(ordered[low]), float(ordered[high]))

    @property
    def verdict(self) -> str | None:
        """In the four words of `fisherflat.geometry.Verdict`: curved where the interval has one sign."""
        if self.estimator == NONE:
            return None
        if self.estimator == PROVED:
            return str(Verdict.PROVED)
        low, high = self.interval
        if abs(self.value) <= self.rounding and self.standard_error <= self.rounding:
            return str(Verdict.FLAT)
        return str(Verdict.CURVED if low > self.rounding or high < -self.rounding else Verdict.UNDECIDED)

    def _share(self, which: Tensor) -> Bounded:
        n = len(which)
        if n == 0:
            known = 0.0 if self.estimator == PROVED else math.nan
            return Bounded(known, known, known)
        p, z = float(which.double().mean()), _NORMAL**2 / n
        centre = (p + z / 2) / (1 + z)
        reach = _NORMAL / (1 + z) * math.sqrt(p * (1 - p) / n + z / (4 * n))
        return Bounded(p, max(0.0, min(p, centre - reach)), min(1.0, max(p, centre + reach)))

    def __str__(self) -> str:
        """One sentence, with what the budget did not suffice for."""
        if self.estimator == NONE:
            return (
                f"no scalar curvature in k = {self.k} directions: the output tells {self.rank} of them apart, of "
                f"effective dimension {self.effective_dimension:.3g}"
            )
        if self.estimator == PROVED:
            return f"scalar curvature 0 in all k = {self.k} directions, proved by structure"
        low, high = self.interval
        said = (
            f"scalar curvature {self.value:.4g} in all k = {self.k} directions (95 % interval {low:.4g} to {high:.4g}, "
            f"from {self.pairs} random planes)"
        )
        if abs(self.value) <= self.rounding and self.standard_error <= self.rounding:
            why = f", since no more than {self.k} outputs move, and their image is an open piece of space"
            return f"{said}: flat to its error{why if self.open else ''}"
        return said if self.reached else f"{said}; {self.ended}"

    @property
    def ended(self) -> str:
        """How far the budget got, in words."""
        share = abs(self.standard_error / self.value) if self.value else math.inf
        return (
            f"the budget of {self.budget} planes ended at a standard error of {100 * share:.3g} % of the value, and "
            f"{100 * self.asked:.3g} % was asked for"
        )


def student(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t distribution, to a permille for 5 degrees of freedom and more.

    The expansion around the normal distribution of Hill (*Algorithm 396*, 1970); exact for 1 and 2 degrees.
    """
    if freedom == 1:
        return math.tan(math.pi * 0.475)
    if freedom == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    z, n = _NORMAL, float(freedom)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / n**power for power, term in enumerate(terms))
