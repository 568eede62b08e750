"""What a page says of how its numbers were made is what was asked for, and its command asks for the same."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat.cli import app

QUICK: dict[str, Any] = {"layers": [0], "parts": ["attention"], "points": 2, "positions": "last"}


@pytest.mark.parametrize(
    ("asked", "said", "options"),
    [
        ({"precision": "auto"}, "in more bits", ["--more-bits"]),
        ({"covariance": "diagonal", "output": "moved"}, "the variance of each output", ["diagonal", "--output moved"]),
        ({"covariance": 2.0}, "the covariance is 2.0, the same for all parts", ["--covariance 2.0"]),
        ({}, "σ² is the mean variance", []),
    ],
    ids=["bits", "diagonal", "number", "usual"],
)  # fmt: skip
def test_an_analysis(asked: dict[str, Any], said: str, options: list[str], tmp_path: Path) -> None:
    analysis = ff.analyze("python-llama", "def mean(values):", progress=False, **QUICK, **asked)
    page = unescape(analysis.report(tmp_path / "page.html").read_text())
    assert said in re.sub(r"<[^>]+>", "", page)
    commands = [line for line in page.splitlines() if "fisherflat analyze" in line]
    assert commands and all(option in "".join(commands) for option in options)
    assert options or not {"--more-bits", "--covariance", "--output"} & set("".join(commands).split())


def test_the_command_measures_in_more_bits(tmp_path: Path) -> None:
    words = ["analyze", "python-llama", "--layer", "0", "--part", "mlp", "--points", "1", "--position", "last"]
    words += ["--prompt", "def f(x):"]
    done = CliRunner().invoke(app, [*words, "--more-bits", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "analysis.json").read_text())["settings"]["precision"] == "auto"


def test_a_study_of_depth_in_more_bits(tmp_path: Path) -> None:
    words = ["depth", "python-llama", "--ids", "1,2,3", "--reading", "live", "--points", "1", "--budget-points", "0"]
    words += ["--resolution", "0", "--no-halves", "--position", "0"]
    done = CliRunner().invoke(app, [*words, "--more-bits", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    page = unescape((tmp_path / "report.html").read_text())
    assert "with few right digits in more bits" in page
    again = next(line for line in page.splitlines() if "fisherflat depth" in line)
    assert "--more-bits" in again and "--position 0" in again  # the first token, and no budgets and maps
    assert "--budget-points 0" in again and "--resolution 0" in again


def test_a_study_of_depth_says_what_its_tables_matter(tmp_path: Path) -> None:
    """The same sentence as an analysis, as it is the same model."""
    options: dict[str, Any] = {"points": 1, "budget_points": 0, "resolution": 0, "readings": ["live"]}
    found = ff.study_depth("python-llama", "def mean(values):", progress=False, **options)
    tables = [note for note in ff.analyze("python-llama", "def mean(values):", progress=False, **QUICK).notes
              if note.startswith("Tables that")]  # fmt: skip
    assert len(tables) == 1 and tables[0] in found.settings["notes"]
    assert tables[0] in unescape(found.report(tmp_path / "page.html").read_text())
    control = ff.study_depth(ff.control("python-llama", "shuffled weights"), "foo bar", progress=False, **options)
    assert any("This is a control" in note for note in control.settings["notes"])


def test_a_command_repeats_zeros(tmp_path: Path) -> None:
    """None of them is the default, which leaving them out would mean."""
    options: dict[str, Any] = {"points": 1, "budget_points": 0, "resolution": 0, "readings": ["live"]}
    found = ff.study_depth("python-llama", [1, 2, 3], progress=False, **options)
    page = unescape(found.report(tmp_path / "page.html").read_text())
    (line,) = [line for line in page.splitlines() if "fisherflat depth" in line]
    assert "--points 1 --budget-points 0 --resolution 0" in line
