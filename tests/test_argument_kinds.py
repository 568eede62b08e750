"""Arguments of every kind are taken, or refused with errors of ours: see `cases/arguments.py`."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import ROOT


def test_arguments_are_taken_or_refused_with_errors_of_ours() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", ROOT / "tests" / "cases" / "arguments.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(", 0 wrong\n")
