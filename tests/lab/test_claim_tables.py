"""What stands beside the verdicts of the claims, again from the raw rows in plain pandas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import stats

from fisherflat.lab.claims._protocol import Protocol
from fisherflat.lab.claims.page import DATA

FOLDER = ROOT / "docs" / DATA
PROTOCOL = Protocol.load()
FORM = ["task", "depth", "heads", "residual", "norm", "weight_decay", "arm"]
POINT = {"depth": 1, "heads": 1, "residual": False, "norm": False}
SEQUENCE = {"depth": 2, "heads": 1, "residual": True, "norm": True}


def shipped(name: str) -> pd.DataFrame:
    return pd.read_parquet(FOLDER / f"{name}.parquet")


@pytest.fixture(scope="module")
def models() -> pd.DataFrame:
    """Those that count: each once, and all of the usual weight decay, but where it is what differs."""
    found = shipped("models")
    found = found[~found["pilot"] & ~found["shuffled"]]
    assert not found.duplicated([*FORM, "seed"]).any()
    return found


def of(models: pd.DataFrame, **where: Any) -> pd.DataFrame:
    for name, value in where.items():
        models = models[models[name].isin(value if isinstance(value, list) else [value])]
    return models[models["weight_decay"] == np.where(models["family"] == "point", *(
        PROTOCOL["families"][name]["weight_decay"] for name in ("point", "sequence")))]  # fmt: skip


@pytest.fixture(scope="module")
def of_d(models: pd.DataFrame) -> pd.DataFrame:
    """The rows of claim D, and their tasks."""
    claim = PROTOCOL["claims"]["D"]
    found = of(models, task=claim["tasks"], arm=claim["arms"])
    form = found["family"].map({"point": tuple(POINT.values()), "sequence": tuple(SEQUENCE.values())})
    return found[[tuple(row) == own for row, own in zip(found[list(POINT)].to_numpy().tolist(), form, strict=True)]]


def spearman(rows: pd.DataFrame, x: pd.Series) -> float:
    """Mean over tasks."""
    known = rows.assign(x=x)[np.isfinite(x)]
    return float(np.mean([stats.spearmanr(own["x"], own["test_accuracy"])[0] for _, own in known.groupby("task")]))


def test_accuracies(models: pd.DataFrame) -> None:
    table, groups = shipped("accuracies"), dict(iter(models.groupby(FORM)))
    assert len(table) == len(models[FORM].drop_duplicates()) and table["seeds"].sum() == len(models)
    for row in table.to_dict("records"):
        own = groups[tuple(row[name] for name in FORM)]
        assert row["seeds"] == own["seed"].nunique() == len(own) and row["parameters"] == own["parameters"].median()
        assert row["test_accuracy"] == pytest.approx(own["test_accuracy"].mean(), rel=1e-12)
        assert row["train_accuracy"] == pytest.approx(own["train_accuracy"].mean(), rel=1e-12)
        assert row["sd"] == pytest.approx(math.sqrt(own["test_accuracy"].var()), rel=1e-9)


def test_depths(models: pd.DataFrame) -> None:
    table, column = shipped("depths"), "scalar_median:live:calibrated"
    group = next(group for group in PROTOCOL["groups"] if group["name"] == "depth")
    assert len(table) == table["column"].nunique() * len(group["tasks"]) * len(group["arms"]) * len(group["depth"])
    assert column in set(table["column"])
    for row in table.to_dict("records"):
        own = of(models, task=row["task"], arm=row["arm"], depth=row["depth"], heads=1, residual=True, norm=True)
        logs = [math.log10(value) for value in own[row["column"]] if value > 0]
        assert row["seeds"] == len(logs)
        assert row["log10_mean"] == pytest.approx(np.mean(logs), rel=1e-9, abs=1e-12)
        assert row["error"] == pytest.approx(stats.sem(logs), rel=1e-9)


def test_mlps() -> None:
    raw, table = shipped("symmetries"), shipped("mlps")
    raw = raw[~raw["pilot"]]
    assert table["models"].sum() == len(raw)
    numbers = [name for name in table.columns if name not in ("side", "activation", "optimizer", "models")]
    assert {"test_loss", "exchange_defect", "charge_drift", "rank_one_error"} <= set(numbers)
    for row in table.to_dict("records"):
        own = raw[[tuple(one) == (row["side"], row["activation"], row["optimizer"])
                   for one in raw[["side", "activation", "optimizer"]].to_numpy().tolist()]]  # fmt: skip
        assert row["models"] == len(own)
        for name in numbers:
            assert row[name] == pytest.approx(np.nanmean(own[name]) if own[name].notna().any() else math.nan,
                                              rel=1e-9, abs=1e-15, nan_ok=True)  # fmt: skip


def test_measures(models: pd.DataFrame) -> None:
    """Gated next to ungated, seed by seed."""
    ratios, table = 0, shipped("measures")
    sides = {
        (task, arm): of(
            models, task=task, arm=arm, **(POINT if PROTOCOL["tasks"][task]["family"] == "point" else SEQUENCE)
        ).set_index("seed")
        for task in table["task"].unique()
        for arm in ("gated", "ungated")
    }
    for row in table.to_dict("records"):
        gated, ungated = (sides[row["task"], arm][row["column"]].astype(float) for arm in ("gated", "ungated"))
        pairs = [(g, u) for g, u in zip(gated, ungated.loc[gated.index], strict=True)
                 if math.isfinite(g) and math.isfinite(u)]  # fmt: skip
        assert row["seeds"] == len(pairs)
        higher = [0.5 if math.isclose(g, u, rel_tol=1e-9) else float(g > u) for g, u in pairs]
        assert row["higher"] == pytest.approx(np.mean(higher) if higher else math.nan, nan_ok=True)
        if math.isfinite(row["log10_ratio"]):
            ratios += 1
            volume = row["column"].startswith("log_volume")  # a natural logarithm by itself
            logs = [(g - u) / math.log(10) if volume else math.log10(g / u) for g, u in pairs]
            assert len(logs) == len(gated) and row["log10_ratio"] == pytest.approx(np.mean(logs), rel=1e-9, abs=1e-12)
            assert row["low"] <= row["log10_ratio"] <= row["high"]
        else:
            assert len(pairs) < len(gated) or any(g <= 0 or u <= 0 for g, u in pairs)
    assert ratios > 300


def test_gauge(of_d: pd.DataFrame) -> None:
    """A representation times c has scalar curvature times c^-2, and second fundamental forms of a length times c^-1."""
    rank = of_d.groupby("task")["test_accuracy"].rank() - 0.5
    factor = 2 ** (2 * rank / of_d.groupby("task")["test_accuracy"].transform("size") - 1)
    table = shipped("gauge")
    assert table["column"].str.startswith("scalar").any() and table["column"].str.contains("norm").any()
    for row in table.to_dict("records"):
        x, power = of_d[row["column"]], -2 if row["column"].startswith("scalar") else -1
        assert row["value"] == pytest.approx(spearman(of_d, x), abs=1e-9)
        ends = [row["value"]] * 3
        if row["column"].endswith(":unit"):
            ends += [spearman(of_d, x * factor**power), spearman(of_d, x * factor**-power)]
        assert (row["lowest"], row["highest"]) == pytest.approx((min(ends), max(ends)), abs=1e-9)


def test_correlations(of_d: pd.DataFrame) -> None:
    table = shipped("correlations")
    for method, of_two in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
        rows = table[table["method"] == method]
        for row in rows.to_dict("records"):
            known = of_d[np.isfinite(of_d[row["column"]])]
            assert (row["models"], row["tasks"]) == (len(known), known["task"].nunique())
            if row["level"] == "pooled":
                expected = of_two(known[row["column"]], known["test_accuracy"])[0]
            elif row["level"] == "within task":
                expected = np.mean([of_two(own[row["column"]], own["test_accuracy"])[0]
                                    for _, own in known.groupby("task")])  # fmt: skip
            else:
                continue
            assert row["value"] == pytest.approx(expected, abs=1e-9)
        assert {"pooled", "within task"} <= set(rows["level"])
