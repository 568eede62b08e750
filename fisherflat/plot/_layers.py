"""Curvature by layer of a model, by head, and what its gates add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fisherflat.errors import InputError
from fisherflat.geometry import FLAT_WORDS, Verdict
from fisherflat.parts.readings import order
from fisherflat.plot._style import (
    COLOURS,
    COLUMN,
    CURVATURE_LABEL,
    MARKERS,
    OKABE_ITO,
    STATISTIC,
    axes_for,
    profile_axis,
)
from fisherflat.statistics import by_group

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

UNDECIDED = Verdict.UNDECIDED
#: line styles beside colours, for print in grey
_STYLES = ("-", "--", "-.", ":")


def layers(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Scalar curvature by layer, one line for each part and reading of a model; heads are left out.

    The line is the mean over prompts, positions and points, the bar at each layer its bootstrap interval, as in
    `estimates` of an `Analysis` (`fisherflat.statistics.by_group`). The vertical axis is symmetric logarithmic when
    they span more than two decades, and linear otherwise. Undecided points are left out; a cross on the axis says in
    which layers there are such. Where there are many readings, `layers_by_part` is easier to read.

    **Args:**

    - `table`, as of `fisherflat.analyze`, with columns `layer`, `part`, `reading` and `scalar_curvature` [1/σ²].
    - `ax`, to draw into (default: a new figure one column wide, 3.4 inches).

    **Returns:** the axes. **Raises:** `InputError` where a column is missing or no finite number is left.

    >>> import pandas as pd, fisherflat as ff
    >>> rows = [{"layer": i, "part": "mlp", "reading": "live", "scalar_curvature": 0.1 * i} for i in range(3)]
    >>> ff.plot.layers(pd.DataFrame(rows)).get_lines()[0].get_label()
    'mlp, live'
    """
    rows = _whole_parts(table)
    ax = axes_for(ax, (COLUMN, 2.8))
    kinds = list(dict.fromkeys(zip(rows["part"], rows["reading"], strict=True)))
    _lines(rows, ax, {kind: (index, ", ".join(kind)) for index, kind in enumerate(kinds)})
    return ax


