"""Whether given pairs are more alike than others: a permutation test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fisherflat._arrays import integer
from fisherflat._display import displayed
from fisherflat.errors import InputError
from fisherflat.statistics._estimate import outward


@displayed
@dataclass(frozen=True)
class PairTest:
    """How much more alike given pairs of profiles are than other pairs; see `pair_test`.

    **Attributes:**

    - `pairs`, `others`: how many there are of each.
    - `within`, `between`: the mean distance of the pairs, and of all others.
    - `difference`: `within - between`, negative where pairs are more alike; `low`, `high`: its bootstrap interval over
      pairs, NaN for a single one.
    - `noise`: the standard deviation of the difference where labels are permuted: what chance alone gives.
    - `p`: how often permuted labels give a difference as small or smaller.
    """

    pairs: int
    others: int
    within: float
    between: float
    difference: float
    low: float
    high: float
    noise: float
    p: float


def pair_test(
    profiles: Any,
    pairs: Any,
    *,
    distance: str = "correlation",
    resamples: int = 9999,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairTest:
    """Whether given pairs of profiles are more alike than the others, such as paraphrases than other sentences.

    The labels of the profiles are permuted (`scipy.stats.permutation_test`): who is whose partner is drawn at random,
    while the distances stay. The interval is a percentile interval from resampling the pairs.

    **Args:**

    - `profiles`: `[m, p]`, or a table with a row for each, such as `Analysis.profiles`.
    - `pairs`: two rows each, by their label in a table, or by index; no row in two pairs.
    - `distance`: as `scipy.spatial.distance.pdist` has them; `"correlation"` is one minus Pearson's, `"rank"` one minus
      Spearman's.
    - `resamples`, of the permutations and of the bootstrap, with `seed`; `confidence` of the interval.

    **Returns:** a `PairTest`.

    **Raises:** `InputError` for profiles that are no numbers, or pairs that are none of them.

    >>> import numpy as np, fisherflat as ff
    >>> base = np.random.default_rng(0).normal(size=(6, 20))
    >>> found = ff.statistics.pair_test(np.concatenate([base, base + 0.1]), [(i, i + 6) for i in range(6)])
    >>> found.p < 0.01, found.difference < -0.5
    (True, True)
    """
    from scipy import stats
    from scipy.spatial.distance import pdist, squareform

    x, index = _profiles(profiles)
    chosen = _pairs(pairs, index)
    m = len(x)
    if m * (m - 1) // 2 == len(chosen):
        raise InputError("all profiles there are make one pair; there is no other to compare it with")
    if resamples < 1 or not 0 < confidence < 1:
        raise InputError(f"resamples are at least 1 and confidence between 0 and 1, got {resamples}, {confidence}")
    if distance == "rank":
        x, distance = stats.rankdata(x, axis=1), "correlation"
    try:
        apart = squareform(pdist(x, distance))
    except ValueError as error:
        raise InputError(f"distance must be one of scipy's, or 'rank', got {distance!r} ({error})") from error
    if not np.isfinite(apart).all():
        raise InputError("some profiles have no distance, as one that is the same everywhere has no correlation")
    total, others = apart.sum() / 2, m * (m - 1) // 2 - len(chosen)

    def difference(labels: np.ndarray, axis: int = -1) -> Any:
        """Of the pairs, where their members are the profiles `labels` `[..., m]`."""
        labels = np.moveaxis(labels, axis, -1).astype(int)
        own = apart[labels[..., chosen[:, 0]], labels[..., chosen[:, 1]]].sum(-1)
        return own / len(chosen) - (total - own) / others

    tested = stats.permutation_test(
        (np.arange(m),), difference, permutation_type="pairings", vectorized=True, n_resamples=resamples,
        alternative="less", rng=integer(seed, "seed", 0), batch=1000,
    )  # fmt: skip
    of_pairs = apart[chosen[:, 0], chosen[:, 1]]
    value = float(difference(np.arange(m)))
    between = float((total - of_pairs.sum()) / others)
    low = high = float("nan")
    if len(chosen) > 1:
        drawn = np.random.default_rng(integer(seed, "seed", 0)).integers(len(chosen), size=(resamples, len(chosen)))
        tail = (1 - outward(confidence, len(chosen))) / 2
        ends = np.quantile(of_pairs[drawn].mean(1), [tail, 1 - tail]) - between
        low, high = map(float, ends)
    noise = float(np.std(tested.null_distribution))
    return PairTest(len(chosen), others, float(of_pairs.mean()), between, value, low, high, noise, float(tested.pvalue))


def holm(p: Any) -> np.ndarray:
    """P values of several tests, corrected for their number, so that the chance of any false finding is kept.

    The method of Holm (*A simple sequentially rejective multiple test procedure*, Scand. J. Statist. 6, 1979).

    **Args:** `p`: `[m]`, between 0 and 1.

    **Returns:** `[m]`, in the same order.

    **Raises:** `InputError` for what is no list of p values.

    >>> import fisherflat as ff
    >>> [round(float(p), 3) for p in ff.statistics.holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    try:
        given = np.asarray(p, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"p values must be numbers [m] ({error})") from error
    if given.ndim != 1 or not ((given >= 0) & (given <= 1)).all():
        raise InputError("p values are numbers [m] between 0 and 1")
    order = np.argsort(given)
    stepped = np.maximum.accumulate((len(given) - np.arange(len(given))) * given[order])
    found = np.empty_like(given)
    found[order] = np.minimum(stepped, 1)
    return found


def _profiles(profiles: Any) -> tuple[np.ndarray, dict[Any, int]]:
    """The numbers `[m, p]`, and the row of each label."""
    labels = getattr(profiles, "index", None)
    try:
        x = np.asarray(profiles, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"profiles must be numbers [m, p] ({error})") from error
    if x.ndim != 2 or len(x) < 2 or x.shape[1] < 1:
        raise InputError(f"profiles must be numbers [m, p], at least two of them; they have shape {list(x.shape)}")
    if not np.isfinite(x).all():
        row = int((~np.isfinite(x)).any(1).argmax())
        raise InputError(f"profile {row} has entries that are not finite; leave out the places that it lacks")
    listed = list(range(len(x))) if labels is None or callable(labels) else list(labels)
    if len(set(listed)) < len(listed):
        raise InputError("some profiles have the same label; give an index that tells them apart")
    return x, {label: row for row, label in enumerate(listed)}


def _pairs(pairs: Any, index: dict[Any, int]) -> np.ndarray:
    try:
        given = [tuple(pair) for pair in pairs]
    except TypeError as error:
        raise InputError(f"pairs are a list of two labels each ({error})") from error
    if not given:
        raise InputError("there are no pairs; give at least one")
    used: set[Any] = set()
    for pair in given:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise InputError(f"a pair is two different profiles, got {pair!r}")
        for label in pair:
            if label not in index:
                raise InputError(f"there is no profile {label!r}; there are {', '.join(map(repr, list(index)[:8]))}")
            if label in used:
                raise InputError(f"profile {label!r} is in two pairs, which are not independent then")
            used.add(label)
    return np.array([[index[label] for label in pair] for pair in given])
