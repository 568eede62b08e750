"""How measurements that belong together differ, and how well they agree."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from fisherflat.statistics import ENOUGH, Agreement, Estimate, agreement, estimate, noise_floor

if TYPE_CHECKING:
    import pandas as pd

#: the columns of a table of differences, after what tells its rows apart
DIFFERENCES = ["before", "after", *(one.name for one in fields(Estimate)), "mean_error", "noise_floor", "word"]
#: those of a table of agreements
AGREEMENT = [one.name for one in fields(Agreement)]


def differences(pairs: pd.DataFrame, by: list[str], seed: int = 0) -> pd.DataFrame:
    """Paired differences, a row for each group.

    **Args:** `pairs`, as of `Pairs`; `by`, what tells the groups apart, such as `["model", "layer", "part",
    "reading"]`; `seed`, of the bootstrap.

    **Returns:** the columns of `by`, the mean `before` and `after`, an `Estimate` of the difference, `mean_error`, how
    far off rounding may have put its mean, `noise_floor`, the larger of the two measurements' own, and a `word` for it.
    """
    import pandas as pd

    rows = []
    for keys, group in pairs.groupby(by, sort=False, dropna=False):
        clusters = list(group["prompt"]), list(group["position"].astype(object))
        found = estimate(group["difference"], *clusters, seed=seed)
        both = group[group["difference"].notna()]
        error = float(both["error"].mean())
        floors = [noise_floor(group[side], *clusters, seed=seed) for side in ("before", "after")]
        rows.append(
            dict(zip(by, keys if isinstance(keys, tuple) else (keys,), strict=True))
            | {"before": float(both["before"].mean()), "after": float(both["after"].mean())}
            | asdict(found)
            | {"mean_error": error, "noise_floor": max(floors), "word": word(found, error)}
        )
    return pd.DataFrame(rows, columns=[*by, *DIFFERENCES])


def word(found: Estimate, error: float) -> str:
    """What is known of a difference: `larger`, `smaller`, `the same`, `uncertain`, `too few` or `not measured`."""
    if not found.count:
        return "not measured"
    low, high = (found.mean, found.mean) if found.level is None else (found.low, found.high)
    if abs(low) <= error and abs(high) <= error:
        return "the same"
    if found.clusters < ENOUGH:
        return "too few"
    return "larger" if low > error else "smaller" if high < -error else "uncertain"


def agreements(pairs: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """How well the profiles over layers agree, a row for each model, part and reading."""
    import pandas as pd

    by, rows = ["model", "part", "reading"], list[dict[str, Any]]()
    for keys, group in pairs.groupby(by, sort=False):
        found = agreement(
            group["before"], group["after"], list(group["layer"]), list(group["prompt"]),
            list(group["position"].astype(object)), seed=seed,
        )  # fmt: skip
        rows.append(dict(zip(by, keys, strict=True)) | asdict(found))
    return pd.DataFrame(rows, columns=[*by, *AGREEMENT])
