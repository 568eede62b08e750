"""Which rows of the raw table a test of the protocol is about, and how they are paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fisherflat.lab.claims._asked import Test
from fisherflat.lab.claims._protocol import PLAIN

if TYPE_CHECKING:
    import pandas as pd

#: what tells one trained model from another
KEYS = ("task", "arm", "depth", "heads", "width", "residual", "norm", "weight_decay", "shuffled", "seed")


def counted(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that may count, in an order of their own: no pilots, no shuffled labels, no model twice."""
    rows = table
    for name in ("pilot", "shuffled"):
        if name in rows.columns:
            rows = rows[~rows[name].astype(bool)]
    keys = [name for name in KEYS if name in rows.columns]
    if "task" in rows.columns:
        rows = rows.drop_duplicates(keys)
    return rows.sort_values(keys, ignore_index=True)


def chosen(table: pd.DataFrame, protocol: Mapping[str, Any], where: Mapping[str, Any]) -> pd.DataFrame:
    """The rows of a `counted` table that agree with `where`, each value of which is one, or a list of several.

    Weight decay is that of the family of tasks where nothing else is asked for.
    """
    agree = np.ones(len(table), dtype=bool)
    for name, value in where.items():
        wanted = value if isinstance(value, (list, tuple)) else [value]
        agree &= table[name].isin(wanted).to_numpy()
    if "weight_decay" in table.columns and "weight_decay" not in where and "family" in table.columns:
        usual = table["family"].map({name: family["weight_decay"] for name, family in protocol["families"].items()})
        agree &= np.isclose(table["weight_decay"].astype(float), usual.astype(float))
    return table[agree]


def of_groups(table: pd.DataFrame, protocol: Mapping[str, Any], claim: str = "D") -> pd.DataFrame:
    """The rows of a `counted` table that belong to the groups of runs that a claim is about."""
    import pandas as pd

    about = protocol["claims"][claim]
    named = {group["name"]: group for group in protocol["groups"]}
    parts = []
    for name in about["groups"]:
        group = named[name]
        where = {key: group.get(key, value) for key, value in PLAIN.items()}
        rows = chosen(table, protocol, where | {"task": group["tasks"], "arm": group["arms"]})
        parts.append(rows[rows["task"].isin(about["tasks"]) & rows["arm"].isin(about["arms"])])
    return counted(pd.concat(parts))


def transformed(values: pd.Series, transform: str) -> pd.Series:
    """The values, or their logarithms to base 10; what has none is NaN."""
    if transform == "identity":
        return values.astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: pd.Series = np.log10(values.astype(float))
    return found.where(np.isfinite(found))


def paired(table: pd.DataFrame, protocol: Mapping[str, Any], test: Test) -> pd.Series:
    """`arm` minus `against` of the models of one seed, by seed; NaN where one of the two has no value."""
    sides = []
    for side in (test.arm, test.against):
        own = dict(side) if isinstance(side, Mapping) else {"arm": side}
        tasks = {"task": list(test.tasks)} if test.tasks else {}
        rows = chosen(table, protocol, {**test.where, **tasks, **own})
        values = transformed(rows[test.column], test.transform)
        sides.append(values.groupby([rows["seed"]]).mean(numeric_only=True).astype(float))
    both = sides[0].index.intersection(sides[1].index)
    difference: pd.Series = sides[0].loc[both] - sides[1].loc[both]
    return difference


def paired_by_task(table: pd.DataFrame, protocol: Mapping[str, Any], test: Test) -> list[pd.Series]:
    """The same for each task of a test."""
    return [paired(table, protocol, replace(test, tasks=(task,))) for task in test.tasks]


def slopes(table: pd.DataFrame, protocol: Mapping[str, Any], test: Test) -> pd.Series:
    """How log10 of a column grows with log10 of depth, by seed: of an arm, or what it has over another."""
    found = [_slopes(table, protocol, test, test.arm)]
    if test.kind == "slope":
        return found[0]
    found.append(_slopes(table, protocol, test, test.against))
    both = found[0].index.intersection(found[1].index)
    difference: pd.Series = found[0].loc[both] - found[1].loc[both]
    return difference


def _slopes(table: pd.DataFrame, protocol: Mapping[str, Any], test: Test, arm: Any) -> pd.Series:
    import pandas as pd

    rows = chosen(table, protocol, {**test.where, "task": list(test.tasks), "arm": arm})
    values = transformed(rows[test.column], "log10")
    x = np.log10(rows["depth"].astype(float))
    found = {
        seed: slope(x.loc[index].to_numpy(), values.loc[index].to_numpy())
        for seed, index in rows.groupby("seed").groups.items()
    }
    return pd.Series(found, dtype=float)


def slope(x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray) -> float:
    """Of the line of least squares; NaN where a value is missing or there are no three places."""
    a, b = (np.asarray(values, dtype=np.float64) for values in (x, y))
    if not np.isfinite(b).all() or len(np.unique(a)) < 3:
        return float("nan")
    centred = a - a.mean()
    return float(centred @ b / (centred @ centred))
