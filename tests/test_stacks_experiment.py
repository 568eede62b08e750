"""The experiment with random stacks: what theory says of its readings, and its table."""

from __future__ import annotations

import sys

import pytest
import torch

from fisherflat.experiments import stacks


@pytest.mark.parametrize(
    ("position", "flat"), [(None, True), ("query", True), ("output", False), ("value", False), ("projection", False)]
)
def test_a_frozen_stack_is_curved_by_its_gates_alone(position: str | None, flat: bool) -> None:
    """A gate on queries acts only through the pattern, and is frozen with it."""
    found = stacks.trajectories(8, position, 0.5, seeds=2, depth=3)
    assert found["live"].shape == found["frozen pattern"].shape == (3, 2)
    assert (found["live"] > 0).all()
    assert ((found["frozen pattern"] == 0) == flat).all()


def test_seeds_repeat_and_differ() -> None:
    one, again = (stacks.trajectories(8, None, 0.5, seeds=2, depth=1)["live"] for _ in range(2))
    assert torch.equal(one, again)
    assert one[0, 0] != one[0, 1]


def test_the_table_has_a_row_for_each_stack_and_reading(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WIDTHS": (8,), "SCALES": (1.0,), "POSITIONS": (None, "output")}.items():
        monkeypatch.setattr(stacks, name, value)
    monkeypatch.setattr(sys, "argv", ["stacks", "--seeds", "2"])
    stacks.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 4
    assert lines[3] == "| 8 | 1.0 | none | frozen pattern | 0 | 0 | flat at every depth |"
    monkeypatch.setattr(sys, "argv", ["stacks", "--seeds", "1"])
    with pytest.raises(SystemExit):
        stacks.main()