def layers_by_part(table: pd.DataFrame, *, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """The lines of `layers` in one panel for each part, one above the other, in which a reading always looks the same.

    **Args:** `table` as in `layers`; `axes`, as many as there are parts (default: a new figure one column wide).

    **Returns:** the axes. **Raises:** `InputError` as `layers`, and for axes that are not as many as parts.

    >>> import pandas as pd, fisherflat as ff
    >>> rows = [{"layer": i, "part": "mlp", "reading": "live", "scalar_curvature": 0.1 * i} for i in range(3)]
    >>> [ax.get_title(loc="left") for ax in ff.plot.layers_by_part(pd.DataFrame(rows))]
    ['mlp']
    """
    rows = _whole_parts(table)
    parts, readings = list(dict.fromkeys(rows["part"])), sorted(set(rows["reading"]), key=order)
    panels = _stacked(len(parts)) if axes is None else axes
    if len(panels) != len(parts):
        raise InputError(f"the table has {len(parts)} parts, and there are {len(panels)} axes")
    for part, ax in zip(parts, panels, strict=True):
        looks = {(part, reading): (index, reading) for index, reading in enumerate(readings)}
        _lines(rows[rows["part"] == part], ax, looks)
        ax.set_title(part, fontsize=9, loc="left", pad=3)
        ax.set_ylabel("scal [1/σ²]", fontsize=9)
        ax.legend_ = None  # there is one for all of them
        ax.label_outer()
    handles = {label: h for ax in panels for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    panels[0].figure.legend(
        [handles[reading] for reading in readings], readings, loc="outside upper center", ncols=2, fontsize=7,
        frameon=False, title=STATISTIC, title_fontsize=7,
    )  # fmt: skip
    return panels


def _stacked(count: int) -> list[Axes]:
    """Panels one above the other in a new figure one column wide."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(COLUMN, 0.8 + 1.5 * count), layout="constrained")
    return list(figure.subplots(count, sharex=True, squeeze=False)[:, 0])


def _lines(rows: pd.DataFrame, ax: Axes, looks: dict[tuple[str, str], tuple[int, str]]) -> None:
    """A line for each part and reading, in its look (a number) and with its label; undecided layers on the axis."""
    drawn = []
    for (part, reading), group in rows.groupby(["part", "reading"], sort=False):
        look, label = looks[part, reading]
        colour, marker = OKABE_ITO[look % len(OKABE_ITO)], MARKERS[look % len(MARKERS)]
        shift = 0.5 / max(len(looks), 5) * (look - (len(looks) - 1) / 2)  # side by side, so that bars hide no others
        unknown = group["verdict"] == UNDECIDED if "verdict" in group else group["layer"] != group["layer"]
        if unknown.any():
            x = group.loc[unknown, "layer"].drop_duplicates() + shift
            ax.plot(x, [0.0] * len(x), "x", transform=ax.get_xaxis_transform(), color=colour, ms=4, clip_on=False)
        found = by_group(group[~unknown].sort_values("layer", kind="stable"), ["layer"])
        mean, low, high = (found[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
        x = found["layer"].to_numpy() + shift
        style = _STYLES[look % len(_STYLES)]
        ax.plot(x, mean, color=colour, marker=marker, ms=3.5, linestyle=style, lw=1, label=label, zorder=3)
        ax.vlines(x, low, high, color=colour, linewidth=1.5, alpha=0.5)
        drawn += [low, mean, high]
    sizes = np.abs(np.concatenate(drawn))
    profile_axis(ax, sizes[np.isfinite(sizes)], "layer", CURVATURE_LABEL, statistic=STATISTIC)


def gaps(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """The expressivity gap of each gate by layer, with its bootstrap interval.

    **Args:**

    - `table`, as `gaps` of an `Analysis`, with columns `layer`, `part`, `gate`, and `mean`, `low` and `high` [1/σ²].
    - `ax`, to draw into (default: a new figure one column wide).

    **Returns:** the axes. **Raises:** `InputError` where a column is missing or no finite number is left.

    >>> import pandas as pd, fisherflat as ff
    >>> row = {"layer": 0, "part": "attention", "gate": "gate", "mean": 0.5, "low": 0.25, "high": 0.75}
    >>> ff.plot.gaps(pd.DataFrame([row])).get_legend_handles_labels()[1]
    ['gate in attention']
    """
    rows = _whole_parts(table, ("layer", "part", "gate", "mean", "low", "high"), "mean")
    ax = axes_for(ax, (COLUMN, 2.4))
    groups = list(rows.groupby(["part", "gate"], sort=False))
    for index, ((part, gate), group) in enumerate(groups):
        x = group["layer"] + 0.15 * (index - (len(groups) - 1) / 2)
        interval = np.stack([group["mean"] - group["low"], group["high"] - group["mean"]])
        ax.errorbar(
            x, group["mean"], np.nan_to_num(interval), color=OKABE_ITO[index % len(OKABE_ITO)], fmt=MARKERS[index % 6],
            ms=3.5, lw=1, capsize=2, label=f"{gate} in {part}",
        )  # fmt: skip
    sizes = np.abs(rows[["mean", "low", "high"]].to_numpy(dtype=float)).ravel()
    profile_axis(ax, sizes[np.isfinite(sizes)], "layer", "gap in scal [1/σ²]", statistic=STATISTIC)
    return ax


def heads(table: pd.DataFrame, *, reading: str = "live", ax: Axes | None = None) -> Axes:
    """A map of the heads of all layers: the mean scalar curvature of each, on a symmetric logarithmic scale.

    Heads that are flat, proved or to their error, are hatched; those of which some point is undecided are crossed out.

    **Args:**

    - `table`, as of `fisherflat.analyze` with heads; `reading`, which of its readings.
    - `ax`, to draw into (default: a new figure one column wide).

    **Returns:** the axes. **Raises:** `InputError` where a column is missing or there are no heads in that reading.

    >>> import pandas as pd, fisherflat as ff
    >>> row = {"layer": 0, "part": "head 3", "reading": "live", "scalar_curvature": 0.5, "verdict": "curved"}
    >>> [tick.get_text() for tick in ff.plot.heads(pd.DataFrame([row])).get_xticklabels()]
    ['3']
    """
    from matplotlib.colors import SymLogNorm
    from matplotlib.patches import Rectangle

    rows = _finite(table, ("layer", "part", "reading", "scalar_curvature", "verdict"))
    rows = rows[rows["part"].str.startswith("head ") & (rows["reading"] == reading)]
    if rows.empty:
        raise InputError(f'the table holds no heads in the reading {reading!r}; analyse with heads="all"')
    ax = axes_for(ax, (COLUMN, 2.4))
    rows = rows.assign(head=rows["part"].str.removeprefix("head ").astype(int))
    mean = rows.groupby(["layer", "head"])["scalar_curvature"].mean().unstack("head")
    places = rows.groupby(["layer", "head"])["verdict"]
    flat, unknown = (
        found.unstack("head").reindex_like(mean).fillna(False).astype(bool)
        for found in (places.agg(lambda w: w.isin(FLAT_WORDS).all()), places.agg(lambda w: (w == UNDECIDED).any()))
    )
    values = mean.where(~flat & ~unknown, 0.0)
    sizes = np.abs(values.to_numpy(dtype=float))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    end = sizes.max() if len(sizes) else 1.0
    threshold = 10.0 ** math.floor(math.log10(max(sizes.min() if len(sizes) else 1.0, 1e-3 * end)))
    image = ax.imshow(
        values, cmap=COLOURS, norm=SymLogNorm(threshold, vmin=-end, vmax=end), aspect="auto", interpolation="none"
    )
    for drawn, hatch in ((flat, "////"), (unknown, "xxxx")):
        for row, column in zip(*np.nonzero(drawn.to_numpy(dtype=bool)), strict=True):
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch=hatch, lw=0, ec="0.6"))
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label(f"mean {CURVATURE_LABEL}", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    step = 1 if values.shape[1] <= 16 else 4
    ax.set_xticks(range(0, values.shape[1], step), [str(head) for head in values.columns[::step]], fontsize=7)
    ax.set_yticks(range(values.shape[0]), [str(layer) for layer in values.index], fontsize=7)
    ax.set_xlabel("head", fontsize=9)
    ax.set_ylabel("layer", fontsize=9)
    ax.set_title(reading, fontsize=9, loc="left", pad=3)
    return ax


def _whole_parts(
    table: pd.DataFrame,
    needed: tuple[str, ...] = ("layer", "part", "reading", "scalar_curvature"),
    number: str = "scalar_curvature",
) -> pd.DataFrame:
    """The rows of parts that are no heads. **Raises:** `InputError` where there are none to draw."""
    rows = _finite(table, needed, number)
    rows = rows[~rows["part"].str.startswith("head ")]
    if rows.empty:
        raise InputError(f"the table holds no finite {number.replace('_', ' ')}, so there is nothing to draw")
    return rows


def _finite(table: pd.DataFrame, needed: tuple[str, ...], number: str = "scalar_curvature") -> pd.DataFrame:
    """The rows with a finite number. **Raises:** `InputError` where a column is missing."""
    missing = [name for name in needed if name not in table.columns]
    if missing:
        raise InputError(f"the table has no column {missing[0]!r}; pass the table of fisherflat.analyze")
    return table[np.isfinite(table[number].astype(float))]
