"""The experiment with random stacks: what theory says of its readings, and its table."""

from __future__ import annotations

import csv
import sys
from functools import partial
from pathlib import Path

import pytest
from cases.closeness import assert_same

from fisherflat.lab.experiments import stacks
from fisherflat.lab.experiments.stacks import Kind, trajectories


@pytest.mark.parametrize(
    ("gate", "mlp", "flat"),
    [
        ("none", "none", {"frozen pattern", "frozen pattern+gate+mlp gate"}),
        ("query", "none", {"frozen pattern", "frozen pattern+gate+mlp gate"}),  # acts only through the pattern
        ("key", "none", {"frozen pattern", "frozen pattern+gate+mlp gate"}),
        ("output", "none", {"frozen pattern+gate+mlp gate"}),
        ("value", "none", {"frozen pattern+gate+mlp gate"}),
        ("projection", "none", {"frozen pattern+gate+mlp gate"}),
        ("none", "gated", {"frozen pattern+gate+mlp gate"}),
        ("output", "plain", set()),  # an activation without a gate is not held
    ],
)
def test_which_readings_are_flat(gate: str, mlp: str, flat: set[str]) -> None:
    """Exactly zero where all that is left is affine, and nowhere else."""
    found = trajectories(Kind(gate, mlp, 8, 0.5), seeds=2, depth=3)
    for reading, values in found.items():
        assert values.shape == (3, 2)
        assert ((values == 0) == (reading in flat)).all(), reading


def test_seeds_repeat_and_differ() -> None:
    one, again = (trajectories(Kind("none", "none", 8, 0.5), seeds=2, depth=1)["live"] for _ in range(2))
    assert_same(one, again)
    assert one[0, 0] != pytest.approx(one[0, 1])


def test_the_table_and_the_file_hold_every_stack_and_reading(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(stacks, "POSITIONS", ("none", "output"))
    monkeypatch.setattr(stacks, "trajectories", partial(trajectories, depth=4))
    options = ["--seeds", "2", "--mlp", "none", "--width", "8", "--out", str(tmp_path / "stacks.csv")]
    monkeypatch.setattr(sys, "argv", ["stacks", *options])
    stacks.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| MLP | gate | reading | 8, 0.3 | 8, 1.0 |"
    assert len(lines) == 2 + 2 * 3
    assert lines[3] == "| none | none | frozen pattern | flat | flat |"
    with open(tmp_path / "stacks.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 3
    live = trajectories(Kind("output", "none", 8, 1.0), seeds=2, depth=4)["live"]
    (row,) = [r for r in rows if (r["gate"], r["scale"], r["reading"]) == ("output", "1.0", "live")]
    assert float(row["last"]) == pytest.approx(live[-1].mean().item())
    monkeypatch.setattr(sys, "argv", ["stacks", "--seeds", "1"])
    with pytest.raises(SystemExit):
        stacks.main()
