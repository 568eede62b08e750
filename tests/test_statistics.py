"""Means and intervals over points, positions and prompts, against closed forms and simulated truth."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from fisherflat.errors import InputError
from fisherflat.statistics import Estimate, by_group, differences, estimate

NAN = float("nan")


def nested(prompts: int, positions: int, points: int, seed: int, sd: tuple[float, float, float]) -> pd.DataFrame:
    """Values with a part that belongs to the prompt, one to the position and one to the point; their mean is 1."""
    rng = np.random.default_rng(seed)
    of_prompt = rng.normal(0, sd[0], (prompts, 1, 1))
    of_position = rng.normal(0, sd[1], (prompts, positions, 1))
    values = 1 + of_prompt + of_position + rng.normal(0, sd[2], (prompts, positions, points))
    index = pd.MultiIndex.from_product(
        [range(prompts), range(positions), range(points)], names=["prompt", "position", "point"]
    )
    return pd.DataFrame({"scalar_curvature": values.reshape(-1)}, index=index).reset_index()


def test_the_interval_of_many_independent_values_is_that_of_the_t_distribution() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 5000)
    found = estimate(values)
    low, high = stats.t.interval(0.95, 4999, loc=values.mean(), scale=stats.sem(values))
    half = (high - low) / 2
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.08 * half)
    assert (found.count, found.missing, found.level, found.clusters) == (5000, 0, "point", 5000)


def test_mean_and_spread_are_those_of_pandas() -> None:
    values = pd.Series(np.random.default_rng(2).lognormal(size=37))
    found, said = estimate(values), values.describe()
    ours = [found.count, found.mean, found.sd, found.q1, found.median, found.q3]
    assert ours == pytest.approx(said[["count", "mean", "std", "25%", "50%", "75%"]].tolist(), rel=1e-14)


def test_points_of_the_same_prompt_do_not_narrow_the_interval() -> None:
    """All spread is between prompts: the interval is that of the prompts' means, however many points there are."""
    table = nested(12, 2, 40, seed=3, sd=(1.0, 0.0, 1e-6))
    found = estimate(table.scalar_curvature, table.prompt, table.position)
    means = table.groupby("prompt").scalar_curvature.mean()
    low, high = stats.t.interval(0.95, 11, loc=means.mean(), scale=stats.sem(means))
    assert (found.level, found.clusters) == ("prompt", 12)
    assert found.high - found.low == pytest.approx(high - low, rel=0.2)
    naive = estimate(table.scalar_curvature)
    assert found.high - found.low > 5 * (naive.high - naive.low)


