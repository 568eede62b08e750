"""A track in words and as small tables; `found` is a `fisherflat.report.Track`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fisherflat._display import shown
from fisherflat.parts import readings
from fisherflat.report._analysis_in_words import named, part_in_words

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

#: word of a change -> how a sentence speaks of it
_WORDS = {
    "larger": "rises in",
    "smaller": "falls in",
    "the same": "is the same in",
    "uncertain": "changes in an uncertain direction in",
    "too few": "changes, with too few prompts or positions for an interval, in",
}


def headline(found: Any) -> str:
    """The live change of each part of each run."""
    live = found.changes[found.changes["reading"] == readings.LIVE]
    return " ".join(_about(live if len(live) else found.changes)) or "There is but one checkpoint in each run."


def sentences(found: Any) -> list[str]:
    """How curvature changes from the first to the last step of each run, by part and reading."""
    order = found.changes.sort_values("reading", key=lambda names: names.map(readings.order), kind="stable")
    return _about(order)


def _about(changes: pd.DataFrame) -> list[str]:
    said = []
    for (run, part, reading), rows in changes.groupby(["run", "part", "reading"], sort=False):
        about = f"{part_in_words(part, reading)}, in {run} from step {rows['from'].iloc[0]} to {rows['to'].iloc[0]}"
        if (rows[["before", "after"]] == 0).all(axis=None):
            said.append(f"{about}: flat throughout in {named(rows['layer'])}.")
            continue
        kinds = [
            f"{what} {named(of['layer'])}" for word, what in _WORDS.items() if len(of := rows[rows["word"] == word])
        ]
        measured = rows[rows["word"] != "not measured"]
        if not kinds:
            said.append(f"{about}: nothing could be measured at both.")
            continue
        most = measured.loc[measured["mean"].abs().idxmax()]
        said.append(
            f"{about}: the scalar curvature {', '.join(kinds)}; it changes most in layer {most['layer']}, from "
            f"{most['before']:.3g} to {most['after']:.3g}."
        )
    return said


def overview(found: Any) -> list[Table]:
    """The live curvature by step and layer, a table for each run and part."""
    from rich.table import Table

    shown_tables = []
    rows = found.table[~found.table["part"].astype(str).str.startswith("head ")]
    live = rows[rows["reading"] == readings.LIVE]
    for (run, part, reading), of in (live if len(live) else rows).groupby(["run", "part", "reading"], sort=False):
        table = Table(title=f"{run}: scalar curvature of the {part}, {reading}, by step", title_justify="left")
        table.add_column("step", justify="right")
        layers = _few(sorted(set(of["layer"])))
        for layer in layers:
            table.add_column(f"layer {layer}", justify="right")
        for step in _few(sorted(set(of["step"]))):
            cells = [of[(of["step"] == step) & (of["layer"] == layer)] for layer in layers]
            table.add_row(str(step), *(_cell(cell.iloc[0]) if len(cell) else "-" for cell in cells))
        table.caption = "means and 95 % bootstrap intervals, per mean variance of the part's own outputs"
        shown_tables.append(table)
    return shown_tables


def _few(values: list[Any], most: int = 8) -> list[Any]:
    """At most so many of them, at even distances from the first to the last."""
    if len(values) <= most:
        return values
    return [values[round(float(at))] for at in np.linspace(0, len(values) - 1, most)]


def _cell(row: Any) -> str:
    if row["mean"] != row["mean"]:
        return "undecided"
    if row["mean"] == 0:
        return "flat"
    interval = "" if row["low"] != row["low"] else f"\n{row['low']:.1g} to {row['high']:.1g}"
    return f"{shown(row['mean'], row['mean_error'], 2, '+')}{interval}"
