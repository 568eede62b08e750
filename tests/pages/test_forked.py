"""Charts in a process that was forked after the converter had run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FORKED = """
import os
from fisherflat.pages._vega import svg

length = {"y": {"field": "a", "type": "quantitative"}}
spec = {"mark": "bar", "data": {"values": [{"a": 1}, {"a": 3}]}, "encoding": length}
before = svg(spec)
if child := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os._exit(0 if svg(spec) == before else 3)
"""


def test_a_forked_process_draws_the_same_and_does_not_wait_for_threads_that_it_has_not() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
