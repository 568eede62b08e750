"""Mean, spread and interval of a measurement over points, positions and prompts.

Points of one chart share its prompt and position, and positions share the prompt, so that they are not independent
samples of what a layer does. The interval comes from resampling whole clusters, of the highest level that has at least
two: prompts, else positions, else points. What it is over decides what it speaks about: an interval over prompts speaks
about other prompts, one over the positions of a single prompt does not.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fisherflat._arrays import integer, number
from fisherflat._display import Card, displayed
from fisherflat.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

#: from the highest level of clusters to the single measurement; columns of a table
LEVELS = ("prompt", "position", "point")
#: with fewer clusters a 95 % interval would have to reach beyond their range, and a bootstrap cannot
ENOUGH = 5
#: what an interval can be of
STATISTICS = ("mean", "median")
#: below them: the random planes of a single point, from which a curvature in all directions is estimated
_SPOKEN = {
    "plane": "random planes of a single point",
    "prompt": "prompts",
    "position": "positions of a single prompt",
    "point": "points of a single chart",
}


@displayed
@dataclass(frozen=True)
class Estimate:
    """A mean with its spread and its interval; see `estimate`.

    **Attributes:**

    - `count`: how many values there are; `missing`: how many more are NaN and were left out.
    - `mean`, `sd` (the standard deviation) and the quartiles `q1`, `median`, `q3`: all over single values.
    - `low`, `high`: the bootstrap interval of the mean, or of the median where that was asked for.
    - `level`: what was resampled, `"prompt"`, `"position"` or `"point"`, or `None` where there is only one value; and
      `"plane"` where that was sampled, with an interval of Student's t distribution;
      `clusters`: how many of those there are.
    - `statistic`: `"mean"` or `"median"`, what the interval is of.
    """

    count: int
    missing: int
    mean: float
    sd: float
    q1: float
    median: float
    q3: float
    low: float
    high: float
    level: str | None
    clusters: int
    statistic: str = "mean"

    @property
    def value(self) -> float:
        """The mean or the median, whichever the interval is of."""
        return self.mean if self.statistic == "mean" else self.median

    def _card(self) -> Card:
        return Card(str(self), {"standard deviation": self.sd, "median": self.median, "missing": self.missing})

    def __str__(self) -> str:
        """One phrase, with what the interval is over."""
        if self.count == 0:
            return "nothing measured"
        value = f"{self.value:.3g}" if self.statistic == "mean" else f"median {self.value:.3g}"
        if self.level is None:
            return f"{value} (a single value)"
        over = f"{self.low:.3g} to {self.high:.3g} over {self.clusters} {_SPOKEN[self.level]}"
        if self.clusters < ENOUGH:
            return f"{value} ({over}, too few for a 95 % interval)"
        return f"{value} (95 % interval {over})"


def estimate(
    values: Any,
    prompt: Any = None,
    position: Any = None,
    *,
    statistic: str = "mean",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Mean, spread and bootstrap interval of some values.

    The interval is the expanded percentile bootstrap of the mean (Hesterberg, *What Teachers Should Know About the
    Bootstrap*, The American Statistician 69, 2015): clusters are drawn with replacement, each with all of its values,
    and the percentiles are moved outwards so that for normal cluster means it comes close to the interval of the t
    distribution. No bootstrap can leave the range of the clusters: docs/charts.md says how often the interval of a few
    of them covers the truth.

    **Args:**

    - `values`: `[m]`, NaN for what could not be measured.
    - `prompt`, `position`: `[m]`, to which prompt and position each value belongs, where there is more than one.
      Positions count as the same only within a prompt.
    - `statistic`: the interval is that of the `"mean"` or of the `"median"`, which a few large values do not move.
    - `confidence`: how often the interval should cover that of all prompts (or positions, or points).
    - `resamples`, `seed`: of the bootstrap.

    **Returns:** an `Estimate`, in the units of the values.

    **Raises:** `InputError` where the lengths differ, or arguments are out of range.

    >>> import fisherflat as ff
    >>> found = ff.statistics.estimate([1.0, 2.0, 4.0, 5.0], prompt=[0, 0, 1, 1])
    >>> found.mean, found.level, found.clusters
    (3.0, 'prompt', 2)
    """
    if statistic not in STATISTICS:
        raise InputError(f'statistic must be "mean" or "median", got {statistic!r}')
    x, level, cluster, finite = checked(values, prompt, position, confidence, resamples)
    missing = int((~finite).sum())
    if len(x) == 0:
        nan = float("nan")
        return Estimate(0, missing, nan, nan, nan, nan, nan, nan, nan, None, 0, statistic)
    clusters = int(cluster.max()) + 1
    low, high = _interval(x, cluster, statistic, confidence, resamples, seed)
    q1, median, q3 = np.quantile(x, [0.25, 0.5, 0.75]).tolist()
    sd = float(x.std(ddof=1)) if len(x) > 1 else float("nan")
    return Estimate(len(x), missing, float(x.mean()), sd, q1, median, q3, low, high, level, clusters, statistic)


