"""The section of the benchmark on quantities that need no whole 2-jet."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fisherflat as ff
from fisherflat.lab.bench import traces
from fisherflat.lab.bench._report import tables


def test_both_sides_agree_before_they_are_timed() -> None:
    row = traces.over_whole("attention-8", 12, 1)
    assert row["agrees"]
    for name in traces.QUANTITIES:
        assert row[name]["difference"] < 1e-12 and row[name]["whole_over_it"].median > 0
    assert next(tables({"environment": {"quick": True}, "traces": [row]})).rows[0][:2] == ("attention-8", "12")


def test_numbers_that_differ_are_named_and_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, u: Tensor) -> Tensor:
        return self.at(u).metric + torch.eye(self.k)

    monkeypatch.setattr(ff.StatisticalManifold, "metric", wrong)
    row = traces.over_whole("attention-8", 12, 1)
    assert not row["agrees"] and "whole" not in row and row["mean_curvature"]["difference"] < 1e-12
    assert "they differ by" in next(tables({"environment": {"quick": True}, "traces": [row]})).rows[0][2]
