"""Whether pairs are more alike than others, against data with a known effect and with none."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats

import fisherflat as ff
from fisherflat.errors import InputError

PAIRS = [(i, i + 6) for i in range(6)]


def profiles(effect: float, seed: int) -> np.ndarray:
    """Twelve profiles; the two of a pair share a part of weight `effect`."""
    drawn = np.random.default_rng(seed)
    shared, own = drawn.normal(size=(6, 15)), drawn.normal(size=(12, 15))
    return effect * np.concatenate([shared, shared]) + own


def test_without_an_effect_p_is_uniform() -> None:
    ps = [ff.statistics.pair_test(profiles(0.0, seed), PAIRS, resamples=199).p for seed in range(200)]
    assert stats.kstest(ps, "uniform").pvalue > 0.001
    assert 0.01 <= np.mean(np.array(ps) <= 0.05) <= 0.10


def test_a_known_effect_is_found_and_has_its_size() -> None:
    found = [ff.statistics.pair_test(profiles(1.0, seed), PAIRS, resamples=999) for seed in range(100)]
    assert np.mean([one.p < 0.05 for one in found]) > 0.9
    # the correlation of the two of a pair is 1 / 2, that of others 0, so that distances differ by 1 / 2
    assert np.mean([one.difference for one in found]) == pytest.approx(-0.5, abs=0.1)
    assert np.mean([one.low <= -0.5 <= one.high for one in found]) > 0.85


def test_distances_and_noise_are_those_by_hand() -> None:
    x = profiles(1.0, 3)
    found = ff.statistics.pair_test(x, PAIRS, distance="rank", resamples=2000)
    apart = {pair: 1 - stats.spearmanr(x[pair[0]], x[pair[1]]).statistic for pair in combinations(range(12), 2)}
    assert found.within == pytest.approx(np.mean([apart[pair] for pair in PAIRS]))
    assert found.between == pytest.approx(np.mean([d for pair, d in apart.items() if pair not in PAIRS]))
    assert found.difference == pytest.approx(found.within - found.between)
    drawn, null = np.random.default_rng(5), []
    for _ in range(2000):
        order = drawn.permutation(12)
        own = [apart[min(order[a], order[b]), max(order[a], order[b])] for a, b in PAIRS]
        null.append(np.mean(own) - (sum(apart.values()) - sum(own)) / (len(apart) - 6))
    assert found.noise == pytest.approx(np.std(null), rel=0.1)
    assert found.p == pytest.approx((np.sum(np.array(null) <= found.difference) + 1) / 2001, abs=0.02)


def test_it_does_not_depend_on_the_order_of_labels() -> None:
    import pandas as pd

    table = pd.DataFrame(profiles(1.0, 1), index=list("abcdefghijkl"))
    named = ff.statistics.pair_test(table, [(table.index[a], table.index[b]) for a, b in PAIRS])
    again = ff.statistics.pair_test(table.iloc[::-1], [(table.index[b], table.index[a]) for a, b in PAIRS])
    assert named.difference == pytest.approx(again.difference) and abs(named.p - again.p) < 0.02


@pytest.mark.parametrize(
    ("given", "pairs", "message"),
    [
        (profiles(0, 0), [], "no pairs"),
        (profiles(0, 0), [(0, 99)], "no profile 99"),
        (profiles(0, 0), [(0, 0)], "two different"),
        (profiles(0, 0), [(0, 1), (1, 2)], "in two pairs"),
        (profiles(0, 0), [(0, 1, 2)], "two different"),
        (profiles(0, 0), 3, "two labels each"),
        (profiles(0, 0)[:2], [(0, 1)], "no other"),
        (profiles(0, 0)[0], [(0, 1)], "shape"),
        ([["a"], ["b"]], [(0, 1)], "must be numbers"),
        (np.full((4, 3), np.nan), [(0, 1)], "not finite"),
        (np.ones((4, 3)), [(0, 1)], "no distance"),
    ],
)
def test_bad_input_is_named(given: Any, pairs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ff.statistics.pair_test(given, pairs)


def test_holm_steps_down() -> None:
    """By hand: 6 x 0.001; 5 x 0.011; 4 x 0.012, less than the one before; 3 x 0.04; 2 x 0.2; 0.9."""
    given = [0.001, 0.2, 0.012, 0.04, 0.011, 0.9]
    assert ff.statistics.holm(given).tolist() == pytest.approx([0.006, 0.4, 0.055, 0.12, 0.055, 0.9])


@pytest.mark.parametrize("given", [[1.5], [-0.1], [[0.1]], ["a"], [float("nan")]])
def test_what_is_no_p_value_is_refused(given: Any) -> None:
    with pytest.raises(InputError):
        ff.statistics.holm(given)
