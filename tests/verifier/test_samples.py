"""Samples of what `honesty.py` and `mutations.py` count; docs/reliability.md has the whole of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import honesty
import mutations

CALLS = {name: (mean, chart) for name, mean, chart in honesty.of_rules() if name.endswith("[0]")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_what_was_proved_of_an_op_is_verified(name: str) -> None:
    found = honesty.judged(*CALLS[name])
    assert found.endswith("verified") or found == "no certificate"


@pytest.mark.parametrize("seed", range(4))
def test_changed_files_are_refused(seed: int) -> None:
    counts = mutations.run(60, seed + 1000)
    assert set(counts) <= {"refused", "accepted"}
    assert counts["refused"] > counts["accepted"]
