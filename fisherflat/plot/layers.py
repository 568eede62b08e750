"""Curvature by layer of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fisherflat.errors import InputError
from fisherflat.plot.style import CURVATURE_LABEL, MARKERS, OKABE_ITO, axes_for, profile_axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_STYLES = {"live": "-", "frozen pattern": "--"}


def layers(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Scalar curvature by layer, one line for each part and reading of a model.

    The line is the median over prompts, positions and points, the bar at each layer their middle half. The vertical
    axis is symmetric logarithmic when they span more than two decades, and linear otherwise.

    **Args:** `table`, as of `fisherflat.analyze`, with columns `layer`, `part`, `reading` and `scalar_curvature`; `ax`,
    to draw into (default: a new figure one column wide, 3.4 inches).

    **Raises:** `InputError` where a column is missing or no finite number is left.
    """
    missing = [name for name in ("layer", "part", "reading", "scalar_curvature") if name not in table.columns]
    if missing:
        raise InputError(f"the table has no column {missing[0]!r}; pass the table of fisherflat.analyze")
    rows = table[np.isfinite(table["scalar_curvature"])]
    if rows.empty:
        raise InputError("the table holds no finite scalar curvature, so there is nothing to draw")
    ax = axes_for(ax, (3.4, 2.8))
    groups = list(rows.groupby(["part", "reading"], sort=False))
    drawn = []
    for index, ((part, reading), group) in enumerate(groups):
        by_layer = group.groupby("layer")["scalar_curvature"]
        low, median, high = (by_layer.quantile(q) for q in (0.25, 0.5, 0.75))
        colour, marker = OKABE_ITO[index % len(OKABE_ITO)], MARKERS[index % len(MARKERS)]
        style, label = _STYLES.get(reading, ":"), f"{part}, {reading}"
        x = median.index + 0.1 * (index - (len(groups) - 1) / 2)  # side by side, so that bars do not hide each other
        ax.plot(x, median, color=colour, marker=marker, ms=3.5, linestyle=style, lw=1, label=label, zorder=3)
        ax.vlines(x, low, high, color=colour, linewidth=1.5, alpha=0.5)
        drawn += [low, median, high]
    profile_axis(ax, np.abs(np.concatenate(drawn)), "layer", CURVATURE_LABEL)
    return ax
