"""What is to be read of an analysis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fisherflat import statistics
from fisherflat.geometry import FLAT_WORDS, Verdict
from fisherflat.pages import Chart, Grid, Pick, Points, Section, cells, ranges
from fisherflat.parts import readings
from fisherflat.report import _patterns
from fisherflat.report._analysed import Analysed
from fisherflat.report._analysis_in_words import NAMES
from fisherflat.report._depth_page import measured
from fisherflat.report._page import TONES, axis, interval, listed, number, short
from fisherflat.studies.layers import negligible

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from fisherflat.studies.depth import Depth

_OF_HEADS = (
    "What each head gives to the output projection, by itself. Points at which the image of a head is negligible (the "
    "column negligible_image) are left out; where all are, the cell says so."
)
#: where the metric is worse conditioned than this, a reader may want to look again
_ILL = 1e6


def sections(found: Analysed) -> list[Section]:
    """What is to be read of an analysis, from what matters most to how it was made."""
    parts = of_estimates(found)
    if "planes" in found.table and found.measured:
        parts.append(_all_directions(found.table, found.settings.get("family")))
    parts += through_depth(found.studies)
    return [*parts, _second_look(found), Section("All of it in sentences", [Points(found.sentences())])]


def of_estimates(found: Analysed) -> list[Section]:
    """What the estimates by layer, part and reading show, and what gates add."""
    parts, estimates, family = list[Section](), found.estimates, found.settings.get("family")
    whole = estimates[estimates["part"].isin(NAMES)]
    if len(whole):
        parts += [_overview(whole, family), _by_layer(whole, family)]
    if len(estimates) > len(whole):
        parts.append(_heads(estimates[~estimates["part"].isin(NAMES)]))
        parts += _patterns.sections(found.patterns, estimates, family)
    if len(found.gaps):
        parts.append(_gates(found.gaps, family))
    return parts


def through_depth(studies: Sequence[Depth]) -> list[Section]:
    """The studies of depth, where there are some, of which a reader looks at one."""
    if not studies:
        return []
    if len(studies) == 1:
        return [Section(f"Through the depth: {short(studies[0].text)}", measured(studies[0]))]
    names = [f"({number}) {short(study.text)}" for number, study in enumerate(studies)]
    each = {name: Section(name, measured(study)) for name, study in zip(names, studies, strict=True)}
    return [Section("Through the depth", [Pick("Look at the prompt", each)])]


def _overview(kinds: pd.DataFrame, family: str | None) -> Section:
    rows = [_row(row) | {"what": f"{row['part']}, {row['reading']}"} for row in _ordered(kinds)]
    return Section("Layers and parts", [
        cells(
            "Where it is curved", rows, x="layer", y="what",
            about="Each cell is one part of one layer in one reading: live, or with parts of it held (frozen). Orange "
            "bulges like a sphere, purple bends like a saddle, “flat” is flat; where there is no cell, there "
            "is nothing of that kind to hold.",
            said=_in_brief(kinds), table="estimates.csv", of=axis(family, "mean scalar curvature"),
        ),
    ])  # fmt: skip


def _by_layer(kinds: pd.DataFrame, family: str | None) -> Section:
    order = sorted(set(kinds["reading"]), key=readings.order)
    charts: list[Chart | Grid] = []
    for part in dict.fromkeys(kinds["part"]):
        of_part = kinds[kinds["part"] == part]
        charts.append(ranges(
            f"Layer by layer: {part}", [_row(row) for row in _ordered(of_part)],
            x="layer", series="reading", order=order,
            about="Means over prompts, positions and points; the bars are their intervals.",
            said=_in_brief(of_part), table="estimates.csv", y=axis(family),
        ))  # fmt: skip
    return Section("Layer by layer", [*charts, _estimates(kinds, family)])


def _estimates(kinds: pd.DataFrame, family: str | None) -> Grid:
    rows = [
        [
            number(row["layer"]),
            row["part"],
            row["reading"],
            number(row["mean"], row["mean_error"], 3, "+", TONES[row["word"]]),
            number(row["low"], digits=2),
            number(row["high"], digits=2),
            number(row["mean_error"], digits=1),
            f"{row['clusters']} {row['level']}{'' if row['clusters'] == 1 else 's'}"
            if row["low"] == row["low"]
            else "–",
            number(row["count"]),
            row["word"] if not row["undecided"] else f"{row['word']}, {row['undecided']} undecided",
        ]
        for row in _ordered(kinds)
    ]
    heads = [
        "layer",
        "part",
        "reading",
        axis(family, "mean"),
        "low",
        "high",
        "numerical error",
        "interval over",
        "points",
    ]
    return Grid(
        "Mean scalar curvature, its interval (95 % from five prompts, positions or points on) and its numerical error",
        [*heads, "verdict"], rows, "estimates.csv",
    )  # fmt: skip


def _all_directions(table: pd.DataFrame, family: str | None) -> Section:
    """A row for each place: the curvature in all directions, with the interval of its sampling."""
    rows = [
        [
            number(row["layer"]),
            row["part"],
            row["reading"],
            short(str(row["text"])),
            "together" if row["position"] != row["position"] or row["position"] is None else str(row["token"]),
            number(row["scalar_curvature"], row["scalar_curvature_error"], 3, "+", TONES[row["verdict"]]),
            number(row["scalar_curvature_low"], digits=3),
            number(row["scalar_curvature_high"], digits=3),
            number(row["mean_sectional_curvature"], digits=3, sign="+"),
            f"{100 * row['positive_planes']:.0f} %",
            number(row["directions"]),
            number(row["planes"]),
            row["verdict"],
        ]
        for row in _ordered(table[table["verdict"].notna() & table["directions"].notna()])
    ]
    heads = [
        "layer",
        "part",
        "reading",
        "prompt",
        "token",
        axis(family, "scalar curvature"),
        "low",
        "high",
        "mean sectional",
        "planes bent like a sphere",
        "directions",
        "random planes",
        "verdict",
    ]
    return Section("In all directions", [
        "Every direction of what enters a part moves at once. From low to high is the 95 % interval of sampling at "
        "this place; that of the estimates above is over places, where there are several.",
        Grid("Scalar curvature in all directions, place by place", heads, rows, "table.csv"),
    ])  # fmt: skip


def _heads(kinds: pd.DataFrame) -> Section:
    """Heads that hardly move their outputs have no colour: curvatures of nothing would take it from all others."""
    items: list[Any] = []

    def seen(row: dict[str, Any]) -> dict[str, Any]:
        told, mean = _row(row) | {"head": row["part"].removeprefix("head ")}, row["mean_of_others"]
        if not row["negligible"] or told["tone"] != "curved":
            return told
        if math.isnan(mean):
            return told | {"mean": math.nan, "word": "negligible image", "tone": "small"}
        return told | {"mean": mean, "shown": f"{mean:+.3g} without negligible images", "interval": ""}

    for reading in sorted(set(kinds["reading"]), key=readings.order):
        rows = kinds[kinds["reading"] == reading]
        ordered = [seen(row) for row in _ordered(rows)]
        items.append(cells(
            f"Heads, {reading}", [row | {"layer": f"layer {row['layer']}"} for row in ordered], x="head", y="layer",
            about=_OF_HEADS, said=_in_brief(rows),
            table="estimates.csv",
        ))  # fmt: skip
    return Section("Heads", items)


def _gates(gaps: pd.DataFrame, family: str | None) -> Section:
    gaps = gaps[gaps["part"].isin(NAMES)]
    if gaps.empty:
        return Section("What the gates add", ["Only heads were measured with their gates held: see gaps.csv."])
    named = gaps.assign(
        what=gaps["gate"] + gaps["live"].map(lambda live: "" if live == readings.LIVE else ", pattern held")
    )
    order = list(dict.fromkeys(named["what"]))
    items: list[Chart | Grid] = [
        ranges(
            f"What gates add to the curvature of the {part}", [_gap(row) for row in rows.to_dict("records")],
            x="layer", series="gate", order=order, y=axis(family, "gap in scalar curvature"),
            about="Curvature with the gate live minus curvature with the gate held, point by point.",
            said=f"Gaps from {rows['mean'].min():+.2g} to {rows['mean'].max():+.2g}.", table="gaps.csv",
        )
        for part, rows in named.groupby("part", sort=False)
    ]  # fmt: skip
    cells_of = [
        [
            number(row["layer"]), row["part"], row["what"], number(row["mean"], row["mean_error"], 3, "+"),
            number(row["low"], digits=2), number(row["high"], digits=2), number(row["mean_error"], digits=1),
        ]
        for row in named.to_dict("records")
    ]  # fmt: skip
    heads = ["layer", "part", "gate", axis(family, "mean gap"), "low", "high", "numerical error"]
    return Section("What the gates add", [*items, Grid("Expressivity gaps of the gates", heads, cells_of, "gaps.csv")])


def _gap(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "layer": row["layer"],
        "gate": row["what"],
        "mean": row["mean"],
        "low": row["low"],
        "high": row["high"],
        "shown": number(row["mean"], row["mean_error"], 3, "+").text,
        "interval": interval(row["low"], row["high"]),
        "word": "–",
    }


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """What a chart is told of a layer, part and reading."""
    tone = TONES[row["word"]]
    return {
        "layer": int(row["layer"]),
        "reading": row["reading"],
        "mean": 0.0 if tone == "flat" else row["mean"],
        "low": row["low"],
        "high": row["high"],
        "shown": row["word"] if tone != "curved" else number(row["mean"], row["mean_error"], 3, "+").text,
        "interval": interval(row["low"], row["high"]),
        "word": row["word"],
        "tone": tone,
    }


def _ordered(kinds: pd.DataFrame) -> list[dict[str, Any]]:
    parts = list(dict.fromkeys(kinds["part"]))
    rows: list[dict[str, Any]] = kinds.to_dict("records")
    return sorted(rows, key=lambda row: (parts.index(row["part"]), readings.order(row["reading"]), row["layer"]))


def _in_brief(kinds: pd.DataFrame) -> str:
    """A chart for those who do not see it."""
    words = kinds["word"]
    said = [f"{len(kinds)} means"]
    flat = int(words.isin(FLAT_WORDS).sum())
    said += [f"{flat} flat"] if flat else []
    curved = kinds[words == Verdict.CURVED]
    if len(curved):
        low, high = curved.loc[curved["mean"].idxmin()], curved.loc[curved["mean"].idxmax()]
        ends = [f"{row['mean']:+.2g} ({row['part']}, {row['reading']}, layer {row['layer']})" for row in (low, high)]
        said.append(
            f"{len(curved)} curved, from {ends[0]} to {ends[1]}" if len(curved) > 1 else f"one curved, {ends[0]}"
        )
    unknown = int((words == Verdict.UNDECIDED).sum())
    return ", ".join([*said, *([f"{unknown} undecided"] if unknown else [])]) + "."


def _second_look(found: Analysed) -> Section:
    """Degenerate points, undecided rows, cancellation, routing, and what the notes say."""
    table = found.table
    measured = table[table["verdict"].notna()]
    said = []
    unknown = measured[measured["verdict"] == Verdict.UNDECIDED]
    if len(unknown):
        said.append(
            f"Undecided: at {len(unknown)} of {len(measured)} points the numerical error exceeds the value "
            f'({_places(unknown)}). With errors="all" they are estimated at each of them.'
        )
    failed = table[table["verdict"].isna()]
    for reason, rows in list(failed.groupby("error", sort=False))[:5]:
        said.append(f"No result in {len(rows)} rows ({_places(rows)}): {reason}")
    ill = measured[measured["condition_number"] > _ILL]
    if len(ill):
        said.append(
            f"Nearly degenerate: at {len(ill)} points one direction moves the outputs more than a thousand "
            f"times less than "
            f"another (condition of the metric above {_ILL:.0e}: {_places(ill)}). Two directions do little "
            f"more there than one."
        )
    lost = measured[
        (measured["verdict"] == Verdict.CURVED)
        & (measured["scalar_curvature_error"] > 1e-3 * measured["scalar_curvature"].abs())
    ]
    if len(lost):
        said.append(
            f"Cancellation: at {len(lost)} points fewer than three digits of the curvature are right ({_places(lost)})."
        )
    small = measured[negligible(measured)]
    if len(small):
        said.append(
            f"Negligible images: at {len(small)} curved points the outputs move less than a thousandth of their spread "
            f"while a token moves by one unit ({_places(small)}), so that the curvature hardly matters."
        )
    rerouted = int(measured["rerouted"].fillna(False).sum())
    if rerouted:
        said.append(
            f"Routing: at {rerouted} points a mixture chooses other experts than on the prompt itself, so that "
            f"the surface "
            "jumps in between."
        )
    few = found.estimates["clusters"].max() if found.measured else math.nan
    if few < statistics.ENOUGH:
        said.append(
            f"Few samples: intervals are over {few:g} prompts, positions or points, and {statistics.ENOUGH} is "
            f"the least that "
            "bears a 95 % interval. More prompts make conclusions about other prompts possible."
        )
    said += found.notes
    return Section(
        "Worth a second look", [Points(said)] if said else ["Nothing: all points were measured and decided."]
    )


def _places(rows: pd.DataFrame) -> str:
    named = [
        ", ".join(str(row[name]) for name in ("part", "reading") if isinstance(row[name], str))
        + f", layer {row['layer']}"
        for row in rows.to_dict("records")
    ]
    return listed((f"{name}" for name in named), 3)
