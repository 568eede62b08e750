"""A figure for each claim, of the same tables as the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fisherflat.lab.claims._selection import counted, of_groups
from fisherflat.lab.claims._statistics import POOLINGS
from fisherflat.lab.claims._verdicts import FAILS, HOLDS, UNDECIDED
from fisherflat.lab.claims._words import kind_of, measure, signed, subject, where
from fisherflat.plot import MARKERS, OKABE_ITO

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Tables = Mapping[str, Any]  # data frames by name
#: verdict -> colour and marker
LOOKS = {HOLDS: (OKABE_ITO[0], "o"), FAILS: (OKABE_ITO[1], "s"), UNDECIDED: ("#777777", "D")}
_AXES = {
    "points": "difference of accuracy [points]", "times": "ratio", "correlation": "rank correlation",
    "exponent": "exponent of depth", "plain": "difference", "defect": "value",
}  # fmt: skip
_ROW = 0.21


def forest(found: pd.DataFrame, claim: str) -> Figure:
    """All tests of a claim with their intervals, grouped by what they compare; filled markers decide."""
    from matplotlib.figure import Figure

    rows = found[(found["claim"] == claim) & (found["units"] > 0)].to_dict("records")
    kinds = list(dict.fromkeys(kind_of(row) for row in rows))
    groups = {kind: [row for row in rows if kind_of(row) == kind] for kind in kinds}
    lines = {kind: _lines(own) for kind, own in groups.items()}
    heights = [len(own) + 1 for own in lines.values()] or [1]
    figure = Figure(figsize=(7.0, _ROW * sum(heights) + 0.75 * len(heights) + 0.35), layout="constrained")
    grid = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, (kind, own) in zip(grid, lines.items(), strict=False):
        _forest(axes, kind, own)
    _legend(grid[0], rows)
    return figure


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any] | None]]:
    """Labels from the top, with a line of its own for what a group compares."""
    found: list[tuple[str, Mapping[str, Any] | None]] = []
    last = ""
    for row in rows:
        title = f"{row['id'].split(' ')[0]}  {subject(row).partition(': ' + str(row['where']))[0]}"
        if row["kind"] == "correlation":
            found.append((title, row))
            continue
        if title != last:
            found.append((title, None))
        label = " ".join(row["id"].split(" ")[1:]).replace("_", " ") or where(row)
        found.append(("mean over tasks" if label.startswith("all") else label, row))
        last = title
    return found


def _forest(axes: Axes, kind: str, lines: Sequence[tuple[str, Mapping[str, Any] | None]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    def scaled(value: float) -> float:
        return 100 * value if kind == "points" else 10**value if kind == "times" else value

    style: dict[str, Any] = {
        "fontsize": 7, "fontweight": "bold", "va": "center", "bbox": {"facecolor": "white", "lw": 0, "pad": 0.5},
    }  # fmt: skip
    for y, (title, row) in enumerate(lines):
        if row is None:
            axes.text(0, y, title, transform=axes.get_yaxis_transform(), **style)
            continue
        colour, marker = LOOKS[row["verdict"]]
        low, value, high, margin = (scaled(row[name]) for name in ("low", "value", "high", "margin"))
        fill = colour if row["role"] == "primary" else "white"
        if np.isfinite([low, high]).all():
            axes.plot([low, high], [y, y], color=colour, lw=1.4, zorder=2)
        axes.plot([value], [y], marker, color=colour, markerfacecolor=fill, ms=5, zorder=3)
        for at in (margin, -margin) if row["kind"] == "equivalence" else (margin,):
            axes.plot([at, at], [y - 0.42, y + 0.42], color="black", lw=1.2, zorder=1)
    if kind == "times":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    elif kind == "defect":
        axes.set_xscale("symlog", linthresh=1e-8)
    if kind != "defect":
        axes.axvline(1.0 if kind == "times" else 0.0, color="black", lw=0.6, ls=":", zorder=0)
    axes.set_yticks(range(len(lines)), ["" if row is None else label for label, row in lines], fontsize=7)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    plain(axes)
    axes.tick_params("y", length=0)
    axes.set_xlabel(_AXES[kind], fontsize=8)
    axes.spines["left"].set_visible(False)


def plain(axes: Axes) -> None:
    """Small numbers, and no frame on the sides that say nothing."""
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    from matplotlib.lines import Line2D

    there = {row["verdict"] for row in rows}
    marks = [
        Line2D([], [], color=colour, marker=marker, lw=1.4, ms=5, label=word)
        for word, (colour, marker) in LOOKS.items() if word in there
    ]  # fmt: skip
    marks.append(Line2D([], [], color="black", marker="|", lw=0, ms=8, label="margin"))
    marks.append(
        Line2D([], [], color="black", marker="o", markerfacecolor="white", lw=0, ms=5, label="decides nothing")
    )
    axes.legend(
        handles=marks, fontsize=7, ncols=len(marks), loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False
    )


def correlation(tables: Tables, protocol: Mapping[str, Any]) -> Figure:
    """Left: each measure's rank correlation with accuracy, by what is pooled; right: what a pooled value is made of."""
    from matplotlib.figure import Figure

    found = tables["correlations"]
    found = found[found["method"] == "spearman"]
    columns = list(dict.fromkeys(found["column"]))
    figure = Figure(figsize=(8.4, 0.5 * len(columns) + 1.3), layout="constrained")
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1]})
    for index, level in enumerate(POOLINGS):
        rows = found[found["level"] == level].set_index("column").reindex(columns)
        y = np.arange(len(columns)) + 0.18 * (index - 1.5)
        left.hlines(y, rows["low"], rows["high"], color=OKABE_ITO[index], lw=1.3)
        left.plot(rows["value"], y, MARKERS[index], color=OKABE_ITO[index], ms=4.5, lw=0, label=level)
    left.axvline(0, color="black", lw=0.6, ls=":")
    left.axvline(protocol["statistics"]["correlation_margin"], color="black", lw=1.0)
    left.set_yticks(range(len(columns)), [measure(name) for name in columns], fontsize=7)
    left.set(ylim=(len(columns) - 0.5, -0.5), xlim=(-1, 1), xticks=[-1, -0.5, 0, 0.5, 1])
    left.set_xlabel("Spearman's correlation with accuracy; line: margin", fontsize=8)
    left.legend(fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.3, 1.0), frameon=False)
    _simpson(right, tables, protocol, found)
    plain(left)
    plain(right)
    return figure


