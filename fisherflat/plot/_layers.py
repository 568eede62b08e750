"""Curvature by layer of a model, by head, and what its gates add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fisherflat.errors import InputError
from fisherflat.geometry import FLAT_WORDS, Verdict
from fisherflat.parts.readings import WORDS, order
from fisherflat.plot._style import (
    COLOURS,
    COLUMN,
    STATISTIC,
    axes_for,
    family_of,
    line,
    of_part,
    of_reading,
    profile_axis,
    undecided,
)
from fisherflat.spaces.families import labelled
from fisherflat.statistics import by_group
from fisherflat.studies.layers import negligible

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Normalize
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D


def layers(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Scalar curvature by layer, one line for each part and reading of a model; heads are left out.

    The line is the mean over prompts, positions and points, the bar at each layer its bootstrap interval, as in
    `estimates` of an `Analysis` (`fisherflat.statistics.by_group`). The vertical axis is symmetric logarithmic when
    they span more than two decades, and linear otherwise. Undecided points are left out; a cross on the axis says in
    which layers there are such. A reading has one colour and one marker, a part one line style and one way in which
    markers are filled. Where there are many readings, `layers_by_part` is easier to read.

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
    sizes = _lines(rows, ax, {kind: ", ".join(kind) for kind in kinds})
    profile_axis(ax, sizes, "layer", labelled("scalar curvature", family_of(table)), statistic=STATISTIC)
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
    panels = stacked(len(parts)) if axes is None else axes
    if len(panels) != len(parts):
        raise InputError(f"the table has {len(parts)} parts, and there are {len(panels)} axes")
    looks = {(part, reading): reading for reading in readings for part in parts}
    rows_of = dict(list(rows.groupby("part", sort=False)))
    drawn = [_lines(rows_of[part], ax, looks) for part, ax in zip(parts, panels, strict=True)]
    what = labelled("scal", family_of(table))
    for part, ax in zip(parts, panels, strict=True):
        profile_axis(ax, np.concatenate(drawn), "layer", what)  # one kind of scale for all panels
        ax.set_title(part, fontsize=9, loc="left", pad=3)
        if (legend := ax.get_legend()) is not None:
            legend.remove()  # there is one for all of them
        ax.label_outer()
    handles = {label: h for ax in panels for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    panels[0].figure.legend(
        [_solid(handles[reading]) for reading in readings], readings, loc="outside lower center", ncols=2, fontsize=7,
        frameon=False, title=STATISTIC, title_fontsize=7,
    )  # fmt: skip
    return panels


def _solid(handle: Any) -> Line2D:
    """A line of a reading in a legend of all parts: of no part's style."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=handle.get_color(), marker=handle.get_marker(), ms=3.5, lw=1, linestyle="-")


def stacked(count: int) -> list[Axes]:
    """Panels one above the other in a new figure one column wide."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(COLUMN, 0.8 + 1.5 * count), layout="constrained")
    return list(figure.subplots(count, sharex=True, sharey=True, squeeze=False)[:, 0])


def _lines(rows: pd.DataFrame, ax: Axes, labels: dict[tuple[str, str], str]) -> np.ndarray:
    """A line for each part and reading with its label, side by side; undecided layers on the axis.

    **Returns:** the sizes of what is drawn.
    """
    drawn, order_of = [], list(dict.fromkeys(labels.values()))
    places = len(order_of)
    for (part, reading), group in rows.groupby(["part", "reading"], sort=False):
        label, look = labels[part, reading], of_reading(reading)
        shift = 0.5 / max(places, 5) * (order_of.index(label) - (places - 1) / 2)
        unknown = group["verdict"] == Verdict.UNDECIDED if "verdict" in group else group["layer"] != group["layer"]
        if unknown.any():
            undecided(ax, group.loc[unknown, "layer"].drop_duplicates() + shift, look.colour)
        found = by_group(group[~unknown].sort_values("layer", kind="stable"), ["layer"])
        mean, low, high = (found[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
        x = found["layer"].to_numpy() + shift
        ax.plot(x, mean, **line(look, part), ms=3.5, lw=1, label=label, zorder=3)
        ax.vlines(x, low, high, color=look.colour, linewidth=1.5, alpha=0.5)
        drawn += [low, mean, high]
    sizes = np.abs(np.concatenate(drawn))
    return sizes[np.isfinite(sizes)]


def gaps(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """The expressivity gap of each gate by layer, with its bootstrap interval.

    A part has one colour and one marker; those of MLP gates are hollow.

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
        look, hollow = of_part(part), gate == WORDS["mlp_gate"]
        ax.errorbar(
            x, group["mean"], np.nan_to_num(interval), color=look.colour, fmt=look.marker, ms=3.5, lw=1, capsize=2,
            markerfacecolor="white" if hollow else look.colour, label=f"{gate} in {part}",
        )  # fmt: skip
    sizes = np.abs(rows[["mean", "low", "high"]].to_numpy(dtype=float)).ravel()
    profile_axis(ax, sizes[np.isfinite(sizes)], "layer", labelled("gap in scal", family_of(table)), statistic=STATISTIC)
    return ax


