"""The attention patterns of the heads that an analysis measured: what they are, their figure and their page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat import plot
from fisherflat._files import read_json, regular
from fisherflat.errors import InputError
from fisherflat.pages import Pick, Section, weights
from fisherflat.parts import readings
from fisherflat.report._captions import caption, of_part
from fisherflat.report._page import TONES, number, short, unit_of
from fisherflat.report._writer import Content, Figure, blank

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Canvas

#: the file of all of them
FILE = "patterns.json"
#: how many a figure and a page show
DRAWN, SHOWN = 6, 24


@dataclass(frozen=True)
class Pattern:
    """How a head attended on a prompt.

    **Attributes:** `layer`, `head`, from 0; `prompt`, its index, and `text`; `tokens`, as people read them; `weights`,
    a row for each token that attends.
    """

    layer: int
    head: int
    prompt: int
    text: str
    tokens: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]

    @property
    def named(self) -> list[str]:
        """The tokens, each told from others that read the same."""
        return [f"{token} {place}" for place, token in enumerate(self.tokens)]


def of_rows(rows: Iterable[Mapping[str, Any]]) -> list[Pattern]:
    """Those that come with the rows of heads, each once."""
    found = {}
    for row in rows:
        if (pattern := row.get("pattern")) is not None:
            head = int(row["part"].removeprefix("head "))
            place = row["layer"], head, row["prompt"]
            lines = tuple(map(tuple, pattern["weights"]))
            found[place] = Pattern(*place, row["text"], tuple(pattern["tokens"]), lines)
    return [found[place] for place in sorted(found)]


def document(patterns: Sequence[Pattern]) -> dict[str, Any]:
    """Fit for JSON."""
    return {"patterns": [asdict(pattern) for pattern in patterns]}


def loaded(folder: Path) -> list[Pattern]:
    """Those that were saved in a folder; none of an older release, or of an analysis without heads.

    **Raises:** `InputError` for a file that holds something else.
    """
    if not (folder / FILE).exists():
        return []
    try:
        given = read_json(regular(folder / FILE))["patterns"]
        return [
            Pattern(**one | {"tokens": tuple(one["tokens"]), "weights": tuple(map(tuple, one["weights"]))})
            for one in given
        ]
    except (KeyError, TypeError) as error:
        raise InputError(f"{folder / FILE} holds no patterns ({error}); save the analysis again") from error


@dataclass(frozen=True)
class Curved:
    """A pattern, and how curved the head is in the reading that comes first, in a word or a number."""

    pattern: Pattern
    size: float
    said: str


def beside_curvature(patterns: Sequence[Pattern], estimates: pd.DataFrame, unit: str) -> list[Curved]:
    """The patterns of the first prompt that has some, by how curved their heads are.

    **Args:** `estimates`, as of an `Analysis`; `unit` of curvature. Negligible images are left out, as in maps.
    """
    heads = estimates[estimates["part"].str.startswith("head ")]
    if heads.empty or not patterns:
        return []
    first = min(heads["reading"], key=readings.order)
    known = {(row["layer"], row["part"]): row for row in heads[heads["reading"] == first].to_dict("records")}
    found = []
    for pattern in patterns:
        row = known.get((pattern.layer, f"head {pattern.head}"))
        if pattern.prompt == patterns[0].prompt and row is not None:
            found.append(Curved(pattern, *_curvature(row, first, unit)))
    return sorted(found, key=lambda one: (-one.size, one.pattern.layer, one.pattern.head))


def _curvature(row: Mapping[str, Any], reading: str, unit: str) -> tuple[float, str]:
    """How curved a head is, and that in words."""
    if TONES[row["word"]] != "curved":
        return 0.0, f"{reading}: {row['word']}"
    mean = row["mean_of_others"] if row["negligible"] else row["mean"]
    if math.isnan(mean):
        return 0.0, f"{reading}: negligible image"
    return abs(mean), f"{reading}: {number(mean, row['mean_error'], 3, '+').text}{unit}"


def files(
    patterns: Sequence[Pattern], estimates: pd.DataFrame, model: str, settings: Mapping[str, Any]
) -> dict[str, Content]:
    """All of them, and a figure of those of the heads that are most curved, where any has an estimate."""
    written: dict[str, Content] = {FILE: document(patterns)}
    if found := beside_curvature(patterns, estimates, unit_of(settings.get("family"))):
        what = "what the most curved heads look at, beside their mean scal"
        about = caption(model, what, [found[0].pattern.text], of_part(settings))
        written["patterns.png"] = Figure(partial(_draw, found[:DRAWN], about))
    return written


def _draw(found: Sequence[Curved], about: Sequence[str]) -> Canvas:
    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    canvas = blank(2 * plot.COLUMN, 0.6 + 2.5 * rows)
    axes = list(canvas.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[len(found) :]:
        ax.set_axis_off()
    titles = [f"layer {one.pattern.layer}, head {one.pattern.head}\n{one.said}" for one in found]
    plot.patterns(
        {title: one.pattern.weights for title, one in zip(titles, found, strict=True)},
        found[0].pattern.tokens,
        axes=axes[: len(found)],
    )
    plot.caption(canvas, about)
    return canvas


def sections(patterns: Sequence[Pattern], estimates: pd.DataFrame, family: str | None) -> list[Section]:
    """What heads look at, beside how curved they are."""
    found = beside_curvature(patterns, estimates, unit_of(family))
    if not found:
        return []
    charts = {}
    for one in found[:SHOWN]:
        pattern, names = one.pattern, one.pattern.named
        cells = [
            {"attends": names[i], "to": names[j], "weight": weight}
            for i, line in enumerate(pattern.weights)
            for j, weight in enumerate(line)
            if weight >= 5e-4
        ]
        name = f"Layer {pattern.layer}, head {pattern.head}"
        charts[f"{name} ({one.said})"] = weights(
            f"{name}, {one.said}", cells, x="to", y="attends", order=names, table=FILE,
            about="Each row is a token, and how its attention is shared out among the tokens of the prompt: the "
            "darker, the more. A number behind a token is its place.", said=_most(cells),
        )  # fmt: skip
    left = len(found) - len(charts)
    about = f"On “{short(found[0].pattern.text)}”; heads by how curved they are, the most curved first"
    others = f"; the other {left} are in {FILE}." if left > 0 else "."
    return [Section("What heads look at", [about + others, Pick("Look at the head", charts)])]


def _most(cells: Sequence[Mapping[str, Any]]) -> str:
    """A pattern for those who do not see it: the largest weight of one token to another."""
    others = [cell for cell in cells if cell["attends"] != cell["to"]]
    if not others:
        return "Every token attends to itself alone."
    most = max(others, key=lambda cell: cell["weight"])
    return (
        f"The largest weight of one token to another is {most['weight']:.2f}, of “{most['attends']}” to “{most['to']}”."
    )
