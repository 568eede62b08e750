"""What a figure shows is in a table beside it, and is called there what it is called here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from cases.results import made
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection, PolyCollection, QuadMesh
from matplotlib.patches import Rectangle

import fisherflat as ff
from fisherflat.report import Result

matplotlib.use("agg")
pytestmark = pytest.mark.xdist_group("results")  # which are made once in a process

NAMES = ("analysis", "a single point", "depth", "symmetry", "many parts", "many layers")


def drawn(ax: Axes) -> Iterator[np.ndarray]:
    """All numbers that the axes show as lengths, heights or colours."""
    for line in ax.get_lines():
        if line.get_transform() == ax.transData and len(set(np.atleast_1d(line.get_ydata()))) > 0:
            yield np.asarray(line.get_ydata(), dtype=float)
    for image in ax.images:
        yield np.ma.filled(np.ma.masked_invalid(image.get_array()), np.nan)
    for patch in ax.patches:
        if isinstance(patch, Rectangle) and patch.get_fill():  # a bar, and no hatching over a cell
            yield np.array([patch.get_height()])
    for shapes in ax.collections:
        if isinstance(shapes, QuadMesh):
            yield np.ma.filled(np.ma.masked_invalid(shapes.get_array()), np.nan)
        elif isinstance(shapes, PathCollection):
            yield np.abs(np.asarray(shapes.get_offsets()))
        elif isinstance(shapes, LineCollection):
            yield from (np.asarray(segment).reshape(-1, 2)[:, 1] for segment in shapes.get_segments())
        elif isinstance(shapes, PolyCollection):
            yield from (path.vertices[:, 1] for path in shapes.get_paths())


def numbers(tables: dict[str, pd.DataFrame]) -> np.ndarray:
    columns = [table[name] for table in tables.values() for name in table.select_dtypes("number")]
    found = np.concatenate([np.asarray(column, dtype=float) for column in columns])
    return np.unique(np.abs(found[np.isfinite(found)]))


#: what axes hold beside numbers: zero, the border of a diagram, its guides
def _guides(name: str) -> list[float]:
    return [0.0, 2**0.5] if name == "strength" else [0.0]


@pytest.fixture(scope="module", params=NAMES)
def found(request: pytest.FixtureRequest) -> Result:
    return made(request.param)


def test_every_number_of_a_figure_is_in_a_table_beside_it(found: Result, tmp_path: Path) -> None:
    found.save(tmp_path)
    tables = {path.stem: pd.read_csv(path) for path in tmp_path.glob("*.csv")}
    for path in tmp_path.glob("patterns.json"):
        weights = [np.ravel(pattern["weights"]) for pattern in json.loads(path.read_text())["patterns"]]
        tables["patterns"] = pd.DataFrame({"weight": np.concatenate(weights)})
    assert found.figures
    for name, figure in found.figures.items():
        known = np.concatenate([numbers(tables), _guides(name)])
        known.sort()
        count = 0
        for ax in figure.draw().axes:
            if ax.get_label() == "<colorbar>" or not ax.get_visible():
                continue
            for values in drawn(ax):
                shown = np.abs(np.asarray(values, dtype=float).ravel())
                shown = shown[np.isfinite(shown)]
                if name == "forms":  # a diagonal to read it by
                    shown = shown[: 0 if len(shown) == 2 and shown[0] == 0 else None]
                if name.startswith("budget_by_layer"):
                    shown = shown[shown > 0]
                place = np.searchsorted(known, shown).clip(1, len(known) - 1)
                nearest = np.minimum(np.abs(known[place] - shown), np.abs(known[place - 1] - shown))
                wrong = nearest > 1e-9 * shown
                assert not wrong.any(), f"{name}: {shown[wrong][:3]} are in no table"
                count += len(shown)
        assert count > 0, name


def test_the_statistic_is_named_and_is_the_same_everywhere(found: Any) -> None:
    """Signs in figures and on the terminal agree, since both are means."""
    for name, figure in found.figures.items():
        if name in ("layers", "gaps") or name.startswith("profile"):
            canvas = figure.draw()
            legends = [*canvas.legends, *(ax.get_legend() for ax in canvas.axes if ax.get_legend())]
            assert {legend.get_title().get_text() for legend in legends} == {"means, with 95 % intervals"}
    if isinstance(found, ff.Analysis):
        means = found.table[found.table.verdict.notna()].groupby(["layer", "part", "reading"]).scalar_curvature.mean()
        estimates = found.estimates.set_index(["layer", "part", "reading"])["mean"]
        np.testing.assert_allclose(estimates.sort_index(), means.sort_index(), rtol=1e-12)
