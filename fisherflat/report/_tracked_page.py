"""A track as a page; `found` is a `fisherflat.report.Track`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fisherflat.pages import Facts, Item, Points, Section
from fisherflat.report._analysis_methods import methods as methods_of
from fisherflat.report._page import drawings, largest, second_look, table
from fisherflat.report._tracked_in_words import headline, sentences
from fisherflat.report._writer import Content

_CHANGE = {
    "run": "run", "from": "from step", "to": "to step", "layer": "layer", "part": "part", "reading": "reading",
    "before": "before", "after": "after", "mean": "change", "low": "from", "high": "to", "noise_floor": "noise floor",
    "word": "so it is",
}  # fmt: skip
_TRACK = {
    "run": "run", "step": "step", "layer": "layer", "part": "part", "reading": "reading", "mean": "mean", "low": "from",
    "high": "to",
}  # fmt: skip
_FOUND = {"run": "run", "step": "step", "path": "path", "left_out": "left out, because"}


def opening(found: Any) -> list[str]:
    """How the live curvature changes, where the largest change that is sure is, and how many checkpoints there are."""
    kept, all_ = len(found.measured), len(found.stages)
    count = f"{kept} of {all_} checkpoints were measured" if kept < all_ else f"All {all_} checkpoints were measured"
    most = [_most(found)] if len(found.changes) else []
    return [headline(found), *most, f"{count}, of {len(found.runs)} run{'s' if len(found.runs) > 1 else ''}."]


def _most(found: Any) -> str:
    def place(row: Any) -> str:
        return f"{row['run']}, layer {row['layer']}, {row['part']}, {row['reading']}"

    return largest(found.changes, "change", place)


def sections(found: Any, figures: Mapping[str, Content]) -> list[Section]:
    """What is to be read of a track."""
    about = "Mean scalar curvature by step, a line a layer, bands: 95 % intervals; a column a run, a row a part."
    drawn = drawings(figures, about, "the table of trajectories")
    said: list[Item] = [Points(sentences(found))] if len(found.changes) else []
    changes: list[Item] = [table("From the first to the last step", found.changes, _CHANGE, "changes.csv")]
    parts = [Section("How curvature changes", [*said, *drawn, *(changes if len(found.changes) else [])])]
    if len(found.table):
        parts.append(Section("Trajectories", [table("By step", found.table, _TRACK, "track.csv")]))
    parts.append(Section("Checkpoints", [table("What was found", found.checkpoints, _FOUND, "checkpoints.csv")]))
    return [*parts, *second_look(found.notes)]


def methods(found: Any) -> list[Item]:
    """What was measured, and how each checkpoint was."""
    facts = {
        "charts": "fitted anew at each step, to the states of that checkpoint",
        "changes": "paired by prompt, position and point; the difference is the last step minus the first",
        "intervals": "95 %, by resampling prompts, else positions, else points",
    }
    first = [stage.analysis for stage in found.measured][:1]
    return [Facts(facts), *(Section("Each checkpoint", methods_of(analysis)) for analysis in first)]