def test_the_interval_of_a_median_is_that_of_medians_of_resampled_clusters() -> None:
    """Against resampling by hand, which puts the values of the clusters that were drawn side by side."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 7, 9)
    cluster = np.repeat(np.arange(9), sizes)
    values = rng.standard_cauchy(len(cluster))  # which has no mean
    found = estimate(values, cluster.tolist(), statistic="median", confidence=0.8, resamples=20_000)
    drawn = rng.integers(0, 9, (20_000, 9))
    medians = [np.median(np.concatenate([values[cluster == c] for c in row])) for row in drawn]
    outward = stats.norm.cdf(stats.t.ppf(0.9, 8) * (9 / 8) ** 0.5)
    low, high = np.quantile(medians, [1 - outward, outward])
    near = np.quantile(medians, [1 - outward - 0.01, 1 - outward + 0.01, outward - 0.01, outward + 0.01])
    assert near[0] <= found.low <= near[1] and near[2] <= found.high <= near[3] and low < high
    assert found.value == found.median == np.median(values) and str(found).startswith("median ")


def test_the_interval_of_a_median_covers_it_and_a_mean_of_such_values_nothing() -> None:
    covered = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = 1 + rng.standard_cauchy((15, 1)) + 0.1 * rng.standard_cauchy((15, 4))
        found = estimate(values.ravel(), np.repeat(range(15), 4).tolist(), statistic="median", resamples=400)
        covered.append(found.low <= 1 <= found.high)
    assert sum(covered) >= 184  # of 95 % 190 are expected, with a standard deviation of 3


def test_groups_by_their_median() -> None:
    table = nested(6, 2, 3, seed=1, sd=(1.0, 1.0, 1.0)).assign(layer=lambda rows: rows.prompt % 2)
    found = by_group(table, ["layer"], statistic="median").set_index("layer")
    for layer, rows in table.groupby("layer"):
        alone = estimate(rows.scalar_curvature, rows.prompt.tolist(), rows.position.tolist(), statistic="median")
        assert tuple(found.loc[layer, ["median", "low", "high"]]) == (alone.median, alone.low, alone.high)
    with pytest.raises(InputError, match='statistic must be "mean" or "median"'):
        by_group(table, ["layer"], statistic="mode")


@pytest.mark.parametrize(("prompts", "sufficient"), [(3, 0.65), (10, 0.9)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(prompts: int, sufficient: float) -> None:
    """The coverage that docs/charts.md states; of three clusters no bootstrap covers more than three quarters."""
    covered, rng, prompt = 0, np.random.default_rng(9), np.repeat(range(prompts), 4)
    for seed in range(250):
        values = rng.normal(1, 1, prompts)[prompt] + rng.normal(0, 0.5, len(prompt))
        found = estimate(values, prompt, resamples=500, seed=seed)
        covered += found.low <= 1 <= found.high
    assert sufficient < covered / 250 < 0.99


def test_what_the_interval_is_over_is_said() -> None:
    one_prompt = nested(1, 6, 4, seed=4, sd=(1.0, 1.0, 1.0))
    found = estimate(one_prompt.scalar_curvature, one_prompt.prompt, one_prompt.position)
    assert (found.level, found.clusters) == ("position", 6)
    assert str(found).endswith("over 6 positions of a single prompt)") and "95 % interval" in str(found)

    one_chart = nested(1, 1, 9, seed=5, sd=(1.0, 1.0, 1.0))
    found = estimate(one_chart.scalar_curvature, one_chart.prompt, one_chart.position)
    assert (found.level, found.clusters) == ("point", 9)

    few = estimate([1.0, 2.0, 6.0], prompt=["a", "b", "c"])
    assert str(few) == f"3 ({few.low:.3g} to {few.high:.3g} over 3 prompts, too few for a 95 % interval)"
    assert few.low >= 1 and few.high <= 6

    single = estimate([2.5])
    assert single.level is None and math.isnan(single.low) and math.isnan(single.sd)
    assert str(single) == "2.5 (a single value)"


def test_what_could_not_be_measured_is_left_out_and_counted() -> None:
    values, prompt = [1.0, NAN, 3.0, NAN, 8.0], [0, 0, 1, 2, 3]
    found, without = estimate(values, prompt), estimate([1.0, 3.0, 8.0], [0, 1, 3])
    assert (found.count, found.missing, found.clusters) == (3, 2, 3)
    assert (found.mean, found.low, found.high) == (without.mean, without.low, without.high)
    nothing = estimate([NAN, NAN], [0, 1])
    assert (nothing.count, nothing.missing, nothing.level) == (0, 2, None)
    assert math.isnan(nothing.mean) and str(nothing) == "nothing measured"


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = estimate([0.1] * 30, np.repeat(range(10), 3))
    assert (found.low, found.high) == (found.mean, found.mean) and found.mean == pytest.approx(0.1)


def test_an_interval_repeats_with_its_seed_and_scales_with_the_values() -> None:
    table = nested(7, 3, 5, seed=6, sd=(1.0, 1.0, 1.0))
    first = estimate(table.scalar_curvature, table.prompt, seed=1)
    again, other = (estimate(table.scalar_curvature, table.prompt, seed=seed) for seed in (1, 2))
    assert (again.low, again.high) == pytest.approx((first.low, first.high), rel=1e-12)
    assert (other.low, other.high) != pytest.approx((first.low, first.high))
    scaled = estimate(-4 * table.scalar_curvature + 1, table.prompt, seed=1)
    assert (scaled.high, scaled.low) == pytest.approx((-4 * first.low + 1, -4 * first.high + 1), rel=2e-2)


def test_groups_of_a_table() -> None:
    parts = [nested(5, 2, 3, seed, sd=(1.0, 1.0, 1.0)).assign(layer=seed, part="mlp") for seed in (0, 1)]
    parts[1] = parts[1].assign(position=pd.array([None] * len(parts[1]), dtype="Int64"))  # of whole sequences
    found = by_group(pd.concat(parts), ["layer", "part"])
    assert list(found.columns[:2]) == ["layer", "part"] and list(found.layer) == [0, 1]
    for row, part in zip(found.itertuples(), parts, strict=True):
        assert row.mean == pytest.approx(part.scalar_curvature.mean()) and row.level == "prompt" and row.clusters == 5


def test_paired_differences_cancel_what_both_readings_share() -> None:
    """Prompts differ by 100, the gate's effect by 0.1: only the paired difference shows it."""
    shared = nested(10, 2, 4, seed=7, sd=(100.0, 1.0, 1.0)).assign(layer=0)
    effect = np.random.default_rng(8).normal(0.5, 0.1, len(shared))
    held = shared.assign(reading="frozen pattern+gate")
    live = shared.assign(reading="frozen pattern", scalar_curvature=shared.scalar_curvature + effect)
    table = pd.concat([held.sample(frac=1, random_state=0), live])
    table.loc[(table.reading == "frozen pattern") & (table.prompt == 9), "scalar_curvature"] = NAN
    gap = differences(table, "frozen pattern", "frozen pattern+gate")
    assert len(gap) == 80 and "scalar_curvature" in gap
    found = by_group(gap, ["layer"]).iloc[0]
    kept = effect[: 9 * 8]
    assert found["mean"] == pytest.approx(kept.mean(), rel=1e-9)
    assert (found["count"], found["missing"], found["level"], found["clusters"]) == (72, 8, "prompt", 9)
    assert 0.4 < found["low"] < found["high"] < 0.6


def test_bad_input() -> None:
    with pytest.raises(InputError, match="3 values and 2 entries of prompt"):
        estimate([1.0, 2.0, 3.0], [0, 1])
    table = pd.DataFrame({"reading": ["live"], "scalar_curvature": [1.0], "layer": [0]})
    with pytest.raises(InputError, match="no column 'head'"):
        by_group(table, ["head"])
    with pytest.raises(InputError, match="no rows with reading 'frozen pattern'"):
        differences(table, "live", "frozen pattern")
    assert Estimate.__dataclass_fields__.keys() >= {"low", "high", "level"}