def heads(table: pd.DataFrame, *, reading: str = "live", ax: Axes | None = None) -> Axes:
    """A map of the heads of all layers: the mean scalar curvature of each, on a symmetric logarithmic scale.

    Heads that are flat, proved or to their error, are hatched; those of which some point is undecided are crossed out.
    Points whose image is negligible, by that column of the table, are left out; heads that have no others are dotted.

    **Args:**

    - `table`, as of `fisherflat.analyze` with heads; `reading`, which of its readings.
    - `ax`, to draw into (default: a new figure one column wide).

    **Returns:** the axes. **Raises:** `InputError` where a column is missing or there are no heads in that reading.

    >>> import pandas as pd, fisherflat as ff
    >>> row = {"layer": 0, "part": "head 3", "reading": "live", "scalar_curvature": 0.5, "verdict": "curved"}
    >>> [tick.get_text() for tick in ff.plot.heads(pd.DataFrame([row])).get_xticklabels()]
    ['3']
    """
    (ax,) = heads_by_reading(table, [reading], axes=[axes_for(ax, (COLUMN, 2.4))])
    return ax


def heads_by_reading(
    table: pd.DataFrame, readings: Sequence[str], *, axes: Sequence[Axes] | None = None
) -> Sequence[Axes]:
    """The maps of `heads` in some readings, one above the other, on one scale with one colour bar.

    **Args:** `table` as in `heads`; `readings`, which of its readings; `axes`, one for each (default: a new figure one
    column wide).

    **Returns:** the axes. **Raises:** `InputError` as `heads`, and for axes that are not as many as readings.

    >>> import pandas as pd, fisherflat as ff
    >>> row = {"layer": 0, "part": "head 3", "reading": "live", "scalar_curvature": 0.5, "verdict": "curved"}
    >>> [ax.get_title(loc="left") for ax in ff.plot.heads_by_reading(pd.DataFrame([row]), ["live"])]
    ['live']
    """
    rows = _finite(table, ("layer", "part", "reading", "scalar_curvature", "verdict"))
    rows = rows[rows["part"].str.startswith("head ")]
    for reading in readings:
        if not (rows["reading"] == reading).any():
            raise InputError(f'the table holds no heads in the reading {reading!r}; analyse with heads="all"')
    panels = stacked(len(readings)) if axes is None else axes
    if not readings or len(panels) != len(readings):
        raise InputError(f"there are {len(readings)} readings and {len(panels)} axes; give one for each")
    maps = [_Heads.of(rows[rows["reading"] == reading]) for reading in readings]
    norm = _norm_of_heads([found.mean.to_numpy(dtype=float) for found in maps])
    images = [_draw_heads(found, ax, norm) for found, ax in zip(maps, panels, strict=True)]
    for reading, ax in zip(readings, panels, strict=True):
        ax.set_title(reading, fontsize=9, loc="left", pad=3)
        if ax is not panels[-1]:
            ax.set_xlabel("")
    bar: Colorbar = panels[0].figure.colorbar(images[0], ax=list(panels), aspect=20 * len(panels) ** 0.5)
    bar.set_label(labelled("mean scal", family_of(table)), fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return panels


class _Heads(NamedTuple):
    """The heads of one reading, a row a layer and a column a head.

    **Attributes:** the means, zero where they are flat, undecided or of negligible images alone, and which are.
    """

    mean: pd.DataFrame
    flat: pd.DataFrame
    unknown: pd.DataFrame
    small: pd.DataFrame

    @classmethod
    def of(cls, rows: pd.DataFrame) -> _Heads:
        rows = rows.assign(head=rows["part"].str.removeprefix("head ").astype(int), tiny=negligible(rows))
        rows["scalar_curvature"] = rows["scalar_curvature"].where(~rows["tiny"])
        places = rows.groupby(["layer", "head"])
        mean = places["scalar_curvature"].mean().unstack("head")
        flat, unknown, small = (
            found.unstack("head").reindex_like(mean).fillna(False).astype(bool)
            for found in (
                places["verdict"].agg(lambda w: w.isin(FLAT_WORDS).all()),
                places["verdict"].agg(lambda w: (w == Verdict.UNDECIDED).any()),
                places["tiny"].all(),
            )
        )
        return cls(mean.where(~flat & ~unknown & ~small, 0.0), flat, unknown, small)


def _norm_of_heads(maps: Sequence[np.ndarray]) -> Normalize:
    from matplotlib.colors import SymLogNorm

    sizes = np.abs(np.concatenate([values.ravel() for values in maps]))
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    end = sizes.max() if len(sizes) else 1.0
    threshold = 10.0 ** math.floor(math.log10(max(sizes.min() if len(sizes) else 1.0, 1e-4 * end)))
    return SymLogNorm(threshold, vmin=-end, vmax=end)


def _draw_heads(found: _Heads, ax: Axes, norm: Normalize) -> AxesImage:
    from matplotlib.patches import Rectangle

    values = found.mean
    image = ax.imshow(values, cmap=COLOURS, norm=norm, aspect="auto", interpolation="none")
    for drawn, hatch in ((found.flat, "////"), (found.unknown, "xxxx"), (found.small, "....")):
        for row, column in zip(*np.nonzero(drawn.to_numpy(dtype=bool)), strict=True):
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch=hatch, lw=0, ec="0.6"))
    step = -(-values.shape[1] // 16)
    ax.set_xticks(range(0, values.shape[1], step), [str(head) for head in values.columns[::step]], fontsize=7)
    step = -(-values.shape[0] // 12)
    ax.set_yticks(range(0, values.shape[0], step), [str(layer) for layer in values.index[::step]], fontsize=7)
    ax.set_xlabel("head", fontsize=9)
    ax.set_ylabel("layer", fontsize=9)
    return image


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
