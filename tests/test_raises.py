"""Each documented *Raises* is raised, for each of its reasons: see `cases/raises.py`."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import ROOT


def test_each_documented_raises_is_raised() -> None:
    """And whoever documents another reason is told that nothing shows it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", ROOT / "tests" / "cases" / "raises.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(", 0 wrong\n")
