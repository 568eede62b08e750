"""How well two measurements agree, and how well two halves of one do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fisherflat._arrays import integer
from fisherflat._display import displayed
from fisherflat.errors import InputError
from fisherflat.statistics._estimate import at, checked, numbers, outward


def noise_floor(values: Any, prompt: Any = None, position: Any = None, *, splits: int = 400, seed: int = 0) -> float:
    """How much the means of two halves of a measurement differ, in the root mean square over random halves.

    A difference between two measurements that is not larger could be found within one of them. Whole clusters go into
    a half, as in `estimate`; two independent measurements of as many clusters differ by about 0.7 times as much.

    **Args:** `values`, `prompt`, `position` as in `estimate`; `splits`, how many halves are drawn, with `seed`.

    **Returns:** the floor, in the units of the values; NaN for fewer than two clusters.

    **Raises:** `InputError` as `estimate`.

    >>> import fisherflat as ff
    >>> ff.statistics.noise_floor([1.0, 3.0], prompt=[0, 1])
    2.0
    """
    x, level, cluster, _ = checked(values, prompt, position)
    if level is None:
        return float("nan")
    totals, counts = np.bincount(cluster, x), np.bincount(cluster)
    first = _halves(len(counts), splits, seed)
    means = [(half @ totals) / (half @ counts) for half in (first, 1 - first)]
    return float(np.sqrt(np.mean((means[0] - means[1]) ** 2)))


@displayed
@dataclass(frozen=True)
class Agreement:
    """How well two profiles agree; see `agreement`.

    **Attributes:**

    - `places`: how many places, such as layers, the profiles have.
    - `rank`, `rank_low`, `rank_high`: Spearman's rank correlation over the places and its bootstrap interval; NaN for
      fewer than three places, or where a profile is the same everywhere.
    - `sign`, `sign_low`, `sign_high`: the share of the places in which both have the same sign, zero being one.
    - `rank_of_halves`, `sign_of_halves`: the same of two random halves of one measurement, in the mean over the halves
      of the less certain of the two measurements: more agreement cannot be expected.
    - `level`, `clusters`: what was resampled, and how many there are, as in an `Estimate`.
    """

    places: int
    rank: float
    rank_low: float
    rank_high: float
    rank_of_halves: float
    sign: float
    sign_low: float
    sign_high: float
    sign_of_halves: float
    level: str | None
    clusters: int


def agreement(
    first: Any,
    second: Any,
    place: Any,
    prompt: Any = None,
    position: Any = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    splits: int = 400,
    seed: int = 0,
) -> Agreement:
    """How well the profiles of two measurements over some places agree, in rank and in sign.

    A profile is the mean of a measurement at each place. Intervals come from resampling clusters, of both measurements
    at once, as in `estimate`.

    **Args:**

    - `first`, `second`: `[m]`, values that belong together, NaN where one could not be measured.
    - `place`: `[m]`, where each is from, such as the layer; `prompt`, `position` as in `estimate`.
    - `confidence`, `resamples` of the intervals; `splits`, how many halves are drawn; `seed` of both.

    **Returns:** an `Agreement`.

    **Raises:** `InputError` where the lengths differ, or arguments are out of range.

    >>> import fisherflat as ff
    >>> found = ff.statistics.agreement([1.0, 2.0, 3.0], [0.1, 0.4, -0.9], place=[0, 1, 2])
    >>> found.rank, round(found.sign, 2)
    (-0.5, 0.67)
    """
    pair = [numbers(first), numbers(second)]
    if not len(pair[0]) == len(pair[1]) == len(place):
        raise InputError(f"there are {len(pair[0])} and {len(pair[1])} values at {len(place)} places; give one each")
    x, level, cluster, finite = checked(pair[0] - pair[1], prompt, position, confidence, resamples)
    where, nan = at(place, finite), float("nan")
    if len(x) == 0 or where is None:
        return Agreement(0, nan, nan, nan, nan, nan, nan, nan, nan, None, 0)
    if level == "point":  # whatever belongs to a place is one value of its profile there
        level, cluster = None, np.zeros(len(x), dtype=np.int64)
    shape = (int(cluster.max()) + 1, int(where.max()) + 1)
    counts = np.zeros(shape)
    np.add.at(counts, (cluster, where), 1)
    totals = np.zeros((2, *shape))
    for total, values in zip(totals, pair, strict=True):
        np.add.at(total, (cluster, where), values[finite])
    overall = totals.sum(1) / counts.sum(0)

    def profile(weights: np.ndarray, which: int) -> np.ndarray:
        """`[..., clusters]` -> `[..., places]`; what a draw has no value of is as it is overall."""
        found = weights @ counts
        return np.where(found > 0, (weights @ totals[which]) / np.maximum(found, 1), overall[which])

    whole = np.ones(shape[0])
    rank, sign = (float(of(profile(whole, 0), profile(whole, 1))) for of in (_rank, _sign))
    ends, halves = [(nan, nan)] * 2, [nan] * 2
    if level is not None:
        half = _halves(shape[0], splits, seed)
        for index, of in enumerate((_rank, _sign)):
            within = [float(np.mean(of(profile(half, which), profile(1 - half, which)))) for which in (0, 1)]
            halves[index] = min(within)
            if not np.isnan((rank, sign)[index]):
                low, high = _bootstrapped(of, profile, shape, confidence, resamples, seed)
                # draws have more noise than the measurement, and so agree a little less
                ends[index] = min(low, (rank, sign)[index]), max(high, (rank, sign)[index])
    return Agreement(shape[1], rank, *ends[0], halves[0], sign, *ends[1], halves[1], level, shape[0])


def _bootstrapped(
    of: Any, profile: Any, shape: tuple[int, int], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The percentile interval of a statistic of two profiles, from resampling clusters."""
    from scipy import stats

    def statistic(drawn: np.ndarray, axis: int) -> np.ndarray:
        weights = (drawn[..., None] == np.arange(shape[0])).sum(-2).astype(float)
        found: np.ndarray = np.nan_to_num(of(profile(weights, 0), profile(weights, 1)))  # no order: no agreement
        return found

    with np.errstate(all="ignore"):
        found = stats.bootstrap(
            (np.arange(shape[0]),),
            statistic,
            vectorized=True,
            n_resamples=resamples,
            batch=max(1, 2**22 // shape[0] ** 2),
            confidence_level=outward(confidence, shape[0]),
            method="percentile",
            rng=integer(seed, "seed", 0),
        ).confidence_interval
    return float(found.low), float(found.high)


def _rank(first: np.ndarray, second: np.ndarray) -> Any:
    """Spearman's rank correlation of the last axes; NaN where one of them has no order."""
    from scipy.stats import rankdata

    if first.shape[-1] < 3:
        return np.full(first.shape[:-1], np.nan)
    ranks = [rankdata(x, axis=-1) for x in (first, second)]
    a, b = (x - x.mean(-1, keepdims=True) for x in ranks)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def _sign(first: np.ndarray, second: np.ndarray) -> Any:
    return (np.sign(first) == np.sign(second)).mean(-1)


def _halves(clusters: int, splits: int, seed: int) -> np.ndarray:
    """`[splits, clusters]`, one for the clusters of the first half."""
    splits, seed = integer(splits, "splits", 1), integer(seed, "seed", 0)
    order = np.random.default_rng(seed).random((splits, clusters)).argsort(1)
    return (order < clusters // 2).astype(float)