def _simpson(axes: Axes, tables: Tables, protocol: Mapping[str, Any], found: pd.DataFrame) -> None:
    """The models of the measure whose correlation pooling moves most, by task."""
    wide = found.pivot(index="column", columns="level", values="value")
    column = (wide["pooled"] - wide["within task"]).abs().idxmax()
    rows = of_groups(counted(tables["models"]), protocol)
    colours = [*OKABE_ITO, "#56B4E9", "#F0E442", "#999999", "#882255", "#117733", "#332288"]
    for index, (task, own) in enumerate(rows.groupby("task", sort=False)):
        x = own[column].to_numpy(float)
        kept = np.isfinite(x) & (x > 0)
        axes.plot(
            x[kept], 100 * own["test_accuracy"].to_numpy(float)[kept], MARKERS[index % len(MARKERS)], ms=2.2, lw=0,
            color=colours[index % len(colours)], label=str(task).replace("_", " "), alpha=0.7,
        )  # fmt: skip
    axes.set_xscale("log")
    known = rows[column][rows[column] > 0]
    axes.set_xlim(known.quantile(0.03) / 1.5, known.quantile(0.97) * 1.5)  # images that are nearly lines lie far beyond
    axes.set_xlabel(measure(column), fontsize=8)
    axes.set_ylabel("accuracy on test examples [%]", fontsize=8)
    value = wide.loc[column]
    said = f"pooled {signed(value['pooled'])}, within task {signed(value['within task'])}"
    axes.set_title(f"{said}; drawn: 3 to 97 % of the models", fontsize=8)
    axes.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, markerscale=2)


def depth(tables: Tables) -> Figure:
    """How the measures of claim E grow with depth, by task and arm: geometric means over seeds, bars of one error."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator, ScalarFormatter

    found = tables["depths"]
    columns, tasks = (list(dict.fromkeys(found[name])) for name in ("column", "task"))
    figure = Figure(figsize=(3.5 * len(tasks), 2.5 * len(columns) + 0.3), layout="constrained")
    grid = figure.subplots(len(columns), len(tasks), squeeze=False, sharex=True, sharey="row")
    for line, column in zip(grid, columns, strict=True):
        for axes, task in zip(line, tasks, strict=True):
            own = found[(found["column"] == column) & (found["task"] == task)]
            for index, (arm, rows) in enumerate(own.groupby("arm", sort=False)):
                rows = rows.sort_values("depth")
                middle, error = rows["log10_mean"].to_numpy(), rows["error"].fillna(0.0).to_numpy()
                bars = np.abs(10.0 ** (middle + np.array([[-1], [1]]) * error) - 10.0**middle)
                axes.errorbar(
                    rows["depth"], 10.0**middle, bars, color=OKABE_ITO[index], marker=MARKERS[index], ms=4, lw=1.2,
                    label=str(arm).replace("_", " "),
                )  # fmt: skip
            axes.set(xscale="log", yscale="log", title=f"{task}" if column == columns[0] else "")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.set_xticks(sorted(own["depth"].unique()))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
            plain(axes)
        line[0].set_ylabel(measure(column), fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("depth [layers]", fontsize=8)
    grid[0, 0].legend(fontsize=7, frameon=False)
    return figure


def figures(tables: Tables, protocol: Mapping[str, Any]) -> dict[str, Callable[[], Figure]]:
    """A recipe for each claim of which something was measured."""
    tests = tables["tests"]
    there = [claim for claim in protocol["claims"] if (tests[tests["claim"] == claim]["units"] > 0).any()]
    own = {"D": ("correlations", partial(correlation, tables, protocol)), "E": ("depths", partial(depth, tables))}
    made = {claim: draw for claim, (name, draw) in own.items() if name in tables}
    return {claim: made.get(claim, partial(forest, tests, claim)) for claim in there}


def alone(claim: str) -> str:
    """What the figure of a claim shows, for those who do not see it."""
    return {
        "D": "Correlations of each measure with accuracy, by what is pooled, and the models behind one of them.",
        "E": "Two measures against depth, by task and arm: geometric means over seeds.",
    }.get(claim, "The effect that each test found, with its interval and margin; the table has the same numbers.")
