"""Timings side by side: the engines, what else computes the same numbers, and the floor below which none can go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fisherflat.lab.bench._plan import DTYPES, ON_REQUEST, SECTIONS, Plan
from fisherflat.lab.bench._report import plain, save, show, targets
from fisherflat.lab.bench._run import run
from fisherflat.lab.bench.maps import MOVING, NAMES

__all__ = [
    "DTYPES",
    "MOVING",
    "NAMES",
    "ON_REQUEST",
    "SECTIONS",
    "Plan",
    "bench",
    "plain",
    "run",
    "save",
    "show",
    "targets",
]


def bench(plan: Plan, out: Path | None = None, *, progress: bool = True) -> dict[str, Any]:
    """Run `plan`, print its tables, write them to the JSON file `out`; progress goes to standard error, if wanted.

    An interrupt ends it with the rows that are done by then.

    **Raises:** `InputError` where the file cannot be written.
    """
    results: dict[str, Any] = {}
    try:
        run(plan, lambda line: print(line, file=sys.stderr, flush=True) if progress else None, results)
    finally:
        if any(results.get(section) for section in plan.sections):
            show(results)
            if out is not None:
                save(results, out)
    return results
