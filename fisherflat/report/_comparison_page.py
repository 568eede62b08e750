"""A comparison as a page; `found` is a `fisherflat.report.Comparison`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fisherflat.pages import Drawing, Facts, Item, Points, Section
from fisherflat.report._analysis_methods import methods as methods_of
from fisherflat.report._comparison_in_words import gates_in_words, headline, sentences
from fisherflat.report._page import table
from fisherflat.report._writer import Content, Figure

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
    sure = found.table[found.table["word"].isin(("larger", "smaller"))]
    if sure.empty:
        return "In no layer does the interval of the difference exclude zero."
    top = sure.loc[sure["mean"].abs().idxmax()]
    return (
        f"The largest difference that is sure is in layer {top['layer']}, {top['part']}, {top['reading']}: "
        f"{top['mean']:+.3g} in {top['model']} (95 % interval {top['low']:.3g} to {top['high']:.3g})."
    )


def _floor(found: Any) -> str:
    known = found.table.dropna(subset=["noise_floor"])
    if known.empty:
        return "There are too few prompts or positions to say how much two halves of one analysis differ."
    above = int((known["mean"].abs() > known["noise_floor"]).sum())
    return (
        f"Two halves of one analysis differ as well, with nothing between them but chance; {above} of {len(known)} "
        "differences are larger than that noise floor."
    )


def sections(found: Any, figures: Mapping[str, Content]) -> list[Section]:
    """What is to be read of a comparison."""
    drawings: list[Item] = [
        Drawing(
            name.removesuffix(".png").replace("_", ", ").replace("-", " "),
            f"Left: means of all; right: the difference from {found.names[0]} with its 95 % interval, and the noise "
            "floor as a band.",
            "The numbers are in the table of differences.",
            figure.draw,
        )
        for name, figure in figures.items()
        if isinstance(figure, Figure)
    ]
    grids = [
        table("Over all layers", found.overall, {k: v for k, v in _DIFFERENCE.items() if k != "layer"}, "overall.csv"),
        table("By layer", found.table, _DIFFERENCE, "differences.csv"),
    ]
    agree = [name for name in found.agreement if name not in ("level",)]
    parts = [Section("What differs", [Points(sentences(found)), *drawings, *grids])]
    if len(found.agreement):
        named = {name: name.replace("_", " ") for name in agree}
        grid = table("Profiles over the layers", found.agreement, named, "agreement.csv")
        parts.append(Section("How well they agree", [grid]))
    if said := gates_in_words(found):
        parts.append(Section("Gates", [Points(said)]))
    return [*parts, Section("Worth a second look", [Points(found.notes)])]


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
