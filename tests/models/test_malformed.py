"""Checkpoints that are damaged: each ends in an error of ours, whatever the way that weights are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from cases.damaged import outcome, wholes


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return wholes(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("tens", range(5))
def test_every_tenth(tens: int, folders: list[Path], tmp_path: Path) -> None:
    """Damages of all kinds: an error of ours, or, where nothing that matters was damaged, the same model both ways."""
    numbers = [100 * tens + 11 * i for i in range(10)]
    found = {number: outcome(number, folders, tmp_path) for number in numbers}
    assert {number: said for number, said in found.items() if said not in ("read", "refused")} == {}
    assert "refused" in found.values()