def by_group(
    table: pd.DataFrame,
    by: Sequence[str],
    column: str = "scalar_curvature",
    *,
    statistic: str = "mean",
    seed: int = 0,
) -> pd.DataFrame:
    """A row for each group of a table's rows: the keys of the group and the columns of an `Estimate`.

    **Args:**

    - `table`: with the columns `prompt`, `position`, `point`, and those of `by`.
    - `by`: what tells the groups apart, such as `("layer", "part", "reading")`.
    - `column`: what is averaged; `statistic`: what the interval is of, as in `estimate`; `seed`: of the bootstrap.

    **Returns:** a table. A value that stands alone and was sampled keeps its own interval: its `level` is `"plane"`.

    **Raises:** `InputError` for a column that is not there.

    >>> import pandas as pd, fisherflat as ff
    >>> table = pd.DataFrame({"layer": [0, 0, 1], "prompt": [0, 1, 0], "scalar_curvature": [1.0, 3.0, 5.0]})
    >>> list(ff.statistics.by_group(table, ["layer"])["mean"])
    [2.0, 5.0]
    """
    import pandas as pd

    _check_columns(table, [*by, column])
    rows = []
    for keys, group in table.groupby(list(by), sort=False, dropna=False):
        labels = (_labels(group, name) for name in ("prompt", "position"))
        found = estimate(group[column], *labels, statistic=statistic, seed=seed)
        rows.append(dict(zip(by, keys, strict=True)) | asdict(found) | _of_one(group, column))
    return pd.DataFrame(rows, columns=[*by, *Estimate.__dataclass_fields__])


def _of_one(group: pd.DataFrame, column: str) -> dict[str, Any]:
    """The interval that a single sampled value brings, in columns beside it."""
    names = [f"{column}_low", f"{column}_high", "planes"]
    known = group[group[column].notna()]
    if len(known) != 1 or not set(names) <= set(group.columns):
        return {}
    low, high, planes = (known[name].iloc[0] for name in names)
    return {"low": low, "high": high, "level": "plane", "clusters": int(planes)} if planes > 0 else {}


def differences(
    table: pd.DataFrame, minuend: str, subtrahend: str, *, along: str = "reading", column: str = "scalar_curvature"
) -> pd.DataFrame:
    """What a measurement in one reading has over that in another, pair by pair.

    Pairs are rows that agree in every other key (`layer`, `part`, `head`, `prompt`, `position`, `point`, as far as the
    table has them), so that what the two share cancels.

    **Args:**

    - `table`: a row for each measurement.
    - `minuend`, `subtrahend`: the two values of the column `along` that are compared.
    - `along`: the column that tells the two apart.
    - `column`: what is subtracted.

    **Returns:** a row for each pair, with its keys and the difference under the name of `column`, NaN where one of the
    two is; made for `by_group`.

    **Raises:** `InputError` for a column or a reading that is not there.

    >>> import pandas as pd, fisherflat as ff
    >>> rows = {"prompt": [0, 0], "position": [2, 2], "point": [0, 0]}
    >>> table = pd.DataFrame({**rows, "reading": ["live", "frozen gate"], "scalar_curvature": [5.0, 2.0]})
    >>> list(ff.statistics.differences(table, "live", "frozen gate")["scalar_curvature"])
    [3.0]
    """
    keys = [name for name in ("layer", "part", "head", *LEVELS) if name in table.columns and name != along]
    _check_columns(table, [along, column, *keys])
    halves = []
    for value in (minuend, subtrahend):
        half = table.loc[table[along] == value, [*keys, column]]
        if half.empty:
            raise InputError(f"the table has no rows with {along} {value!r}")
        halves.append(half)
    joined = halves[0].merge(halves[1], on=keys, suffixes=("", " of the subtrahend"))
    joined[column] -= joined.pop(f"{column} of the subtrahend")
    return joined


