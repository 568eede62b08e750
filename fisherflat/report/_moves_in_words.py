"""Several moves in one analysis: how much of what is said depends on which directions moved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from fisherflat.pages import Grid, Section
from fisherflat.parts import readings
from fisherflat.report._page import axis, interval, listed, number

if TYPE_CHECKING:
    import pandas as pd


class Moved(Protocol):
    """What is needed of an analysis."""

    settings: dict[str, Any]

    @property
    def moves(self) -> list[str]:
        """What moved."""

    @property
    def by_moves(self) -> pd.DataFrame:
        """The estimates along each."""


def _along(found: Moved) -> pd.DataFrame:
    """A row for each layer, part and reading, a column for each of the moves, with the means."""
    estimates = found.by_moves
    wide = estimates.set_index(["part", "reading", "layer", "moves"])["mean"].unstack("moves", sort=False)
    return wide[[name for name in found.moves if name in wide]]


def sentences(found: Moved) -> list[str]:
    """Of each part, live: in how many layers each of the others has the sign of the first, and how large it is."""
    if len(found.moves) < 2 or found.by_moves.empty:
        return []
    means = _along(found)
    first, *others = means.columns
    said = []
    for (part, reading), rows in means.groupby(level=["part", "reading"], sort=False):
        if part.startswith("head ") or reading != readings.LIVE:
            continue
        each = []
        for name in others:
            both = rows[[first, name]].dropna()
            same = int(((both[first] > 0) == (both[name] > 0)).sum())
            ratio = (both[name].abs().mean() / both[first].abs().mean()) if both[first].abs().mean() else float("nan")
            each.append(
                f"along {name} |scal| is {ratio:.2g} times as large on average, with the same sign in {same} of "
                f"{len(both)} layer{'' if len(both) == 1 else 's'}"
            )
        said.append(f"Along other moves than {first}, {part}, live: {'; '.join(each)}.")
    return said


def sections(found: Moved) -> list[Section]:
    """The means along each of the moves, side by side."""
    if len(found.moves) < 2 or found.by_moves.empty:
        return []
    rows = found.by_moves.sort_values(["part", "layer"], kind="stable").to_dict("records")
    grid = [
        [
            number(row["layer"]), row["part"], row["reading"], row["moves"],
            number(row["mean"], row["mean_error"], 3, "+"), interval(row["low"], row["high"]),
        ]
        for row in sorted(rows, key=lambda row: readings.order(row["reading"]))
    ]  # fmt: skip
    heads = ["layer", "part", "reading", "moves", axis(found.settings.get("family"), "mean"), "interval"]
    return [Section("Along each of the moves", [
        f"What is above is about {found.moves[0]}. What is claimed of a layer, not of these directions, should hold "
        f"along {listed(found.moves[1:])} as well.",
        Grid("Mean scalar curvature along each of the moves", heads, grid, "moves.csv"),
    ])]  # fmt: skip
