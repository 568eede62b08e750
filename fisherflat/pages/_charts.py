"""Charts as specifications of Vega-Lite: what is the same in all of them is said once, here.

Colours are those of the figures of `fisherflat.plot`. Text has the colour of the page, in light and in dark. The marks
carry no descriptions of their own: a reader who does not see the chart is told what it shows, and given its table.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fisherflat.pages._content import Chart
from fisherflat.pages._looks import ink, looks
from fisherflat.plot import of_role

#: a scale that spans more than this is symmetric and logarithmic
_SPAN, _DECADES = 100.0, 4
#: the most rows and columns of a map of cells in which numbers are written
_WRITTEN = 14

Rows = Sequence[Mapping[str, Any]]

#: what a cell that has no number says, where there is little room and where there is some
_SIGNS = {"flat": "·", "undecided": "?", "small": "○"}
_SHORT = {"flat": "flat", "undecided": "?", "small": "tiny"}


def ranges(
    title: str, rows: Rows, *, x: str, series: str, about: str, said: str, order: Sequence[str], table: str = "",
    y: str = "scalar curvature [1/σ²]",
) -> Chart:  # fmt: skip
    """Lines of means with their intervals, side by side so that none hides another.

    **Args:** `rows`, with `mean`, `low`, `high`, `word` and the columns `x`, a number, and `series`; `order`, all names
    of series, in the order of their looks.
    """
    found = [name for name in order if any(row[series] == name for row in rows)]
    drawn = dict(zip(order, looks(order), strict=True))
    colour, shape = (
        {"field": series, "type": "nominal", "title": None,
         "scale": {"domain": found, "range": [getattr(drawn[name], what) for name in found]}}
        for what in ("colour", "shape")
    )  # fmt: skip
    places = sorted({row[x] for row in rows})
    gap = min((b - a for a, b in itertools.pairwise(places)), default=1.0)
    moved = {name: 0.4 * gap / max(len(found), 4) * (i - (len(found) - 1) / 2) for i, name in enumerate(found)}
    data = [{**row, "place": row[x] + moved[row[series]]} for row in rows]
    edge = 0.3 * gap
    along = {
        "field": "place", "type": "quantitative", "title": x,
        "axis": {"format": "~g", "tickMinStep": 1, "grid": False},
        "scale": {"domain": [places[0] - edge, places[-1] + edge], "nice": False, "zero": False},
    }  # fmt: skip
    across = {"field": "mean", "type": "quantitative", "title": y, **_vertical(_numbers(rows))}
    tip = _tooltip([(x, x), (series, series), ("shown", "mean"), ("interval", "interval"), ("word", "verdict")])
    base = {"x": along, "color": colour}
    return Chart(title, about, said, {
        "data": {"values": _data(data)},
        "height": 220,
        "layer": [
            {"mark": _mark("rule", strokeWidth=4, opacity=0.35),
             "encoding": base | {"y": {**across, "field": "low"}, "y2": {"field": "high"}}},
            {"mark": _mark("line", strokeWidth=1.5), "encoding": base | {"y": across}},
            {"mark": _mark("point", filled=True, size=50, opacity=1),
             "encoding": base | {"y": across, "shape": shape, "tooltip": tip}},
        ],
    }, table)  # fmt: skip


def bars(
    title: str, rows: Rows, *, y: str, series: str, about: str, said: str, colours: Mapping[str, str], table: str = "",
    x: str = "scalar curvature [1/σ²]",
) -> Chart:  # fmt: skip
    """Amounts side by side that add up, those below zero to the left.

    **Args:** `rows`, with `amount` and the columns `y` and `series`; `colours`, of all series in order.
    """
    found = [name for name in colours if any(row[series] == name for row in rows)]
    colour = {
        "field": series,
        "type": "nominal",
        "title": None,
        "sort": found,
        "scale": {"domain": found, "range": [ink(colours[name]) for name in found]},
    }
    names = list(dict.fromkeys(row[y] for row in rows))
    return Chart(title, about, said, {
        "data": {"values": _data(rows)},
        "height": 22 * len({row[y] for row in rows}),
        "mark": _mark("bar", stroke="currentColor", strokeWidth=0.3),
        "encoding": {
            "y": {"field": y, "type": "nominal", "sort": names, "title": None, "axis": {"labelLimit": 150}},
            "x": {"field": "amount", "type": "quantitative", "title": x},
            "color": colour,
            "tooltip": _tooltip([(y, y), (series, series), ("shown", "amount")]),
        },
    }, table)  # fmt: skip


def cells(
    title: str, rows: Rows, *, x: str, y: str, about: str, said: str, table: str = "",
    of: str = "mean scalar curvature [1/σ²]",
) -> Chart:  # fmt: skip
    """A map of cells, purple below zero and orange above: with `mean`, `shown`, `word` and the columns `x` and `y`.

    What is flat is blank and says so; what is undecided has a question mark.
    """
    names = [list(dict.fromkeys(row[which] for row in rows)) for which in (x, y)]
    place = {
        "x": {
            "field": x,
            "type": "ordinal",
            "title": x,
            "sort": names[0],
            "axis": {"labelAngle": 0, "labelOverlap": True},
        },
        "y": {"field": y, "type": "ordinal", "title": None, "sort": names[1], "axis": {"labelLimit": 220}},
    }
    tip = _tooltip([(y, "what"), (x, x), ("shown", "mean"), ("interval", "interval"), ("word", "verdict")])
    marks: list[dict[str, Any]] = [
        {"mark": _mark("rect", stroke="currentColor", strokeOpacity=0.25),
         "encoding": {**place, "color": _diverging(rows, "mean", of), "tooltip": tip}},
    ]  # fmt: skip
    small = len(names[0]) <= _WRITTEN
    written = {"field": "short" if small else "sign", "type": "nominal"}
    size = 11 if small else 8
    marks.append({"mark": _mark("text", fontSize=size, tooltip=False), "encoding": {
        **place, "text": written,
        "color": {"field": "ink", "type": "nominal", "scale": None},
    }})  # fmt: skip
    end = max((abs(row["mean"]) for row in rows if _finite(row["mean"])), default=0.0)
    data = [
        {**row, "short": _short(row), "sign": _SIGNS.get(row["tone"], ""),
         "ink": _ink(row["mean"], end, rows)}
        for row in rows
    ]  # fmt: skip
    return Chart(
        title,
        about,
        said,
        {
            "data": {"values": _data(data)},
            "height": 24 * len(names[1]),
            "layer": marks,
            "resolve": {"scale": {"color": "independent"}},
        },
        table,
    )


def raster(
    title: str, rows: Rows, *, x: str, y: str, about: str, said: str, table: str = "",
    of: str = "scalar curvature [1/σ²]",
) -> Chart:  # fmt: skip
    """A map over a plane: with `value` and the columns `x` and `y`."""
    return Chart(title, about, said, {
        "data": {"values": _data(rows)},
        "height": 300,
        "mark": _mark("rect"),
        "encoding": {
            "x": {"field": x, "type": "ordinal", "title": x, "axis": {"labelOverlap": True, "labelAngle": 0}},
            "y": {"field": y, "type": "ordinal", "title": y, "sort": "descending", "axis": {"labelOverlap": True}},
            "color": _diverging(rows, "value", of),
            "tooltip": _tooltip([(x, x), (y, y), ("shown", "scalar curvature")]),
        },
    }, table)  # fmt: skip


def weights(
    title: str, rows: Rows, *, x: str, y: str, order: Sequence[str], about: str, said: str, table: str = "",
) -> Chart:  # fmt: skip
    """A square map of shares between 0 and 1, the darker the more: with `weight` and the columns `x` and `y`.

    **Args:** `order`, of both; a place without a row is empty.
    """
    colour = ink(of_role("pattern").colour)
    axis: dict[str, Any] = {"type": "ordinal", "sort": order, "scale": {"domain": order}}
    return Chart(title, about, said, {
        "data": {"values": _data(rows)},
        "height": max(120, 18 * len(order)),
        "mark": _mark("rect", color=colour),
        "encoding": {
            "x": {"field": x, "title": x, **axis, "axis": {"orient": "top", "labelAngle": -45, "labelLimit": 90}},
            "y": {"field": y, "title": y, **axis, "axis": {"labelLimit": 120}},
            "opacity": {
                "field": "weight", "type": "quantitative", "title": "attention weight",
                "scale": {"domain": [0, 1], "range": [0, 1]},
                "legend": {"values": [0.1, 0.5, 1], "symbolType": "square", "symbolFillColor": colour},
            },
            "tooltip": _tooltip([(y, y), (x, x), ("weight", "weight")]),
        },
    }, table)  # fmt: skip


def _mark(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "aria": False, **more}


def _tooltip(fields: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"field": name, "type": "nominal", "title": title} for name, title in fields]


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _numbers(rows: Rows) -> list[float]:
    return [abs(row[name]) for row in rows for name in ("mean", "low", "high") if _finite(row.get(name)) and row[name]]


def _threshold(sizes: Sequence[float]) -> float:
    """Below it a scale is linear; infinite where all of it is."""
    sizes = [size for size in sizes if size > 1e-9 * max(sizes)]  # what is less is zero to rounding
    if not sizes or max(sizes) <= _SPAN * min(sizes):
        return math.inf
    return 10.0 ** math.floor(math.log10(max(min(sizes), 10.0**-_DECADES * max(sizes))))


def _vertical(sizes: Sequence[float]) -> dict[str, Any]:
    """The scale and the axis of numbers of both signs: where they span decades, one tick a decade."""
    threshold = _threshold(sizes)
    if math.isinf(threshold):
        return {"scale": {"zero": True}}
    lowest, highest = round(math.log10(threshold)), math.ceil(math.log10(max(sizes)))
    decades = [10.0**k for k in range(lowest, highest + 1)]
    ticks = [-tick for tick in reversed(decades)] + [0.0, *decades]
    return {
        "scale": {"type": "symlog", "constant": threshold},
        "axis": {"values": ticks, "format": "~g", "labelOverlap": "greedy"},
    }


def _diverging(rows: Rows, field: str, title: str) -> dict[str, Any]:
    sizes = [abs(row[field]) for row in rows if _finite(row[field]) and row[field]]
    end, threshold = max(sizes, default=1.0), _colour_threshold(sizes)
    kind: dict[str, Any] = {} if math.isinf(threshold) else {"type": "symlog", "constant": threshold}
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {**kind, "domain": [-end, end], "scheme": "purpleorange", "nice": False},
        "legend": {"format": ".2g", "values": [-end, 0, end], "gradientLength": {"expr": "min(width, 260)"}}
        if sizes
        else None,
    }


def _colour_threshold(sizes: Sequence[float]) -> float:
    """Two decades of colours are told apart."""
    return math.inf if math.isinf(_threshold(sizes)) else 0.01 * max(sizes)


def _ink(value: Any, end: float, rows: Rows) -> str:
    """Dark on light cells and light on dark ones, on a page of either kind."""
    if not _finite(value) or not end:
        return "currentColor"
    threshold = _colour_threshold([abs(row["mean"]) for row in rows if _finite(row["mean"]) and row["mean"]])
    part = (
        abs(value) / end if math.isinf(threshold) else math.log1p(abs(value) / threshold) / math.log1p(end / threshold)
    )
    return "#ffffff" if part > 0.75 else "#111111"


def _short(row: Mapping[str, Any]) -> str:
    if row["tone"] in _SHORT:
        return _SHORT[row["tone"]]
    return f"{row['mean']:.2g}" if _finite(row["mean"]) else ""


def _data(rows: Rows) -> list[dict[str, Any]]:
    """Six digits of each number: more than a pixel or a tooltip shows. What is no number is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.6g}") if math.isfinite(value) else None
        return value

    return [{name: plain(value) for name, value in row.items()} for row in rows]