def numbers(values: Any) -> np.ndarray:
    """**Raises:** `InputError` for what is no list of numbers."""
    try:
        x = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(f"values must be numbers [m] ({error})") from error
    if x.ndim != 1:
        raise InputError(f"values must be numbers [m]; they have shape {list(x.shape)}")
    return x


def checked(
    values: Any, prompt: Any, position: Any, confidence: float = 0.95, resamples: int = 1
) -> tuple[np.ndarray, str | None, np.ndarray, np.ndarray]:
    """The finite values, what is resampled, the cluster of each of them, and which of all they are."""
    x = numbers(values)
    if not 0 < number(confidence, "confidence") < 1:
        raise InputError(f"confidence must be between 0 and 1, got {confidence}")
    integer(resamples, "resamples", 1)
    keys = {"prompt": prompt, "position": position}
    for name, key in keys.items():
        if key is not None and len(key) != len(x):
            raise InputError(f"there are {len(x)} values and {len(key)} entries of {name}; give one each")
    finite = np.isfinite(x)
    if not finite.any():
        return x[finite], None, np.zeros(0, dtype=np.int64), finite
    level, cluster = _clusters(int(finite.sum()), *(at(key, finite) for key in keys.values()))
    return x[finite], level, cluster, finite


def _clusters(count: int, prompt: np.ndarray | None, position: np.ndarray | None) -> tuple[str | None, np.ndarray]:
    """The level that is resampled, and the number of each value's cluster."""
    for level, key in (("prompt", prompt), ("position", position)):
        if key is not None and key.max() > 0:
            return level, key
    return ("point" if count > 1 else None), np.arange(count)


def at(key: Any, chosen: np.ndarray) -> np.ndarray | None:
    """Labels as numbers from 0, of the chosen values."""
    if key is None:
        return None
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(label, len(numbers)) for label in np.array(key, dtype=object)[chosen]])


def _interval(
    x: np.ndarray, cluster: np.ndarray, statistic: str, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The percentile interval, from resampling clusters; of one number where these all agree."""
    from scipy import stats

    counts = np.bincount(cluster)
    n = len(counts)
    if n == 1:
        return float("nan"), float("nan")
    means = np.bincount(cluster, x) / counts
    if statistic == "mean" and np.ptp(means) == 0:
        return float(x.mean()), float(x.mean())
    order = np.argsort(x)

    def of(drawn: np.ndarray, axis: int) -> np.ndarray:
        """The statistic of the values of the clusters that were drawn, as often as they were."""
        if statistic == "mean":
            return (means * counts)[drawn].sum(axis) / counts[drawn].sum(axis)
        times = np.apply_along_axis(np.bincount, axis, drawn, minlength=n)
        up_to = times[..., cluster[order]].cumsum(-1)
        total = up_to[..., -1:]
        lower, upper = ((2 * up_to < total + edge).sum(-1) for edge in (0, 1))  # which differ between two values
        return (x[order][lower] + x[order][upper]) / 2

    found = stats.bootstrap(
        (np.arange(n),),
        of,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 2**20 // len(x)),
        confidence_level=outward(confidence, n),
        method="percentile",
        rng=integer(seed, "seed", 0),
    ).confidence_interval
    return float(found.low), float(found.high)


def outward(confidence: float, clusters: int) -> float:
    """The confidence with which a percentile interval of a few clusters comes close to that of a t distribution."""
    from scipy import stats

    # resampling n values shrinks their variance by (n - 1) / n and takes a normal for a t distribution
    moved = stats.t.ppf((1 + confidence) / 2, clusters - 1) * (clusters / (clusters - 1)) ** 0.5
    return float(1 - 2 * stats.norm.sf(moved))


def _labels(table: pd.DataFrame, name: str) -> list[Hashable] | None:
    """A column of labels; those that are missing, such as the position of a whole sequence, are one label."""
    if name not in table.columns:
        return None
    column = table[name].astype(object)
    return list(column.where(column.notna(), None))


def _check_columns(table: pd.DataFrame, names: Sequence[str]) -> None:
    if lacking := [name for name in names if name not in table.columns]:
        raise InputError(f"the table has no column {lacking[0]!r}; it has {', '.join(map(str, table.columns))}")
