"""Intervals and tests over seeds and over tasks: what a verdict rests on.

A unit is what was drawn independently: a seed where models of one seed are compared, a task where the statement is
about tasks. Intervals are bootstrap intervals over units (BCa, `scipy.stats.bootstrap`); tests of means flip the signs
of the units (`scipy.stats.permutation_test`), which supposes symmetry under the null hypothesis and no distribution.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fisherflat.errors import InputError

#: what a correlation is of: all models together, or with what tasks, or tasks and arms, have in common taken away
POOLINGS = ("pooled", "within task", "within task and arm", "task means")


@dataclass(frozen=True)
class Effect:
    """A mean over units and the evidence about it.

    **Attributes:** `value`; `low`, `high`, the interval at the confidence that was asked for; `units`, how many there
    are; `above` and `below`, functions of a threshold: the p value of "not above it", and of "not below it";
    `detectable`: the smallest effect that so many units with this spread would have shown in four of five experiments.
    """

    value: float
    low: float
    high: float
    units: int
    above: Callable[[float], float]
    below: Callable[[float], float]
    detectable: float


def nothing() -> Effect:
    """What is known where there are no units."""
    nan = math.nan
    return Effect(nan, nan, nan, 0, lambda threshold: 1.0, lambda threshold: 1.0, math.inf)


def over_units(values: Any, *, confidence: float = 0.95, resamples: int = 9999, seed: int = 0) -> Effect:
    """The mean of one number a unit, such as a paired difference a seed.

    **Args:** `values`, `[units]`, in any order; `confidence` of the interval; `resamples`, of bootstrap and of sign
    flips, with `seed`.

    **Returns:** an `Effect`; numbers that are not finite are left out.

    **Raises:** `InputError` where the values are no list of numbers.

    >>> from fisherflat.lab.claims._statistics import over_units
    >>> found = over_units([1.0, 2.0, 3.0, 2.5, 1.5, 2.0, 2.2, 1.8], resamples=999)
    >>> found.value, found.low > 1.5, found.above(0.0) < 0.01, found.above(2.0) > 0.3
    (2.0, True, True, True)
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise InputError(f"values must be numbers [units]; they have shape {list(x.shape)}")
    x = np.sort(x[np.isfinite(x)])  # so that a resample does not depend on the order of rows
    if len(x) == 0:
        return nothing()
    value = float(x.mean())
    settings = {"resamples": resamples, "seed": seed}
    low, high, _ = _interval(x, np.mean, confidence, **settings)
    return Effect(
        value,
        low,
        high,
        len(x),
        lambda threshold: _flipped(x - threshold, "greater", **settings),
        lambda threshold: _flipped(x - threshold, "less", **settings),
        detectable(float(x.std(ddof=1)), len(x), 1 - confidence) if len(x) > 1 else math.inf,
    )


def over_tasks(by_task: Any, *, confidence: float = 0.95) -> Effect:
    """The mean over tasks of their means over seeds, as of tasks that were drawn at random: Student's t over tasks.

    **Args:** `by_task`, for each task its numbers, one a seed.

    **Returns:** an `Effect` over tasks; those without any number are left out.

    >>> from fisherflat.lab.claims._statistics import over_tasks
    >>> found = over_tasks([[1.0, 3.0], [2.0], [4.0, 2.0]])
    >>> round(found.value, 3), found.units, found.low > 0.8
    (2.333, 3, True)
    """
    from scipy import stats

    numbers = [np.asarray(values, dtype=np.float64) for values in by_task]
    x = np.sort([values[np.isfinite(values)].mean() for values in numbers if np.isfinite(values).any()])
    if len(x) == 0:
        return nothing()
    if len(x) == 1 or np.ptp(x) == 0:
        return replace(nothing(), value=float(x[0]), units=len(x))

    low, high = stats.ttest_1samp(x, 0.0).confidence_interval(confidence)
    return Effect(
        float(x.mean()),
        float(low),
        float(high),
        len(x),
        lambda at: float(stats.ttest_1samp(x, at, alternative="greater").pvalue),
        lambda at: float(stats.ttest_1samp(x, at, alternative="less").pvalue),
        detectable(float(x.std(ddof=1)), len(x), 1 - confidence),
    )


