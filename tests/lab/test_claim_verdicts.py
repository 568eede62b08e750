"""Verdicts on tables whose effects are known: found where they are, seldom where they are not, undecided in between."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cases.claim_tables import simulated
from conftest import ROOT

from fisherflat.errors import InputError
from fisherflat.lab.claims._asked import tests as asked
from fisherflat.lab.claims._verdicts import FAILS, HOLDS, UNDECIDED, settle, verdicts

PROTOCOL = tomllib.loads((ROOT / "fisherflat/lab/claims/protocol.toml").read_text())
TASKS = ["ring", "spirals", "moons", "xor"]


def small(
    kind: str = "difference", margin: float = 0.0, seeds: int = 14, tasks: list[str] = TASKS, **statistics: Any
) -> dict[str, Any]:
    """A protocol with one claim: one test of accuracy a task, few resamples."""
    test = {
        "id": "X", "role": "primary", "kind": kind, "column": "test_accuracy", "arm": "gated", "against": "ungated",
        "tasks": tasks, "each": True, "margin": margin,
    }  # fmt: skip
    return {
        **PROTOCOL,
        "groups": [{"name": "main", "tasks": tasks, "arms": ["ungated", "gated"], "seeds": seeds}],
        "statistics": PROTOCOL["statistics"] | {"resamples": 499} | statistics,
        "claims": {"X": {"tests": [test]}},
    }


def found(protocol: dict[str, Any], seed: int, **effects: Any) -> pd.DataFrame:
    return settle({"models": simulated(protocol, seed, groups=("main",), measures=(), **effects)}, protocol)


@pytest.mark.parametrize(("kind", "gain", "margin"), [("difference", 0.0, 0.0), ("equivalence", 0.01, 0.01)])
def test_where_there_is_no_effect_a_table_has_a_false_verdict_about_as_seldom_as_it_says(kind, gain, margin) -> None:
    """The effect lies on the margin itself, the worst place; two tests a table, one chance of 5 % for both."""
    protocol, tables = small(kind, margin, seeds=10, tasks=TASKS[:2], resamples=199), 300
    wrong = sum(not set(found(protocol, seed, gain=gain)["verdict"]) <= {UNDECIDED} for seed in range(tables))
    assert 0.005 < wrong / tables < 0.05 + 3 * (0.05 * 0.95 / tables) ** 0.5


def test_an_effect_that_is_there_is_found_and_one_that_is_too_small_for_the_seeds_is_left_undecided() -> None:
    protocol = small()
    for seed in range(5):
        assert verdicts(found(protocol, seed, gain=0.02)) == {"X": HOLDS}
        assert verdicts(found(protocol, seed, gain=-0.02)) == {"X": FAILS}
    little = [verdicts(found(protocol, seed, gain=0.001))["X"] for seed in range(20)]
    assert little.count(UNDECIDED) >= 18
    rows = found(protocol, 0, gain=0.001)
    assert (rows.loc[rows["role"] == "primary", "detectable"] > 0.001).all()


def test_what_is_equal_within_the_margin_is_called_so_only_where_the_seeds_suffice() -> None:
    assert verdicts(found(small("equivalence", 0.01), 0)) == {"X": HOLDS}
    assert verdicts(found(small("equivalence", 0.01), 0, gain=0.03)) == {"X": FAILS}
    assert verdicts(found(small("equivalence", 0.01), 0, spread=0.05)) == {"X": UNDECIDED}


@pytest.mark.parametrize("seeds", [2, 4])
def test_too_few_seeds_give_no_verdict_however_large_the_effect(seeds: int) -> None:
    rows = found(small(seeds=seeds), 0, gain=0.3, spread=1e-6)
    assert set(rows["verdict"]) == {UNDECIDED}  # also over tasks
    assert set(rows["why"]) == {f"{seeds} seeds, and 5 are the least"}


def test_one_task_in_which_it_does_not_hold_decides_the_claim() -> None:
    protocol = small()
    table = simulated(protocol, 0, groups=("main",), gain=0.03)
    table.loc[(table["task"] == "moons") & (table["arm"] == "gated"), "test_accuracy"] -= 0.06
    rows = settle({"models": table}, protocol).set_index("id")
    assert list(rows.loc[[f"X {task}" for task in TASKS], "verdict"]) == [HOLDS, HOLDS, FAILS, HOLDS]
    assert verdicts(rows) == {"X": FAILS}
    assert rows.loc["X all", "role"] == "beside" and rows.loc["X all", "verdict"] == UNDECIDED  # as tasks disagree


def test_seeds_without_a_value_are_counted_and_too_many_of_them_leave_it_undecided() -> None:
    protocol = small()
    table = simulated(protocol, 0, groups=("main",), gain=0.05)
    ring = (table["task"] == "ring") & (table["arm"] == "gated")
    table.loc[ring & (table["seed"] < 1), "test_accuracy"] = np.nan
    first = settle({"models": table}, protocol).set_index("id").loc["X ring"]
    assert (first["verdict"], first["missing"], first["units"]) == (HOLDS, 1, 13)
    table.loc[ring & (table["seed"] < 3), "test_accuracy"] = np.nan
    second = settle({"models": table}, protocol).set_index("id").loc["X ring"]
    assert (second["verdict"], second["why"]) == (UNDECIDED, "3 of 14 seeds have no value")


def test_pilots_shuffled_labels_other_weight_decays_and_repeated_models_do_not_count() -> None:
    protocol = small()
    table = simulated(protocol, 0, groups=("main",), gain=0.05)
    others = [table.assign(**{name: value, "test_accuracy": 0.1}) for name, value in
              (("pilot", True), ("shuffled", True), ("weight_decay", 0.123))]  # fmt: skip
    more = pd.concat([table, *others, table.sample(frac=0.3, random_state=0)], ignore_index=True)
    pd.testing.assert_frame_equal(settle({"models": table}, protocol), settle({"models": more}, protocol))


def whole(**statistics: Any) -> dict[str, Any]:
    return PROTOCOL | {"statistics": PROTOCOL["statistics"] | {"resamples": 199} | statistics}


def test_the_order_of_rows_does_not_matter() -> None:
    table = simulated(PROTOCOL, 0, gain=0.01, bent=0.2, along=0.3, deeper=0.5, seeds=6)
    shuffled = table.sample(frac=1, random_state=1).reset_index(drop=True)
    one, other = (settle({"models": given}, whole()) for given in (table, shuffled))
    assert list(one["verdict"]) == list(other["verdict"])
    numbers = ["value", "low", "high", "p", "p_holm"]
    pd.testing.assert_frame_equal(one[numbers], other[numbers], rtol=1e-9, atol=1e-12)


def test_each_claim_of_the_protocol_follows_the_effect_that_was_put_in() -> None:
    protocol = whole(resamples=999)
    nothing = verdicts(settle({"models": simulated(PROTOCOL, 0)}, protocol))
    assert (nothing["A"], nothing["C"], nothing["D"]) == (UNDECIDED, HOLDS, FAILS)
    assert nothing["B"] == FAILS  # no gain of one point over equal parameters
    strong = verdicts(settle({"models": simulated(PROTOCOL, 0, gain=0.05, bent=1.0, along=0.9, deeper=2.0)}, protocol))
    assert [strong[claim] for claim in "ABCD"] == [HOLDS] * 4
    assert strong["F"] == UNDECIDED  # its table was not given


def test_of_several_groups_of_rows_each_is_tested() -> None:
    """One activation in which a symmetry holds is not hidden by the mean over all."""
    protocol = whole()
    protocol["claims"] = {"F": {**PROTOCOL["claims"]["F"], "tests": PROTOCOL["claims"]["F"]["tests"][:1]}}
    rng = np.random.default_rng(0)
    rows = [
        {"activation": name, "side": "one", "seed": seed, "pilot": False, "optimizer": "adam",
         "exchange_defect": (0.0 if name == "relu" else 1.0) + 0.001 * rng.random()}
        for name in ("relu", "silu", "sigmoid") for seed in range(10)
    ]  # fmt: skip
    result = settle({"symmetries": pd.DataFrame(rows)}, protocol)
    assert dict(zip(result["id"], result["verdict"], strict=True)) == {
        "F1 relu": FAILS, "F1 silu": HOLDS, "F1 sigmoid": HOLDS,
    }  # fmt: skip
    assert verdicts(result) == {"F": FAILS}


def test_a_protocol_with_a_kind_of_test_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="kind 'better'"):
        asked(small("better"))
