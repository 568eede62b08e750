"""Verdicts by the rules of the protocol: what each of its tests finds in the tables, and what that says of its claim.

A test compares an effect with a margin. It *holds* or *does not hold* where the interval of the effect lies wholly on
one side of the margin and its p value, corrected after Holm for the tests that decide the claim, agrees; all else is
*undecided*. A claim holds where all of its primary tests hold, and does not hold where one of them does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from fisherflat.lab.claims._asked import Test, tests
from fisherflat.lab.claims._selection import chosen, counted, of_groups, paired, paired_by_task, slopes
from fisherflat.lab.claims._statistics import Effect, correlation_over_tasks, nothing, over_tasks, over_units
from fisherflat.statistics import holm

if TYPE_CHECKING:
    import pandas as pd

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided"


def settle(tables: Mapping[str, pd.DataFrame], protocol: Mapping[str, Any]) -> pd.DataFrame:
    """What each test finds, and its verdict.

    **Args:** `tables`, the raw results: `models`, and any other that a claim names; `protocol`, as read from its file.

    **Returns:** a row a test: its fields, the effect with `low` and `high` at `confidence`, `units` and what they are
    `over`, `seeds` (of the task that has fewest), how many of `models` have no value and are `missing` (of the task
    where the share is largest; a model and the one it is compared with are one), `p`, `p_holm`, `detectable`,
    `verdict` and `why`.
    """
    import pandas as pd

    rules = protocol["statistics"]
    alpha = 1 - rules["confidence"]
    every = tests(protocol)
    tables = {name: counted(table) for name, table in tables.items()}
    primary = {claim: sum(t.role == "primary" for t in every if t.claim == claim) for claim in protocol["claims"]}
    rows = []
    for test in every:
        share = max(primary[test.claim], 1) if test.role == "primary" else 1
        effect, over, seeds, (missing, models) = measured(test, tables, protocol, 1 - alpha / share)
        rows.append({
            **{name: _plain(value) for name, value in asdict(test).items()},
            "value": effect.value, "low": effect.low, "high": effect.high, "confidence": 1 - alpha / share,
            "units": effect.units, "over": over, "seeds": seeds, "missing": missing,
            "models": models,
            "p": p_value(test, effect), "detectable": effect.detectable,
        })  # fmt: skip
    found = pd.DataFrame(rows)
    found["p_holm"] = found["p"]
    for claim in primary:
        own = (found["claim"] == claim) & (found["role"] == "primary")
        found.loc[own, "p_holm"] = holm(found.loc[own, "p"])
    judged = [_judged(row, rules) for row in found.to_dict("records")]
    return found.assign(verdict=[word for word, _ in judged], why=[why for _, why in judged])


def verdicts(found: pd.DataFrame) -> dict[str, str]:
    """The verdict on each claim, from those on its primary tests."""
    words = {}
    for claim, rows in found[found["role"] == "primary"].groupby("claim", sort=False):
        own = set(rows["verdict"])
        words[str(claim)] = FAILS if FAILS in own else HOLDS if own == {HOLDS} else UNDECIDED
    return words


def p_value(test: Test, effect: Effect) -> float:
    """Two-sided, of the margin itself; of an equivalence, of both margins."""
    if effect.units < 2:
        return 1.0
    if test.kind == "equivalence":
        within = max(effect.above(-test.margin), effect.below(test.margin))
        beyond = min(effect.above(test.margin), effect.below(-test.margin))
        return min(1.0, 2 * min(within, beyond))
    return min(1.0, 2 * min(effect.above(test.margin), effect.below(test.margin)))


def _judged(row: Mapping[str, Any], rules: Mapping[str, Any]) -> tuple[str, str]:
    """The verdict on a test, and why there is none."""
    for what, count in (("seeds", row["seeds"]), (row["over"], row["units"])):
        if count < rules[f"least_{what}"]:
            return UNDECIDED, f"{count} {what}, and {rules[f'least_{what}']} are the least"
    if row["missing"] > rules["most_missing"] * row["models"]:
        what = "seeds" if row["over"] == "seeds" else "models of a task"
        return UNDECIDED, f"{row['missing']} of {row['models']} {what} have no value"
    low, high, margin = row["low"], row["high"], row["margin"]
    if not (math.isfinite(low) and math.isfinite(high)):
        return UNDECIDED, "there is no interval"
    sides = {
        "equivalence": (-margin < low and high < margin, low > margin or high < -margin),
        "below": (high < margin, low > margin),
    }
    inside, outside = sides.get(row["kind"], (low > margin, high < margin))
    if not inside and not outside:
        return UNDECIDED, "the interval reaches across the margin"
    if row["p_holm"] > 1 - rules["confidence"]:
        return UNDECIDED, "after Holm's correction it may be chance"
    return (HOLDS, "") if inside else (FAILS, "")


def measured(
    test: Test, tables: Mapping[str, pd.DataFrame], protocol: Mapping[str, Any], confidence: float
) -> tuple[Effect, str, int, tuple[int, int]]:
    """The effect that a test is about, what its units are, its seeds, and how many values are missing, of how many."""
    rules = protocol["statistics"]
    settings = {"confidence": confidence, "resamples": rules["resamples"], "seed": rules["seed"]}
    table = tables.get(test.table)
    if table is None or test.column not in table.columns:
        return nothing(), "seeds", 0, (0, 0)
    if test.kind == "correlation":
        rows = of_groups(table, protocol, test.claim)
        effect = correlation_over_tasks(
            rows[test.column], rows["test_accuracy"], rows["task"], rows["arm"], pooling=test.level,
            method=test.method or "spearman", **settings,
        )  # fmt: skip
        seeds = int(rows.groupby(["task", "arm"])["seed"].nunique().min())
        return effect, "tasks", seeds, _worst(own for _, own in rows.groupby("task")[test.column])
    if test.kind in ("above", "below"):
        rows = chosen(table, protocol, test.where)
        return _over_seeds(rows.groupby("seed")[test.column].mean(), settings)
    if test.kind in ("slope", "slope difference"):
        return _over_seeds(slopes(table, protocol, test), settings)
    if len(test.tasks) > 1:
        by_task = paired_by_task(table, protocol, test)
        seeds = min(int(found.count()) for found in by_task)
        return over_tasks(by_task, confidence=confidence), "tasks", seeds, _worst(by_task)
    return _over_seeds(paired(table, protocol, test), settings)


def _over_seeds(values: pd.Series, settings: Mapping[str, Any]) -> tuple[Effect, str, int, tuple[int, int]]:
    numbers = np.asarray(values, dtype=np.float64)
    missing, models = _worst([values])
    return over_units(numbers, **settings), "seeds", models - missing, (missing, models)


def _worst(each: Iterable[pd.Series]) -> tuple[int, int]:
    """How many values are no number and of how many, where the share is largest."""
    counts = [(int((~np.isfinite(own.to_numpy(float))).sum()), len(own)) for own in each]
    return max(counts, key=lambda count: count[0] / max(count[1], 1), default=(0, 0))


def _plain(value: Any) -> Any:
    """A field of a test as one cell of a table."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return value
