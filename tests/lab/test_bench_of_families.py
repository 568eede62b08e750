"""The sections of the benchmark on families and geodesics: that both sides do what is compared."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

import fisherflat as ff
from fisherflat.lab.bench import Plan, families, geodesics, targets
from fisherflat.lab.bench._measure import Spread
from fisherflat.lab.bench._report import tables


def test_geodesics_agree_before_they_are_timed() -> None:
    row = geodesics.over_ours("attention-8", pairs=1, repeats=1)
    assert row["agrees"] and row["difference"] < 1e-8
    assert row["our_error"] < 1e-8 and row["their_error"] <= 10 * row["our_error"]
    assert row["geomstats_over_ours"].median > 1
    assert next(tables({"environment": {"quick": True}, "geodesics": [row]})).rows[0][:3] == ("attention-8", "2", "1")


def test_geodesics_that_differ_are_named_and_not_timed(monkeypatch: Any) -> None:
    log = ff.StatisticalManifold.log

    def wrong(self: Any, start: Tensor, end: Tensor) -> Tensor:
        return 1.01 * log(self, start, end)

    monkeypatch.setattr(ff.StatisticalManifold, "log", wrong)
    row = geodesics.over_ours("attention-8", pairs=1, repeats=1)
    assert not row["agrees"] and "seconds" not in row and row["our_error"] > 0.005
    results = {"environment": {"quick": False, "gpu": None}, "geodesics": [row]}
    assert targets(results) == [] and "they differ by 1e-02" in next(tables(results)).rows[0]


def test_without_geomstats_geodesics_are_refused_where_they_are_asked_for(monkeypatch: Any) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "geomstats" else find(name))
    with pytest.raises(ff.errors.InputError, match=r"pip install 'fisherflat\[bench\]'"):
        Plan(only=("geodesics",))
    Plan()  # all sections, of which this one is left out


@pytest.mark.parametrize("name", families.FAMILIES)
def test_families_are_compared_on_outputs_that_are_their_parameters(name: str) -> None:
    family, count = families.FAMILIES[name]
    made = families.subject("attention-64", 2, tokens=1)
    module: Any = made.module
    first = families.First(module, count)
    assert torch.equal(first(made.chart.point), module(made.chart.point)[:, :count])
    found = ff.StatisticalManifold(first, made.chart, family).scalar_curvature(made.points(1))
    assert found.isfinite().all()


def test_what_families_and_geodesics_promise() -> None:
    row = {"family": "Poisson", "map": "attention-64", "k": 4, "points": 9}
    results = {
        "environment": {"quick": False, "gpu": None},
        "families": [row | {"family_over_gaussian": Spread(ratio, 1, 2)} for ratio in (1.2, 1.4)],
        "geodesics": [
            {"map": "attention-64", "k": 2, "pairs": 64, "geomstats_over_ours": Spread(ratio, 9, 50)}
            for ratio in (19.0, 21.0)
        ],
    }
    assert [(t.measured, t.reached) for t in targets(results)] == [
        (1.2, True), (1.4, False), (19.0, False), (21.0, True)
    ]  # fmt: skip
