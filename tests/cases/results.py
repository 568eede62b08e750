"""Results of every kind, small and made once, and all of their figures; some of them edited to be awkward."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import fisherflat as ff
from cases.tiny_models import tiny_model
from fisherflat.lab.demo import demo
from fisherflat.lab.reproduce import language
from fisherflat.models import Model
from fisherflat.report import DepthStudy, Result, SymmetryStudy

IDS, OTHER = [5, 6, 7, 8, 9, 11], [12, 4, 8, 30]
#: markup, mathematics, commands to a terminal, letters that fonts lack, and no place to break a line
HOSTILE = "<script>$\\frac{x$ %s \x1b[31m{0} 日本語 " + "W" * 200


def _analysis() -> ff.Analysis:
    return ff.analyze(Model(tiny_model("afmoe")), [IDS, OTHER], points=2, heads=[0, 2], progress=False)


def _undecided() -> ff.Analysis:
    """As if the curvature were undecided at one point of each layer, and wholly so in the last."""
    found = made("analysis")
    last = max(row["layer"] for row in found.rows)
    at = [row["verdict"] == "curved" and (row["point"] == 0 or row["layer"] == last) for row in found.rows]
    rows = [row | {"verdict": "undecided"} if one else row for row, one in zip(found.rows, at, strict=True)]
    return ff.Analysis(rows, model="tiny-afmoe", settings=found.settings, complete=True)


def _hostile() -> ff.Analysis:
    found = made("analysis")
    rows = [row | {"text": HOSTILE} for row in found.rows]
    return ff.Analysis(rows, model=HOSTILE, settings=found.settings, complete=True)


def _hostile_depth() -> DepthStudy:
    found = made("depth")
    return DepthStudy(**vars(found) | {"model": HOSTILE, "text": HOSTILE, "token": HOSTILE})


def _many_layers() -> SymmetryStudy:
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"layer": np.repeat(np.arange(12), 40), "unit": np.tile(np.arange(40), 12)})
    numbers = {name: rng.uniform(0, 1, 480) for name in ("positive", "strength", "effective_degree", "exchange_defect")}
    return SymmetryStudy(
        "twelve-layers", table.assign(**numbers, negative=-rng.uniform(0, 1, 480)), [], [], True, {"texts": ["a b"]}
    )


RESULTS: dict[str, Callable[[], Result]] = {
    "analysis": _analysis,
    "a single point": lambda: ff.analyze(
        Model(tiny_model("afmoe")), IDS, positions="last", points=1, layers=[0], progress=False
    ),
    "depth": lambda: ff.study_depth(Model(tiny_model("afmoe")), IDS, points=6, resolution=4, progress=False),
    "symmetry": lambda: ff.symmetry.study(Model(tiny_model("mixtral")), IDS, progress=False),
    "undecided": _undecided,
    "hostile": _hostile,
    "a hostile depth": _hostile_depth,
    "many parts": lambda: ff.study_depth(
        "python-qwen3-next", IDS, points=2, budget_points=2, resolution=3, progress=False
    ),
    "many layers": _many_layers,
    "comparison": lambda: ff.compare(
        ["python-llama", "python-qwen3-next"], [5, 6, 7, 8], layers=[0, 1], parts=["attention", "mlp"],
        readings=["live"], points=2, progress=False,
    ),
    "track": lambda: ff.track(
        ["python-llama", "python-qwen3-next"], [5, 6, 7, 8], layers=[0, 1], parts=["mlp"], readings=["live"],
        points=2, progress=False,
    ),
}  # fmt: skip


@cache
def made(name: str) -> Any:
    """A result by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RESULTS[name]()


def _reproduced() -> Figure:
    rows = [
        {"model": model, "reading": reading, "layer": str(layer), "trained": 10.0 ** (layer - 3), "untrained": 0.01}
        for model in ("python-llama", "python-qwen3-next")
        for reading in ("live", "frozen pattern")
        for layer in range(4)
    ]
    return language.figure(rows).draw()


#: figures that are of no `Result`
OTHERS: dict[str, Callable[[], Figure]] = {
    "demo": lambda: demo(9).figure(),
    "language": _reproduced,
}


@cache
def figures(name: str) -> dict[str, Figure]:
    """All figures of a result, drawn, with the layout that they have in a file."""
    with strict():
        drawn = {name: OTHERS[name]()} if name in OTHERS else dict(made(name).plot())
        for figure in drawn.values():
            figure.draw_without_rendering()
    return drawn


@contextmanager
def strict() -> Iterator[None]:
    """Nothing warns, of letters or of layout."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
