"""What stands beside the verdicts and decides nothing: every measure, every level of a correlation, every arm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fisherflat.lab.claims._measures import UNITS
from fisherflat.lab.claims._selection import chosen, counted, of_groups, transformed
from fisherflat.lab.claims._statistics import (
    POOLINGS,
    compared,
    correlation_over_tasks,
    mixed_model,
    nothing,
    over_units,
)
from fisherflat.lab.claims._training import data

if TYPE_CHECKING:
    import pandas as pd

#: the power of c by which a quantity changes where a representation is multiplied by c, in the metric "unit"
STRETCHED = {name: -2 * power for name, power in UNITS.items()}
#: the largest factor in the test of the gauge
FACTOR = 2.0


def correlations(models: pd.DataFrame, protocol: Mapping[str, Any]) -> pd.DataFrame:
    """Correlations of each measure that claim D names with accuracy, at every level and by each method.

    **Returns:** a row a measure, level and method, with `value`, `low`, `high`, `tasks`, `models`; the mixed model's
    value is in points of accuracy a standard deviation.
    """
    import pandas as pd

    rules, rows = protocol["statistics"], of_groups(counted(models), protocol)
    found = []
    for column in protocol["claims"]["D"]["columns"]:
        if column not in rows.columns:
            continue
        x, y = rows[column].to_numpy(float), rows["test_accuracy"].to_numpy(float)
        count = int(np.isfinite(x).sum())
        for level in POOLINGS:
            for method in ("spearman", "pearson"):
                effect = correlation_over_tasks(
                    x, y, rows["task"], rows["arm"], pooling=level, method=method,
                    confidence=rules["confidence"], resamples=rules["resamples"], seed=rules["seed"],
                )  # fmt: skip
                found.append((column, level, method, effect.value, effect.low, effect.high, effect.units, count))
        tasks = int(rows.loc[np.isfinite(x), "task"].nunique())
        found.append(
            (column, "task and arm", "mixed model", *mixed_model(100 * y, x, rows["task"], rows["arm"]), tasks, count)
        )
    return pd.DataFrame(found, columns=["column", "level", "method", "value", "low", "high", "tasks", "models"])


def gauge(models: pd.DataFrame, protocol: Mapping[str, Any]) -> pd.DataFrame:
    """How far a stretch of each representation moves its correlation with the accuracy, while every prediction stays.

    A read-out that is divided by what multiplies the representation classifies as before. Each model is multiplied by a
    factor between 1/2 and 2 that follows its rank by accuracy, one way and the other.

    **Returns:** a row a measure in the metric "unit", and beside it in the others, whose values do not change: `value`,
    and `lowest`, `highest` after a stretch; mean over tasks of Spearman's correlation.
    """
    import pandas as pd
    from scipy.stats import rankdata

    rows = of_groups(counted(models), protocol)
    y = rows["test_accuracy"].to_numpy(float)
    share = np.empty(len(rows))
    for task in rows["task"].unique():
        own = (rows["task"] == task).to_numpy()
        share[own] = (rankdata(y[own]) - 0.5) / own.sum()
    factor = FACTOR ** (2 * share - 1)
    found = []
    for quantity, power in STRETCHED.items():
        for metric in ("unit", "calibrated", "whitened"):
            column = f"{quantity}:live:{metric}"
            if column not in rows.columns:
                continue
            x = rows[column].to_numpy(float)
            given = [x] if metric != "unit" else [x, x * factor**power, x * factor**-power]
            values = [
                correlation_over_tasks(each, y, rows["task"], rows["arm"], pooling="within task", resamples=9).value
                for each in given
            ]
            found.append((column, values[0], min(values), max(values)))
    return pd.DataFrame(found, columns=["column", "value", "lowest", "highest"])


def measures(models: pd.DataFrame, protocol: Mapping[str, Any]) -> pd.DataFrame:
    """Every measure of gated models next to ungated ones, by task.

    **Returns:** a row a measure and task: `higher`, the share of seeds in which the gated model has more, ties by half;
    `log10_ratio` with `low`, `high`, NaN where one of them has no logarithm; `seeds`.
    """
    import pandas as pd

    rules, found = protocol["statistics"], []
    named = protocol["claims"]["A"]["tests"]
    places = {task: test["where"] for test in named for task in test["tasks"] if test["role"] == "primary"}
    columns = [
        name for name in models.columns if name.count(":") == 2 and not name.startswith(("undecided", "degenerate"))
    ]
    models = counted(models)
    settings = {"confidence": rules["confidence"], "resamples": 999, "seed": rules["seed"]}
    for task, where in places.items():
        gated, ungated = (
            chosen(models, protocol, {**where, "task": task, "arm": arm}).groupby("seed")[columns].mean()
            for arm in ("gated", "ungated")
        )
        both = gated.index.intersection(ungated.index)
        for column in columns:
            sides = [side.loc[both, column] for side in (gated, ungated)]
            signs = compared(*sides)
            signs = signs[np.isfinite(signs)]
            volume = column.startswith("log_volume")  # which is a logarithm, a natural one
            logs = [side / math.log(10) if volume else transformed(side, "log10") for side in sides]
            ratios = logs[0] - logs[1]
            effect = over_units(ratios, **settings) if ratios.notna().all() else nothing()
            higher = float((signs.mean() + 1) / 2) if len(signs) else float("nan")
            found.append((column, task, higher, effect.value, effect.low, effect.high, len(signs)))
    return pd.DataFrame(found, columns=["column", "task", "higher", "log10_ratio", "low", "high", "seeds"])


def accuracies(models: pd.DataFrame) -> pd.DataFrame:
    """Each arm on each task in each form: mean accuracy on test and training examples, its spread, and parameters."""
    keys = ["task", "family", "boundary", "depth", "heads", "residual", "norm", "weight_decay", "arm"]
    groups = counted(models).groupby([name for name in keys if name in models.columns], sort=False)
    return groups.agg(
        seeds=("seed", "nunique"), test_accuracy=("test_accuracy", "mean"), sd=("test_accuracy", "std"),
        train_accuracy=("train_accuracy", "mean"), parameters=("parameters", "median"),
    ).reset_index()  # fmt: skip


def shuffled(models: pd.DataFrame, protocol: Mapping[str, Any]) -> pd.DataFrame:
    """The control: models that were trained on permuted labels, and what is left of the true ones in those.

    **Returns:** a row a model: `task`, `arm`, `seed`, `agreement`, the share of training examples whose permuted label
    is the one they had, and the accuracies; test examples keep their labels.
    """
    rows = models[models["shuffled"].astype(bool) & ~models["pilot"].astype(bool)]
    rows = rows[["task", "arm", "seed", "train_accuracy", "test_accuracy"]].sort_values(["task", "arm", "seed"])
    agreement = {}
    for task, seed in rows[["task", "seed"]].drop_duplicates().itertuples(index=False):
        true, permuted = (data(protocol, task, int(seed), given)[0].labels for given in (False, True))
        agreement[task, seed] = float((true == permuted).double().mean())
    pairs = zip(rows["task"], rows["seed"], strict=True)
    rows.insert(3, "agreement", [agreement[pair] for pair in pairs])
    return rows.reset_index(drop=True)


def mlps(symmetries: pd.DataFrame) -> pd.DataFrame:
    """Gated MLPs by kind and optimizer, means over seeds and teachers: losses, defects, drifts and rank-one errors."""
    names = [name for name in symmetries.columns if name.endswith(("_loss", "_defect", "_drift", "_output", "_error"))]
    groups = counted(symmetries).groupby(["side", "activation", "optimizer"])
    return groups[names].mean().assign(models=groups.size()).reset_index()


def depths(models: pd.DataFrame, protocol: Mapping[str, Any]) -> pd.DataFrame:
    """The measures of claim E at each depth: mean of log10 over seeds and its standard error, by task and arm."""
    import pandas as pd

    tests = protocol["claims"]["E"]["tests"]
    group = next(group for group in protocol["groups"] if group["name"] == "depth")
    where = {"heads": 1, "residual": group["residual"], "norm": group["norm"], "task": group["tasks"]}
    rows, found = chosen(counted(models), protocol, {**where, "arm": group["arms"]}), []
    for column in dict.fromkeys(test["column"] for test in tests):
        if column not in rows.columns:
            continue
        values = transformed(rows[column], "log10")
        for (task, arm, depth), index in rows.groupby(["task", "arm", "depth"], sort=False).groups.items():
            own = values.loc[index].dropna()
            error = float(own.std(ddof=1) / len(own) ** 0.5) if len(own) > 1 else float("nan")
            found.append(
                (column, task, arm, int(depth), float(own.mean()) if len(own) else float("nan"), error, len(own))
            )
    return pd.DataFrame(found, columns=["column", "task", "arm", "depth", "log10_mean", "error", "seeds"])
