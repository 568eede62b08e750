"""Warnings point at the user's line, and silence in one thread is none of another's."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import pytest
import torch
from cases.tiny_models import tiny_model

import fisherflat as ff
from fisherflat.errors import DegenerateImmersionWarning, FisherflatWarning, warn, without

ZERO = torch.zeros(2, dtype=torch.float64)


def squares() -> ff.StatisticalManifold:
    return ff.StatisticalManifold(lambda u: u**2, ff.charts.identity(2), degenerate="nan")


def line(lambda_: Any) -> int:
    return lambda_.__code__.co_firstlineno


CALLS = {
    "half an array": lambda: ff.charts.affine(torch.zeros(3, dtype=torch.float16), torch.eye(3)[:2]),
    "half a module": lambda: ff.StatisticalManifold(torch.nn.Linear(2, 3).half(), ff.charts.identity(2)),
    "a degenerate point": lambda: squares().metric(ZERO),
    "all at once": lambda: squares().at(ZERO).ricci,
    "a mixture": lambda: ff.analyze(tiny_model("afmoe"), [5, 6, 7, 8, 9, 11], layers=[1], points=9, progress=False),
}  # fmt: skip


@pytest.mark.parametrize("kind", CALLS)
def test_warnings_point_at_the_line_of_the_user(kind: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALLS[kind]()
    mine = [w for w in caught if issubclass(w.category, FisherflatWarning)]
    if kind != "all at once":
        assert mine
    assert {(w.filename, w.lineno) for w in mine} <= {(__file__, line(CALLS[kind]))}


def test_one_thread_is_silent_alone() -> None:
    inside, done = threading.Event(), threading.Event()

    def silent() -> None:
        with without(DegenerateImmersionWarning):
            warn("unheard", DegenerateImmersionWarning)
            inside.set()
            done.wait(10)

    filters = list(warnings.filters)
    thread = threading.Thread(target=silent)
    with pytest.warns(DegenerateImmersionWarning, match="^heard$"):
        thread.start()
        inside.wait(10)
        warn("heard", DegenerateImmersionWarning)
    done.set()
    thread.join()
    assert list(warnings.filters) == filters
