"""Panels by part, gaps and heads: what is drawn where, and whether it fits."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pandas as pd
import pytest

from fisherflat import plot
from fisherflat.errors import InputError

matplotlib.use("agg")


def table(parts: dict[str, list[str]], layers: int = 4) -> pd.DataFrame:
    rows = [
        {"layer": layer, "part": part, "reading": reading, "prompt": prompt, "verdict": "curved",
         "scalar_curvature": (layer + 1.0) * (index + 1) + 0.1 * prompt}
        for part, readings in parts.items()
        for index, reading in enumerate(readings)
        for layer in range(layers)
        for prompt in range(3)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_reading_looks_the_same_in_every_panel() -> None:
    axes = plot.layers_by_part(
        table({"attention": ["live", "frozen pattern"], "block": ["frozen pattern"], "head 1": ["live"]})
    )
    assert [ax.get_title(loc="left") for ax in axes] == ["attention", "block"]
    lines = [{line.get_label(): line for line in ax.get_lines() if line.get_label()[0] != "_"} for ax in axes]
    assert set(lines[0]) == {"live", "frozen pattern"} and set(lines[1]) == {"frozen pattern"}
    looks = [(line["frozen pattern"].get_color(), line["frozen pattern"].get_marker()) for line in lines]
    assert looks[0] == looks[1]
    np.testing.assert_allclose(lines[0]["live"].get_ydata(), [1.1, 2.1, 3.1, 4.1])
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["live", "frozen pattern"]
    assert all(ax.get_legend() is None for ax in axes)
    figure = axes[0].figure
    figure.canvas.draw()
    for artist in (legend, *(ax.yaxis.label for ax in axes)):
        box = artist.get_window_extent()
        assert figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    with pytest.raises(InputError, match="2 parts, and there are 1 axes"):
        plot.layers_by_part(table({"mlp": ["live"], "block": ["live"]}), axes=axes[:1])


def test_gaps_have_their_intervals() -> None:
    rows = [
        {"layer": layer, "part": part, "gate": "gate", "mean": sign * (layer + 1), "low": sign * (layer + 1) - 0.5,
         "high": sign * (layer + 1) + 0.25}
        for part, sign in (("attention", 1.0), ("head 0", 1.0))
        for layer in range(3)
    ]  # fmt: skip
    ax = plot.gaps(pd.DataFrame(rows))
    (container,) = ax.containers
    assert list(container.lines[0].get_ydata()) == [1, 2, 3]
    (bars,) = container.lines[2]
    np.testing.assert_allclose(
        [segment[:, 1] for segment in bars.get_segments()], [[0.5, 1.25], [1.5, 2.25], [2.5, 3.25]]
    )
    assert container.get_label() == "gate in attention"
    with pytest.raises(InputError, match="nothing to draw"):
        plot.gaps(pd.DataFrame(rows[3:]))


def test_heads_are_cells_and_flat_ones_are_hatched() -> None:
    rows = [
        {"layer": layer, "part": f"head {head}", "reading": "live", "prompt": prompt,
         "verdict": "flat to its error" if head == 2 else "curved",
         "scalar_curvature": 1e-18 if head == 2 else -(10.0 ** (layer - head)) * (1 + prompt)}
        for layer in range(2)
        for head in (0, 2, 10)
        for prompt in range(3)
    ]  # fmt: skip
    ax = plot.heads(pd.DataFrame(rows))
    cells = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(cells, [[-2.0, 0.0, -2e-10], [-20.0, 0.0, -2e-9]])
    assert [(patch.get_x(), patch.get_y()) for patch in ax.patches] == [(0.5, -0.5), (0.5, 0.5)]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "2", "10"]
    low, high = ax.images[0].get_clim()
    assert low == -high and math.isclose(high, 20.0)
    with pytest.raises(InputError, match="no heads in the reading 'frozen gate'"):
        plot.heads(pd.DataFrame(rows), reading="frozen gate")


def test_a_head_of_negligible_image_takes_no_colour_from_the_others() -> None:
    rows = [
        {"layer": 0, "part": f"head {head}", "reading": "live", "prompt": prompt, "verdict": "curved",
         "scalar_curvature": -1e6 if small else -2.0 * (1 + head), "negligible_image": small}
        for head, of in enumerate([(False, False), (True, True), (True, False)])
        for prompt, small in enumerate(of)
    ]  # fmt: skip
    ax = plot.heads(pd.DataFrame(rows))
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), [[-2.0, 0.0, -6.0]])
    assert ax.images[0].get_clim() == (-6.0, 6.0)
    (dotted,) = ax.patches
    assert dotted.get_x() == 0.5 and set(dotted.get_hatch()) == {"."}