def detectable(spread: float, units: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest mean of so many differences that a t test finds with this power (`statsmodels.stats.power`)."""
    from statsmodels.stats.power import TTestPower

    if spread == 0 or units < 3:
        return 0.0 if spread == 0 and units > 1 else math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return spread * float(TTestPower().solve_power(nobs=units, alpha=alpha, power=power))


def correlation_over_tasks(
    x: Any, y: Any, task: Any, arm: Any, *, pooling: str = "pooled", method: str = "spearman",
    confidence: float = 0.95, resamples: int = 1999, seed: int = 0,
) -> Effect:  # fmt: skip
    """A correlation of two measurements of many models, with the interval from resampling whole tasks.

    Models of one task are not independent, so that tasks are the units. p values are those of a t distribution with the
    bootstrap's standard error and one degree of freedom less than there are tasks.

    **Args:** `x`, `y`, `task`, `arm`: `[models]`; `pooling`, one of `POOLINGS`: within tasks (and arms) it is the mean
    of the correlations in each; `method`, `"spearman"` or `"pearson"`.

    **Returns:** an `Effect` over tasks; models where one of the two is not finite are left out.

    **Raises:** `InputError` for another pooling or method.
    """
    from scipy import stats

    if pooling not in POOLINGS:
        raise InputError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}")
    if method not in ("spearman", "pearson"):
        raise InputError(f"method must be 'spearman' or 'pearson', got {method!r}")
    a, b = (np.asarray(values, dtype=np.float64) for values in (x, y))
    finite = np.isfinite(a) & np.isfinite(b)
    names, where = np.unique(np.asarray(task, dtype=str)[finite], return_inverse=True)
    statistic = _of_tasks(a[finite], b[finite], where, np.asarray(arm, dtype=str)[finite], len(names), pooling, method)
    if len(names) < 2:
        return nothing()
    every = np.arange(len(names))
    value = float(statistic(every[None])[0])
    if math.isnan(value):
        return nothing()
    low, high, error = _interval(every, statistic, confidence, resamples=resamples, seed=seed)
    law = stats.t(len(names) - 1)

    def p(threshold: float, sign: float) -> float:
        away = sign * (value - threshold)
        if not error > 0:
            return 0.0 if away > 0 and error == 0 else 1.0
        return float(law.sf(away / error))

    return Effect(
        value, low, high, len(names), lambda at: p(at, 1.0), lambda at: p(at, -1.0),
        detectable(error * len(names) ** 0.5, len(names), 1 - confidence) if error > 0 else math.inf,
    )  # fmt: skip


def compared(first: Any, second: Any) -> np.ndarray:
    """1 where the first is larger, −1 where smaller, 0 where both agree to nine digits; NaN where one is unknown."""
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    with np.errstate(invalid="ignore"):
        same = np.abs(a - b) <= 1e-9 * np.maximum(np.abs(a), np.abs(b))
        found: np.ndarray = np.where(np.isfinite(a) & np.isfinite(b), np.where(same, 0.0, np.sign(a - b)), np.nan)
    return found


def mixed_model(accuracy: Any, measure: Any, task: Any, arm: Any) -> tuple[float, float, float]:
    """How much accuracy goes with one standard deviation more of a measure, in the same arm.

    A linear mixed model (`statsmodels`, REML) of the accuracy, on the normal scores of the measure and the arm, in
    which each task has a level and a slope of its own.

    **Returns:** the coefficient with the ends of its 95 % interval, in the unit of the accuracy; NaN where it cannot be
    fitted.
    """
    import pandas as pd
    import statsmodels.formula.api as smf
    from scipy import stats

    frame = pd.DataFrame({"y": accuracy, "x": measure, "task": np.asarray(task, str), "arm": np.asarray(arm, str)})
    frame = frame[np.isfinite(frame["x"]) & np.isfinite(frame["y"])].reset_index(drop=True)
    nan = (math.nan, math.nan, math.nan)
    if frame["task"].nunique() < 3 or frame["x"].nunique() < 3:
        return nan
    frame["x"] = stats.norm.ppf((stats.rankdata(frame["x"]) - 0.5) / len(frame))
    formula = "y ~ x + C(arm)" if frame["arm"].nunique() > 1 else "y ~ x"
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            fit = smf.mixedlm(formula, frame, groups=frame["task"], re_formula="~x").fit(method="lbfgs")
            low, high = fit.conf_int().loc["x"]
        except (np.linalg.LinAlgError, ValueError):
            return nan
    return float(fit.params["x"]), float(low), float(high)


def _interval(
    units: np.ndarray, statistic: Callable[..., Any], confidence: float, *, resamples: int, seed: int
) -> tuple[float, float, float]:
    """The bootstrap interval of a statistic of some units, and its standard error."""
    from scipy import stats

    if len(units) == 1:
        return math.nan, math.nan, math.nan
    if np.ptp(units) == 0:
        return float(units[0]), float(units[0]), 0.0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = stats.bootstrap(
            (units,), statistic, vectorized=True, n_resamples=resamples, batch=256, confidence_level=confidence,
            method="BCa", rng=np.random.default_rng(seed),
        )  # fmt: skip
    low, high = map(float, found.confidence_interval)
    drawn = found.bootstrap_distribution[np.isfinite(found.bootstrap_distribution)]
    if math.isnan(low) or math.isnan(high):  # the correction for bias has no value where draws agree
        tail = 50 * (1 - confidence)
        low, high = map(float, np.percentile(drawn, [tail, 100 - tail])) if len(drawn) else (math.nan, math.nan)
    return low, high, float(drawn.std(ddof=1)) if len(drawn) > 1 else math.nan


def _flipped(x: np.ndarray, alternative: str, resamples: int, seed: int) -> float:
    """The p value of the mean where each unit may as well have had the other sign."""
    from scipy import stats

    if not x.any():
        return 1.0
    found = stats.permutation_test(
        (x,), lambda values, axis: np.mean(values, axis=axis), permutation_type="samples", vectorized=True,
        n_resamples=resamples, alternative=alternative, rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)


def _of_tasks(
    x: np.ndarray, y: np.ndarray, task: np.ndarray, arm: np.ndarray, tasks: int, pooling: str, method: str
) -> Callable[..., Any]:
    """The correlation as a function of the tasks that are drawn, `[..., draws]` -> `[...]`."""
    if pooling in ("pooled", "task means"):
        where = task
        if pooling == "task means":
            counts = np.bincount(task, minlength=tasks)
            x, y = (np.bincount(task, values, minlength=tasks) / counts for values in (x, y))
            where = np.arange(tasks)

        def weighted(drawn: np.ndarray, axis: int = -1) -> Any:
            times = (np.moveaxis(drawn, axis, -1)[..., None] == np.arange(tasks)).sum(-2).astype(float)
            return _weighted(x, y, times[..., where], method)

        return weighted
    keys = task if pooling == "within task" else np.unique(np.char.add(task.astype(str), arm), return_inverse=True)[1]
    one: list[list[float]] = [[] for _ in range(tasks)]
    for key in np.unique(keys):
        chosen = keys == key
        one[task[chosen][0]].append(float(_weighted(x[chosen], y[chosen], np.ones(chosen.sum()), method)))
    each = np.array([np.nanmean(found) if np.isfinite(found).any() else np.nan for found in one])

    def mean(drawn: np.ndarray, axis: int = -1) -> Any:
        values = each[np.moveaxis(drawn, axis, -1)]
        known = np.isfinite(values)
        with np.errstate(invalid="ignore"):
            return np.where(known, values, 0.0).sum(-1) / known.sum(-1)

    return mean


def _weighted(x: np.ndarray, y: np.ndarray, weights: np.ndarray, method: str) -> Any:
    """A correlation in which each pair counts as often as its weight says, `[..., pairs]` -> `[...]`."""
    given = [_ranks(v, weights) if method == "spearman" else np.broadcast_to(v, weights.shape) for v in (x, y)]
    total = weights.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (values - ((weights * values).sum(-1) / total)[..., None] for values in given)
        squares = [(weights * centred * centred).sum(-1) for centred in (a, b)]
        # what differs by rounding alone is constant, and has no correlation
        sizes = (np.where(weights > 0, np.abs(values), 0.0).max(-1) for values in given)
        least = [total * (16 * np.finfo(float).eps * size) ** 2 for size in sizes]
        enough = (squares[0] > least[0]) & (squares[1] > least[1])
        return np.where(enough, (weights * a * b).sum(-1) / np.sqrt(squares[0] * squares[1]), np.nan)


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean ranks of values that are there as often as their weights say."""
    distinct, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(distinct)))
    held = np.add.reduceat(weights[..., order], starts, axis=-1)
    ranks = np.cumsum(held, -1) - held / 2
    return ranks[..., group]
