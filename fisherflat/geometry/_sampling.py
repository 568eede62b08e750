"""What a manifold says of its curvature in all directions, where they are many."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from fisherflat._arrays import integer
from fisherflat._typing import Float, Tensor
from fisherflat.errors import DegenerateImmersionError, InputError, MapError, PrecisionWarning, warn
from fisherflat.geometry._planes import HYBRID, NONE, PAIRS, PROVED, UNIT, Planes, drawn, measured
from fisherflat.geometry._sampled import SampledCurvature
from fisherflat.geometry._tangents import Tangents
from fisherflat.geometry._words import warn_of

#: planes from which the estimator is chosen; they and more say how many are needed, and are in no estimate
_PILOT = 32
#: how many those are at least, relative to what they ask for
_SHARE = 0.25
#: the fewest planes of an estimate: below, a standard error is not known well enough
_FEWEST = 32
#: a budget below so many pilots has none
_WORTH = 4
#: how much further than predicted to go, and by what factor where that does not suffice
_FURTHER, _STEP = 1.25, 1.1
#: planes at most unless told otherwise
BUDGET = 20_000


class Sampling:
    """The part of `StatisticalManifold` that samples planes."""

    if TYPE_CHECKING:  # what `StatisticalManifold` has
        chart: Any
        family: Any
        engine: Any
        degenerate: str
        dtype: torch.dtype
        output_shape: tuple[int, ...]
        _mapping: Any
        _memory: int | None

        @property
        def k(self) -> int: ...
        @property
        def _proved(self) -> bool: ...
        def _points(self, u: Any, name: str = "u") -> Tensor: ...

    def sampled_scalar_curvature(self, u: Any, error: float = 0.05, seed: int = 0, budget: int | None = None) -> Any:
        """The scalar curvature in all k directions, where these are hundreds or thousands, from random planes.

        `E K(x, y) = scal / (k (k - 1))` over orthonormal tangents x, y, uniform on the Stiefel manifold; the directions
        are orthonormal in the metric, and second derivatives are projected off all k tangents. A pilot of 32 planes
        chooses the estimator: the mean over planes, or, where `|tr II|^2` dominates, the exact trace of the second
        fundamental form and a sampled `|II|^2`. It grows to a fourth of the planes that it asks for, and is in no
        estimate. It stops when the standard error is as small as was asked for. Memory is that of the Jacobian, k times
        D numbers, and of its factors.

        **Args:**

        - `u`: `[*batch, k]`.
        - `error`: the standard error to reach, relative to the value; 0.05 is five per cent.
        - `seed`: of the planes; the same at each point. No global random state is touched.
        - `budget`: planes at most, the pilot's among them (default 20,000). Where it ends first, a `PrecisionWarning`
          says so, and `reached` is false.

        **Returns:** a `SampledCurvature` for one point `[k]`, else nested lists of them, as `batch` has it.

        **Raises:** `InputError` for k = 1, where there is no plane, for an error that no number of planes can reach in
        the working precision, for a budget below two planes and for a family whose frames follow the directions;
        `OutOfMemoryError` where the Jacobian does not fit into memory; `DegenerateImmersionError` where its rank is
        below k, with the effective dimension of what is left, and `MapError` where the map is not finite, both unless
        `degenerate` is `"nan"`.

        >>> import torch, fisherflat as ff
        >>> bowl = lambda u: torch.cat([u, u.square().sum()[None] / 2])
        >>> M = ff.StatisticalManifold(bowl, ff.charts.identity(100))
        >>> print(M.sampled_scalar_curvature(torch.zeros(100)))
        scalar curvature 9900 in all k = 100 directions (95 % interval 9900 to 9900, from 32 random planes)
        """
        points = self._points(u)
        if self.k == 1:
            raise InputError("a curve has no planes, and no intrinsic curvature; move at least k = 2 directions")
        floor = torch.finfo(self.dtype).eps
        if isinstance(error, bool) or not isinstance(error, int | float) or not floor < error < math.inf:
            raise InputError(
                f"error is a standard error relative to the value, such as 0.05, and above {floor:.3g}, what rounding "
                f"leaves of any number; got {error!r}"
            )
        seed = integer(seed, "seed", 0)
        limit = BUDGET if budget is None else integer(budget, "budget, a number of planes,", 2)
        self._mapping.unchanged()
        near, found = [], []
        with torch.no_grad():
            for at in points.reshape(-1, self.k).detach():
                tangents = Tangents(self.engine, self.chart, at, self.family, self.output_shape, self._memory)
                near.append(tangents.nearly)
                found.append(sampled_at(tangents, float(error), seed, limit, self._proved, self.degenerate))
        warn_of(torch.tensor([one.estimator == NONE for one in found]), torch.tensor(near))
        short = [one for one in found if one.estimator != NONE and not one.reached]
        if short:
            warn(f"at {len(short)} of {len(found)} points {short[0].ended}", PrecisionWarning)
        return _nested(found, points.shape[:-1])


def sampled_at(
    tangents: Tangents, error: float, seed: int, budget: int, proved: bool, degenerate: str = "raise"
) -> SampledCurvature:
    """The scalar curvature at a point whose tangents are known; see `StatisticalManifold.sampled_scalar_curvature`.

    **Args:** `proved`: whether structure says that the image is flat, so that nothing is sampled.

    **Raises:** `DegenerateImmersionError`, `MapError` unless `degenerate` is `"nan"`.
    """
    none, left = torch.empty(0, dtype=torch.float64), (tangents.effective_dimension, tangents.rank, tangents.open)
    known = SampledCurvature(math.nan, math.nan, tangents.k, 0, NONE, error, budget, 0.0, *left, none, none)
    try:
        if tangents.problem is not None:
            raise tangents.problem
        if proved:
            return replace(known, value=0.0, standard_error=0.0, estimator=PROVED)
        return _estimated(tangents, known, seed)
    except (DegenerateImmersionError, MapError):
        if degenerate == "raise":
            raise
        return known


class _Estimates:
    """Estimates of the scalar curvature, one from each plane, of one of the two estimators."""

    def __init__(self, tangents: Tangents, seed: int, trace: Tensor | None = None) -> None:
        self.tangents, self.trace, self.parts = tangents, trace, list[Planes]()
        self._generator = torch.Generator().manual_seed(integer(seed, "seed"))

    def more(self, count: int) -> None:
        """Measure so many planes more. They are drawn in units, so that none depends on how many are asked for."""
        xi = torch.cat([drawn(UNIT, self.tangents.k, self._generator) for _ in range(-(-count // UNIT))])
        self.parts.append(measured(self.tangents, xi[:count], self.trace))

    @property
    def count(self) -> int:
        """How many were measured."""
        return sum(len(part.sectional) for part in self.parts)

    def all(self, name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in self.parts])

    @property
    def values(self) -> Float[Tensor, " P"]:
        k = self.tangents.k
        if self.trace is None:
            return k * (k - 1) * self.all("sectional")
        return (1 - 1 / k) * float(self.trace.square().sum()) + self.all("rest")

    @property
    def rounding(self) -> float:
        k = self.tangents.k
        return k * (k - 1) * float(self.all("rounding").mean())


def _estimated(tangents: Tangents, known: SampledCurvature, seed: int) -> SampledCurvature:
    estimator, budget, error = PAIRS, known.budget, known.asked
    count = min(_FEWEST, budget)
    found = _Estimates(tangents, seed)
    if budget >= _WORTH * _PILOT:
        pilot = _Estimates(tangents, (seed + 2**62) % 2**63)  # of planes of its own
        pilot.more(_PILOT)
        target = max(error * abs(float(pilot.values.mean())), pilot.rounding)
        # a plane costs six coefficients, the trace at most three for each direction
        if tangents.k > 2 and _needed(pilot.all("rest"), target) + tangents.k / 2 < _needed(pilot.values, target):
            estimator, pilot.trace = HYBRID, tangents.trace()
            found = _Estimates(tangents, seed, pilot.trace)
        count = _asked(pilot, error, budget)
        budget -= pilot.count
    while True:
        found.more(min(count, budget) - found.count)
        deviation = _deviation(found.values) if found.count > 1 else math.inf
        result = replace(
            known,
            value=float(found.values.mean()),
            standard_error=deviation / found.count**0.5,
            pairs=found.count,
            estimator=estimator,
            rounding=found.rounding,
            planes=found.all("sectional"),
            plane_rounding=found.all("rounding"),
        )
        if result.reached or found.count >= budget:
            return result
        count = _units(_STEP * found.count)


def _asked(pilot: _Estimates, error: float, budget: int) -> int:
    """How many planes the pilot asks for, once it is long enough to know, or sure that the budget ends first.

    The number is independent of the planes that it is for, so that their mean is not biased by it.
    """
    while True:
        mean, reach = abs(float(pilot.values.mean())), 2 * _deviation(pilot.values) / pilot.count**0.5
        likely, least = (
            min(_needed(pilot.values, max(error * size, pilot.rounding)), budget) for size in (mean, mean + reach)
        )
        if pilot.count >= _SHARE * likely or least == budget:
            return _units(likely)
        pilot.more(_units(min(2 * pilot.count, _SHARE * likely)) - pilot.count)


def _deviation(values: Tensor) -> float:
    """The standard deviation, also where squares of the values are beyond the largest number."""
    scale = float(values.abs().max()) or 1.0
    return scale * float((values / scale).std())


def _needed(values: Tensor, target: float) -> float:
    """How many planes bring the standard error down to the target, as far as is known."""
    deviation = _deviation(values)
    ratio = deviation / target if target > 0 else math.inf if deviation else 0.0
    return max(_FEWEST, _FURTHER * ratio * ratio)


def _units(count: float) -> int:
    """So many planes, in units."""
    return UNIT * math.ceil(count / UNIT)


def _nested(found: list[SampledCurvature], shape: torch.Size) -> Any:
    if not shape:
        return found[0]
    step = len(found) // shape[0]
    return [_nested(found[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]
