"""Arguments of every kind are taken, or refused with errors of ours: see `cases/arguments.py` and `cases/kinds.py`."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("table", ["arguments", "kinds"])
def test_arguments_are_taken_or_refused_with_errors_of_ours(table: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", ROOT / "tests" / "cases" / f"{table}.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(", 0 wrong\n")
