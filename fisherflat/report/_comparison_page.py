"""A comparison as a page; `found` is a `fisherflat.report.Comparison`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fisherflat.pages import Facts, Item, Points, Section
from fisherflat.report._analysis_methods import methods as methods_of
from fisherflat.report._comparison_in_words import headline, sentences
from fisherflat.report._page import drawings, largest, second_look, table
from fisherflat.report._writer import Content

_DIFFERENCE = {
    "model": "model", "layer": "layer", "part": "part", "reading": "reading", "before": "before", "after": "after",
    "mean": "difference", "low": "from", "high": "to", "noise_floor": "noise floor", "word": "so it is",
}  # fmt: skip


def opening(found: Any) -> list[str]:
    """What differs over all layers, where most, and how much of it two halves of one analysis would show too."""
    if found.pairs is None:
        return ["Nothing is compared yet: in some of the analyses nothing was measured, or they are not complete."]
    return [headline(found), _most(found), _floor(found)]


def _most(found: Any) -> str:
    def place(row: Any) -> str:
        return f"{row['model']}, layer {row['layer']}, {row['part']}, {row['reading']}"

    return largest(found.table, "difference", place)


def _floor(found: Any) -> str:
    known = found.table[found.table["word"] != "the same"].dropna(subset=["noise_floor"])
    if known.empty:
        return "Nothing differs of which could be said how much two halves of one analysis differ, too."
    above = int((known["mean"].abs() > known["noise_floor"]).sum())
    return (
        f"Two halves of one analysis differ as well, with nothing between them but chance; {above} of {len(known)} "
        "differences are larger than that noise floor."
    )


def sections(found: Any, figures: Mapping[str, Content]) -> list[Section]:
    """What is to be read of a comparison."""
    about = (
        f"Left: means of all; right: the difference from {found.names[0]} with its interval, and the noise floor as a "
        "band."
    )
    drawn = drawings(figures, about, "the table of differences")
    grids = [
        table("Over all layers", found.overall, {k: v for k, v in _DIFFERENCE.items() if k != "layer"}, "overall.csv"),
        table("By layer", found.table, _DIFFERENCE, "differences.csv"),
    ]
    parts = [Section("What differs", [Points(sentences(found)), *drawn, *grids])]
    if len(found.agreement):
        named = {name: name.replace("_", " ") for name in found.agreement if name != "level"}
        grid = table("Profiles over the layers", found.agreement, named, "agreement.csv")
        parts.append(Section("How well they agree", [grid]))
    return [*parts, *second_look(found.notes)]


def methods(found: Any) -> list[Item]:
    """How it was made: pairs, intervals, and how each analysis was."""
    facts = {
        "compared": ", ".join(found.names),
        "pairs": "points of the same prompt, position, layer, part and reading; the difference is after minus before, "
        f"before being {found.names[0]}",
        "intervals": "95 %, by resampling prompts, else positions, else points",
        "noise floor": "the root mean square difference of two halves of one analysis, the larger one of both",
    }
    each = [Section(name, methods_of(analysis)) for name, analysis in zip(found.names, found.analyses, strict=True)]
    return [Facts(facts), *each]
