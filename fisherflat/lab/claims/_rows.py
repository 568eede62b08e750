"""The tables of the claims' pages, line by line, as they are printed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fisherflat.lab.claims._statistics import POOLINGS
from fisherflat.lab.claims._words import measure, signed

if TYPE_CHECKING:
    import pandas as pd


def correlation_rows(table: pd.DataFrame) -> list[list[str]]:
    """A line a measure: Spearman's correlation with accuracy at every level, Pearson's pooled, and the mixed model."""
    found = []
    for column in dict.fromkeys(table["column"]):
        own = table[table["column"] == column].set_index(["method", "level"])
        cells = [ranged(own.loc[("spearman", level)]) for level in POOLINGS]
        cells += [ranged(own.loc[("pearson", "pooled")]), ranged(own.loc[("mixed model", "task and arm")])]
        found.append([measure(column), *cells])
    return found


def ranged(row: Any) -> str:
    if not math.isfinite(row["value"]):
        return "–"
    return f"{signed(row['value'])} ({signed(row['low'])} to {signed(row['high'])})"


def gauge_rows(table: pd.DataFrame) -> list[list[str]]:
    """A line a measure: its correlation, and how far a stretch of the representations moves it."""
    return [
        [measure(row["column"]), signed(row["value"]), f"{signed(row['lowest'])} to {signed(row['highest'])}"]
        for row in table.to_dict("records")
    ]


def measure_rows(table: pd.DataFrame) -> list[list[str]]:
    """A line a measure, a column a task: gated to ungated, and in how many seeds the gated model has more."""
    tasks = list(dict.fromkeys(table["task"]))
    found = []
    for column in dict.fromkeys(table["column"]):
        own = table[table["column"] == column].set_index("task")
        found.append([measure(column), *(_ratio(own.loc[task]) for task in tasks)])
    return found


def _ratio(row: Any) -> str:
    if row["seeds"] == 0:
        return "–"
    share = f"{row['higher']:.0%}"
    return f"{10 ** row['log10_ratio']:.2g} ({share})" if math.isfinite(row["log10_ratio"]) else share


def mlp_rows(table: pd.DataFrame) -> list[list[str]]:
    """A line a kind of gated MLP and optimizer."""
    names = ["test_loss", "exchange_defect", "inverse_scaling_defect", "charge_drift"]
    names += ["rank_one_error", "rank_one_test_loss"]
    found = []
    for row in table.to_dict("records"):
        cells = [f"{row[name]:.2g}" if math.isfinite(row.get(name, math.nan)) else "–" for name in names]
        found.append([row["side"], row["activation"], row["optimizer"], *cells, str(row["models"])])
    return found


def accuracy_rows(table: pd.DataFrame) -> list[list[str]]:
    """A line an arm in its form, with the mean accuracy on each task."""
    found = []
    keys = [name for name in ("depth", "heads", "residual", "norm", "weight_decay", "arm") if name in table.columns]
    for form, own in table.groupby(["task", *keys], sort=False):
        row = own.iloc[0]
        about = dict(zip(["task", *keys], form, strict=True))
        words = [f"depth {about['depth']}", f"{about['heads']} head{'s' if about['heads'] > 1 else ''}"]
        words += [name for name in ("residual", "norm") if about[name]]
        decay = f", decay {about['weight_decay']:g}" if "weight_decay" in about else ""
        accuracy = f"{100 * row['test_accuracy']:.2f} ± {100 * row['sd']:.2f}"
        found.append([
            about["task"].replace("_", " "), about["arm"].replace("_", " "), ", ".join(words) + decay, accuracy,
            f"{100 * row['train_accuracy']:.2f}", f"{row['parameters']:.0f}", str(row["seeds"]),
        ])  # fmt: skip
    return found


def shuffled_rows(table: pd.DataFrame) -> list[list[str]]:
    """A line a task: the accuracy of each arm after training on permuted labels, and how many labels stayed."""
    found = []
    for task, own in table.groupby("task", sort=False):
        arms = [own.loc[own["arm"] == arm, "test_accuracy"] for arm in dict.fromkeys(table["arm"])]
        found.append([str(task).replace("_", " "), *map(_percent, [*arms, own["agreement"]])])
    return found


def _percent(shares: pd.Series) -> str:
    if shares.empty:
        return "–"
    return f"{100 * shares.mean():.1f} ({100 * shares.min():.1f} to {100 * shares.max():.1f})"
