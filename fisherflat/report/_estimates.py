"""Means with their intervals by layer, part and reading, and what gates add: of all rows, or of a part at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fisherflat import statistics
from fisherflat.geometry import Verdict
from fisherflat.parts import readings
from fisherflat.report._page import joint
from fisherflat.studies.layers import negligible

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

#: what tells the estimates apart
PLACE = ["layer", "part", "reading"]
#: the columns of rows that they are made of, as far as there are such
NEEDED = (
    *PLACE, "roles", "prompt", "position", "point", "scalar_curvature", "scalar_curvature_error", "negligible_image",
    "verdict", "scalar_curvature_low", "scalar_curvature_high", "planes",
)  # fmt: skip
_JUDGED = ("mean_error", "word", "undecided", "negligible", "mean_of_others")
_GAPS = ("layer", "part", "gate", "live", "held", *statistics.Estimate.__dataclass_fields__, "mean_error")


def decided(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with numbers, the scalar curvature of undecided ones missing, so that they enter no mean."""
    rows = table[table["verdict"].notna()]
    return rows.assign(scalar_curvature=rows["scalar_curvature"].where(rows["verdict"] != Verdict.UNDECIDED))


def estimated(rows: pd.DataFrame) -> pd.DataFrame:
    """The `estimates` of an `Analysis`. **Args:** `rows`, decided ones."""
    import pandas as pd

    judged = [_judged(group) for _, group in rows.groupby(PLACE, sort=False, dropna=False)]
    return pd.concat([statistics.by_group(rows, PLACE), pd.DataFrame(judged, columns=_JUDGED)], axis=1)


def _judged(rows: pd.DataFrame) -> dict[str, Any]:
    """What is known of the rows of a layer, part and reading together, beside their mean; by the names of columns."""
    small = negligible(rows)
    others = rows.loc[(rows["verdict"] == Verdict.CURVED) & ~small, "scalar_curvature"]
    undecided = (rows["verdict"] == Verdict.UNDECIDED).sum()
    known = _mean_error(rows), joint(rows["verdict"]), int(undecided), int(small.sum()), others.mean()
    return dict(zip(_JUDGED, known, strict=True))


def gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """The `gaps` of an `Analysis`. **Args:** `rows`, decided ones."""
    found = []
    for (layer, part), own in rows.groupby(["layer", "part"], sort=False):
        roles = readings.roles(f"frozen {own['roles'].iloc[0]}") if own["roles"].iloc[0] else ()
        for gate in readings.GATES:
            pair = readings.gap(roles, gate)
            if pair is None or not set(pair) <= set(own["reading"]):
                continue
            differences = statistics.differences(own, *pair)
            about = {"layer": layer, "part": part, "gate": readings.WORDS[gate], "live": pair[0], "held": pair[1]}
            error = sum(_mean_error(own[own["reading"] == one]) for one in pair)
            gap = statistics.by_group(differences.assign(**about), list(about))
            found.append(gap.assign(mean_error=error))
    return joined(found, _GAPS)


def joined(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Tables below each other; one of these columns and no rows where there is nothing in them."""
    import pandas as pd

    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))


def _mean_error(rows: pd.DataFrame) -> float:
    """The mean error of the scalar curvatures that are there: at most so far off is their mean."""
    return float(rows["scalar_curvature_error"].where(rows["scalar_curvature"].notna()).mean())
