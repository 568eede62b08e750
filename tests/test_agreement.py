"""Agreement of profiles and the noise floor of halves, against simulations with known effect and with none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import fisherflat as ff
from fisherflat.errors import InputError


def simulated(
    rng: np.random.Generator, effect: np.ndarray, clusters: int, spread: float = 1.0, noise: float = 0.3
) -> dict[str, np.ndarray]:
    """Two measurements of places: a shared part that varies from cluster to cluster, and noise of each alone."""
    places = len(effect)
    shared = rng.normal(0, spread, (clusters, 1)) + np.linspace(-2, 2, places)
    first, second = (shared + rng.normal(0, noise, (clusters, places)) for _ in range(2))
    prompt, place = np.divmod(np.arange(clusters * places), places)
    return {"first": first.ravel(), "second": (second + effect).ravel(), "place": place, "prompt": prompt}


def test_the_floor_is_what_theory_says_of_independent_halves() -> None:
    """For n independent clusters of variance s², halves differ with variance 4 s² / n."""
    rng = np.random.default_rng(0)
    found = [ff.statistics.noise_floor(rng.normal(5.0, 2.0, 40), prompt=range(40)) for _ in range(50)]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(np.sqrt(4 * 2.0**2 / 40), rel=0.1)


def test_a_difference_of_nothing_lies_near_the_floor_and_a_known_one_above() -> None:
    rng, below, above = np.random.default_rng(1), 0, 0
    for _ in range(60):
        first, second = rng.normal(0, 1, (2, 24))
        floor = max(ff.statistics.noise_floor(x, prompt=range(24), splits=100) for x in (first, second))
        below += abs(first.mean() - second.mean()) <= 1.96 * floor / np.sqrt(2)
        above += abs(first.mean() - second.mean() - 2.0) > 1.96 * floor / np.sqrt(2)
    assert below >= 52 and above == 60


def test_the_floor_of_equal_values_is_zero_and_of_one_cluster_unknown() -> None:
    assert ff.statistics.noise_floor([2.0] * 6, prompt=[0, 0, 1, 1, 2, 2]) == 0
    assert np.isnan(ff.statistics.noise_floor([1.0]))
    assert np.isnan(ff.statistics.noise_floor([float("nan")] * 3))


def test_intervals_of_paired_differences_cover_the_truth() -> None:
    """Of the mean, as often as they say; what both measurements share cancels."""
    rng, covered, excluded = np.random.default_rng(2), 0, 0
    for _ in range(200):
        data = simulated(rng, np.full(1, 0.5), clusters=12)
        found = ff.statistics.estimate(data["second"] - data["first"], data["prompt"], resamples=500)
        covered += found.low <= 0.5 <= found.high
        excluded += found.low > 0
    assert 180 <= covered <= 199 and excluded > 190


def test_agreement_is_spearmans_and_the_share_of_signs_of_the_mean_profiles() -> None:
    rng = np.random.default_rng(3)
    data = simulated(rng, rng.normal(0, 2, 7), clusters=9)
    found = ff.statistics.agreement(data["first"], data["second"], data["place"], data["prompt"], resamples=300)
    means = [data[name].reshape(9, 7).mean(0) for name in ("first", "second")]
    assert found.rank == pytest.approx(stats.spearmanr(*means).statistic)
    assert found.sign == pytest.approx(np.mean(np.sign(means[0]) == np.sign(means[1])))
    assert found.rank_low <= found.rank <= found.rank_high and found.sign_low <= found.sign <= found.sign_high
    assert (found.places, found.level, found.clusters) == (7, "prompt", 9)


def test_halves_agree_as_well_as_two_measurements_of_the_same() -> None:
    """Without an effect the agreement of halves tells what to expect; with another order it is far above."""
    rng, same, other, halves = np.random.default_rng(4), [], [], []
    for _ in range(20):
        data = simulated(rng, np.zeros(8), clusters=20, noise=3.0)
        found = ff.statistics.agreement(
            data["first"], data["second"], data["place"], data["prompt"], resamples=20, splits=50
        )
        same.append(found.rank)
        halves.append(found.rank_of_halves)
        data = simulated(rng, -2 * np.linspace(-2, 2, 8), clusters=20, noise=3.0)
        other.append(ff.statistics.agreement(data["first"], data["second"], data["place"], data["prompt"]).rank)
    # halves have half the clusters, and so agree a little less; the smaller of two is taken
    assert np.mean(halves) - 0.05 <= np.mean(same) <= np.mean(halves) + 0.3
    assert np.mean(other) < -0.5


def test_what_has_no_order_has_no_rank() -> None:
    flat = ff.statistics.agreement([0.0] * 4, [1.0, 2.0, 3.0, 4.0], [0, 1, 2, 3])
    assert np.isnan(flat.rank) and flat.sign == 0 and flat.level is None and np.isnan(flat.sign_low)
    two = ff.statistics.agreement([0.0, 1.0], [0.0, 2.0], [0, 1])
    assert np.isnan(two.rank) and two.sign == 1
    none = ff.statistics.agreement([float("nan")], [1.0], [0])
    assert none.places == 0 and np.isnan(none.sign)


def test_missing_values_leave_the_pairs_that_are_there() -> None:
    first = [1.0, 2.0, 3.0, float("nan"), 1.5, 2.5, 3.5, 9.0]
    second = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, float("nan"), 9.0]
    place, prompt = [0, 1, 2, 3] * 2, [0] * 4 + [1] * 4
    found = ff.statistics.agreement(first, second, place, prompt)
    assert found.places == 4 and found.rank == 1 and found.sign == 1


@pytest.mark.parametrize(
    "change",
    [{"second": [1.0]}, {"place": [0]}, {"prompt": [0]}, {"first": "ab"}, {"confidence": 1.0}, {"resamples": 0}],
)
def test_wrong_input(change: dict[str, object]) -> None:
    good = {"first": [1.0, 2.0], "second": [1.0, 2.0], "place": [0, 1], "prompt": [0, 1]}
    with pytest.raises(InputError):
        ff.statistics.agreement(**good | change)  # type: ignore[arg-type]
