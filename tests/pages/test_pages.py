"""Pages: what is written is text, names are unique, and nothing of a page points out of it."""

from __future__ import annotations

import json
import math
import re

import pytest
from cases.web_pages import Parsed, hostile

from fisherflat import pages
from fisherflat.pages import Chart, Code, Facts, Grid, Link, Notice, Page, Pick, Points, Section, Value

ROWS = [
    {"layer": layer, "reading": name, "mean": mean, "low": mean - 0.1, "high": mean + 0.1, "shown": f"{mean}",
     "interval": "–", "word": "curved", "tone": "curved"}
    for name in ("live", "held")
    for layer, mean in enumerate((0.5, -0.25, 200.0))
]  # fmt: skip


def chart(title: str = "a chart", name: str = "live") -> Chart:
    rows = [{**row, "reading": name if row["reading"] == "live" else row["reading"]} for row in ROWS]
    return pages.ranges(title, rows, x="layer", series="reading", about=title, said=title, order=[name, "held"])


def everything(text: str) -> Page:
    """A page with one of each kind, all of whose text is the same."""
    items = [
        text,
        Points([text]),
        Notice(text),
        Facts({text: text}),
        Code(text, text),
        Link("other/report.html", text),
        Grid(text, [text, "number"], [[text, Value(1.5, text)], [text, text]], text),
        Pick(text, {text: text, "other": chart(text, text)}),
        chart(text, text),
        Section(text, [Section(text, [text])]),
    ]
    return Page(text, text, [text], [Section(text, items), Section(text, [])], scale=[text], complete=False, maker=text)


@pytest.mark.parametrize("text", hostile())
def test_whatever_is_said_is_text(text: str) -> None:
    plain, page = Parsed(pages.html(everything("plain"))), Parsed(pages.html(everything(text)))
    assert page.shape == plain.shape, "text became markup"
    assert not set("".join(page.text)) & set("\u202e\u2066\x1b\x00")
    assert page.attributes.keys() == plain.attributes.keys()


def test_names_are_unique_and_headings_in_order() -> None:
    page = Parsed(pages.html(everything("Figure 2")))
    page.check()
    assert len(page.ids) > 10
    assert [level for level, _ in page.headings][:2] == [1, 2]


def test_nothing_is_fetched_and_nothing_else_runs() -> None:
    text = pages.html(everything("x"))
    page = Parsed(text)
    assert not page.outward
    policy = page.meta["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe-eval" not in policy
    assert re.findall(r"script-src (.*?);", policy)[0].count("sha256-") == len(page.scripts) == 2


def test_numbers_of_charts_are_those_that_were_given() -> None:
    (first, *_) = Parsed(pages.html(everything("x"))).data
    found = json.loads(first)["data"]["values"]
    assert [(row["layer"], row["mean"]) for row in found] == [(row["layer"], row["mean"]) for row in ROWS]


def test_cells_keep_all_digits() -> None:
    grid = Grid("numbers", ["a", "b"], [["x", Value(math.pi, "3.14")], ["y", Value(math.nan, "–")]])
    (table,) = Parsed(pages.html(Page("t", "k", [], [Section("s", [grid])]))).tables
    assert table.rows[0][1] == ("3.14", repr(math.pi)) and table.rows[1][1] == ("–", "nan")
    assert table.caption == "numbers" and table.columns == ["a", "b"]


@pytest.mark.parametrize("count", [1, 9])
def test_a_page_has_a_limit(count: int) -> None:
    """Figures that would pass it are left out, and the page says where their numbers are."""
    rows = [{"u1": i % 100, "u2": i // 100, "value": math.sin(i), "shown": "x"} for i in range(6000)]
    maps = [pages.raster(f"map {i}", rows, x="u1", y="u2", about="", said="", table="maps.csv") for i in range(count)]
    text = pages.html(Page("t", "k", [], [Section("maps", maps)]))
    assert len(text.encode()) <= pages.LIMIT
    left_out = text.count("its numbers are in maps.csv")
    assert left_out == 0 if count == 1 else 0 < left_out < count
    Parsed(text).check()


def test_a_long_table_is_cut_and_says_so() -> None:
    rows = [[f"row {i}", Value(i, str(i))] for i in range(50_000)]
    text = pages.html(Page("t", "k", [], [Section("s", [Grid("numbers", ["a", "b"], rows, "numbers.csv")])]))
    page = Parsed(text)
    page.check()
    assert len(text.encode()) <= pages.LIMIT and len(page.tables[0].rows) < len(rows)
    assert f"the first {len(page.tables[0].rows)} of 50000 rows; all are in numbers.csv" in "".join(page.text)


def test_charts_without_numbers_are_drawn() -> None:
    nothing = [{**row, "mean": math.nan, "low": math.nan, "high": math.nan} for row in ROWS]
    zero = [{**row, "mean": 0.0, "low": 0.0, "high": 0.0, "tone": "flat"} for row in ROWS]
    for rows in (nothing, zero):
        charts = [
            pages.ranges("a", rows, x="layer", series="reading", about="", said="", order=["live", "held"]),
            pages.cells("b", rows, x="layer", y="reading", about="", said=""),
        ]
        page = Parsed(pages.html(Page("t", "k", [], [Section("s", charts)])))
        assert page.count("svg") == 2


def test_looks_tell_series_apart() -> None:
    """However many there are, no two have the same colour and shape."""
    names = [f"reading {i}" for i in range(12)]
    rows = [{**ROWS[0], "reading": name} for name in names]
    spec = pages.ranges("a", rows, x="layer", series="reading", about="", said="", order=names).spec
    encoding = spec["layer"][2]["encoding"]
    looks = zip(*(encoding[what]["scale"]["range"] for what in ("color", "shape")), strict=True)
    assert len(set(looks)) == len(names)
