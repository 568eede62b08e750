"""Intervals cover as often as they say, and correlations are those of scipy, pooled or not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from fisherflat.errors import InputError
from fisherflat.lab.claims._statistics import POOLINGS, correlation_over_tasks, mixed_model, over_tasks, over_units


@pytest.mark.parametrize("law", ["normal", "skewed"])
def test_intervals_over_seeds_cover(law: str) -> None:
    rng, draws = np.random.default_rng(0), 400
    sample = rng.normal(size=(draws, 20)) if law == "normal" else rng.exponential(size=(draws, 20)) - 1
    covered = sum(found.low <= 0 <= found.high for found in (over_units(x, resamples=499) for x in sample))
    assert 0.88 < covered / draws < 0.98  # a bootstrap of 20 skewed values covers a little less than it says


def test_p_values_are_the_share_of_all_sign_flips_that_are_as_large() -> None:
    x = np.random.default_rng(1).normal(0.3, 1.0, size=10)
    signs = np.array(list(itertools.product([1, -1], repeat=10)))
    found = over_units(x)
    for threshold in (0.0, 0.5):
        flipped = (signs * (x - threshold)).mean(1)
        assert found.above(threshold) == pytest.approx((flipped >= (x - threshold).mean() - 1e-12).mean(), abs=1e-9)
        assert found.below(threshold) == pytest.approx((flipped <= (x - threshold).mean() + 1e-12).mean(), abs=1e-9)


def test_values_that_all_agree_have_a_point_for_an_interval_and_no_chance_to_be_another() -> None:
    found = over_units([0.5] * 10)
    assert (found.value, found.low, found.high, found.detectable) == (0.5, 0.5, 0.5, 0.0)
    assert found.above(0.0) == pytest.approx(2.0**-10) and found.above(0.5) == 1.0


def test_over_tasks_the_interval_is_that_of_a_t_test_of_their_means() -> None:
    rng = np.random.default_rng(0)
    tasks = [rng.normal(shift, 0.1, size=8) for shift in (0.1, 0.3, 0.2, 0.6)]
    found = over_tasks(tasks)
    means = [task.mean() for task in tasks]
    law = stats.t(3, np.mean(means), np.std(means, ddof=1) / 2)
    assert (found.low, found.high) == pytest.approx(law.interval(0.95))


def many(rng: np.random.Generator, tasks: int = 8, arms: int = 3, seeds: int = 10):
    task = np.repeat(np.arange(tasks), arms * seeds)
    arm = np.tile(np.repeat(np.arange(arms), seeds), tasks)
    return task, arm, rng.normal(size=len(task))


@pytest.mark.parametrize("method", ["spearman", "pearson"])
def test_correlations_are_those_of_scipy_at_every_level(method: str) -> None:
    rng = np.random.default_rng(0)
    task, arm, x = many(rng)
    y = np.round(x + rng.normal(size=len(x)) + task, 1)  # with ties
    of = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[method]
    found = {
        pooling: correlation_over_tasks(x, y, task, arm, pooling=pooling, method=method, resamples=99).value
        for pooling in POOLINGS
    }
    within = [of(x[task == t], y[task == t]).statistic for t in range(8)]
    both = [of(x[(task == t) & (arm == a)], y[(task == t) & (arm == a)]).statistic for t in range(8) for a in range(3)]
    means = [[values[task == t].mean() for t in range(8)] for values in (x, y)]
    expected = [of(x, y).statistic, np.mean(within), np.mean(both), of(*means).statistic]
    assert list(found.values()) == pytest.approx(expected, abs=1e-12)


def test_pooling_over_tasks_turns_the_sign_and_the_levels_show_it() -> None:
    """Simpson's paradox, put in: within each task it falls, from task to task both rise."""
    rng = np.random.default_rng(0)
    task, arm, noise = many(rng)
    x = task + 0.3 * noise
    y = task - 0.3 * noise + 0.05 * rng.normal(size=len(x))
    found = {p: correlation_over_tasks(x, y, task, arm, pooling=p) for p in POOLINGS}
    assert found["pooled"].low > 0.5 and found["task means"].value > 0.9
    assert found["within task"].high < -0.8 and found["within task and arm"].high < -0.8


def test_tasks_that_differ_do_not_make_a_correlation_of_many_models_certain() -> None:
    """300 models that are independent within 10 tasks: the pooled interval must not be that of 300 points."""
    hits, draws = 0, 200
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        task, arm, x = many(rng, 10)
        x, y = x * 0.3 + rng.normal(size=10)[task], 0.3 * rng.normal(size=len(x)) + rng.normal(size=10)[task]
        found = correlation_over_tasks(x, y, task, arm, resamples=299)
        hits += 2 * min(found.above(0.0), found.below(0.0)) < 0.05
    assert hits / draws < 0.12


def test_a_stretch_of_the_measure_that_keeps_its_order_leaves_spearman_and_changes_pearson() -> None:
    rng = np.random.default_rng(0)
    task, arm, x = many(rng)
    y = x + rng.normal(size=len(x))
    values = {
        method: [
            correlation_over_tasks(given, y, task, arm, method=method, resamples=99).value
            for given in (x, np.exp(3 * x))
        ]
        for method in ("spearman", "pearson")
    }
    assert values["spearman"][0] == pytest.approx(values["spearman"][1], abs=1e-12)
    assert values["pearson"][1] < values["pearson"][0] - 0.3


def test_the_mixed_model_finds_the_slope_that_was_put_in() -> None:
    rng = np.random.default_rng(0)
    task, arm, x = many(rng)
    y = 2.0 * x + 3.0 * arm + task + rng.normal(size=len(x))
    value, low, high = mixed_model(y, x, task, arm)
    assert low < 2.0 < high and abs(value - 2.0) < 0.2
    assert not np.isfinite(mixed_model(y, np.zeros(len(x)), task, arm)).any()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="pooling"):
        correlation_over_tasks([1.0], [1.0], [0], [0], pooling="all")
    with pytest.raises(InputError, match="method"):
        correlation_over_tasks([1.0], [1.0], [0], [0], method="kendall")
    with pytest.raises(InputError, match="numbers"):
        over_units([[1.0]])
