"""Layers compared in all directions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from cases.stacks import Alone, Stack
from cases.surfaces import random
from torch import Tensor, nn
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat import cli
from fisherflat.errors import InputError


class Mixing(nn.Module):
    """Tokens see each other, through a nonlinearity."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(random(6, 6, seed=seed) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + (x @ self.weight + x.mean(0)).tanh()


STATES = random(5, 6, seed=3)


def analyzed(model: nn.Module, **options: Any) -> ff.Analysis:
    return ff.analyze(
        model, STATES, dim="full", parts=["block"], positions=[1], readings=["live"], progress=False, **options
    )


def test_each_layer_has_its_curvature_in_all_directions_and_the_interval() -> None:
    model = Stack(Mixing(0), Mixing(1)).double()
    rows = analyzed(model, layers=[0, 1]).table
    x = STATES
    for layer, row in zip(model.layers, rows.itertuples(), strict=False):
        outputs = layer(x).detach()
        chart = ff.charts.token(x, 1, torch.eye(6, dtype=torch.float64))
        covariance = ff.Gaussian.calibrated(ff.moves.pool([outputs], [ff.load(model).encode(STATES)]))
        exact = ff.StatisticalManifold(layer, chart, covariance).scalar_curvature(torch.zeros(6)).item()
        width = row.scalar_curvature_high - row.scalar_curvature_low
        assert row.scalar_curvature_low - width / 2 < exact < row.scalar_curvature_high + width / 2
        assert row.directions == 6 and row.planes >= 32
        assert (row.verdict == "curved") == (not row.scalar_curvature_low <= 0 <= row.scalar_curvature_high)
        assert row.mean_sectional_curvature == pytest.approx(row.scalar_curvature / 30)
        x = outputs


def test_what_a_norm_leaves_is_said() -> None:
    norm = nn.LayerNorm(6, elementwise_affine=False, eps=0.0)
    found = analyzed(Stack(Mixing(0), norm).double(), layers=[1])
    (row,) = found.rows
    assert row["verdict"] is None and "6 directions: the output tells" in row["error"]
    assert any(row["error"] in said for said in found.sentences())


def test_a_bijection_of_each_token_is_flat() -> None:
    model = Stack(Alone(6), Alone(6)).double()
    assert set(analyzed(model).table["verdict"]) == {"flat to its error"}


def test_a_token_and_its_own_output_are_flat_by_proof() -> None:
    (row,) = analyzed(Stack(Mixing(0), Mixing(1)).double(), layers=[0], output="moved").rows
    assert row["verdict"] == "flat (proved)" and row["planes"] == 0 and row["scalar_curvature"] == 0


def test_a_budget_that_ends_first_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fisherflat.studies.layers._full.BUDGET", 40)
    monkeypatch.setattr("fisherflat.studies.layers._full.ERROR", 1e-4)
    found = analyzed(Stack(Mixing(0), Mixing(1)).double(), layers=[0])
    assert found.table["planes"].tolist() == [40]
    assert any("40 random planes did not suffice for a standard error of 0.01 %" in note for note in found.notes)


def test_it_is_saved_read_and_shown(tmp_path: Path) -> None:
    found = analyzed(Stack(Mixing(2), Mixing(1)).double(), layers=[0])
    found.save(tmp_path)
    pd.testing.assert_frame_equal(ff.Analysis.load(tmp_path).table, found.table)
    page = Path(found.report(tmp_path / "page.html")).read_text()
    assert "in all directions" in page and "place by place" in page and "random planes" in page
    # one value stands for the layer: its interval is that of its sampling
    (estimate,) = found.estimates.to_dict("records")
    assert (estimate["level"], estimate["clusters"]) == ("plane", found.rows[0]["planes"])
    assert estimate["low"] == found.rows[0]["scalar_curvature_low"] < estimate["mean"] < estimate["high"]


def test_the_ends_of_an_interval_are_told_apart_and_nothing_is_over_nan(tmp_path: Path) -> None:
    found = analyzed(Stack(Mixing(2), nn.Linear(6, 6)).double())  # the second is flat by proof, of no planes
    cells = [cell for shown in found.overview() for column in shown.columns for cell in column.cells]
    (said,) = (str(cell).split("\n")[1].split(" to ") for cell in cells if " to " in str(cell))
    sampled = found.estimates[found.estimates["layer"] == 0].iloc[0]
    reach = (sampled["high"] - sampled["low"]) / 10
    assert abs(float(said[0]) - sampled["low"]) <= reach and abs(float(said[1]) - sampled["high"]) <= reach
    assert not re.search(r"<t[dh][^>]*>[^<]*\bnan\b", Path(found.report(tmp_path / "page.html")).read_text())


def test_all_directions_beside_two() -> None:
    found = ff.analyze(
        "python-llama", [1, 2, 3], moves=["random:0", ff.moves.Whole()], parts=["block"], positions=[1], layers=[0],
        readings=["live"], points=2, progress=False,
    )  # fmt: skip
    few, every = (found.along(moves).table for moves in found.moves)
    assert every["directions"].tolist() == [96] and len(few) == 2


def test_the_shell_takes_full(tmp_path: Path) -> None:
    options = ["--layer", "0", "--part", "block", "--position", "1", "--reading", "live", "--dim", "full"]
    done = CliRunner().invoke(cli.app, ["analyze", "python-llama", "--ids", "1,2,3", *options, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert pd.read_csv(tmp_path / "table.csv")["directions"].tolist() == [96]
    done = CliRunner().invoke(cli.app, ["analyze", "python-llama", "--ids", "1,2", "--dim", "most", "--out", "x"])
    assert done.exit_code == 2 and "full" in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"moves": "random"}, "no choice of moves"),
        ({"heads": "all"}, "heads needs a few directions"),
        ({"precision": "auto"}, "precision='auto' needs"),
        ({"depth": True, "folder": "nowhere"}, "depth is studied in a few directions"),
    ],
)
def test_what_does_not_go_with_all_directions_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ff.analyze("python-llama", [1, 2, 3], dim="full", progress=False, **options)


def test_another_word_for_the_directions_is_refused() -> None:
    with pytest.raises(InputError, match="a number of directions"):
        ff.analyze("python-llama", [1, 2, 3], dim="most", progress=False)
