"""A comparison in words and as small tables; `found` is a `fisherflat.report.Comparison`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fisherflat._display import shown
from fisherflat._files import visible
from fisherflat.parts import readings
from fisherflat.report._analysis_in_words import named, part_in_words
from fisherflat.report._digits import known_to
from fisherflat.statistics import ENOUGH, Estimate

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

#: gate -> the same with its article
_GATES = {"gate": "an attention gate", "mlp gate": "an MLP gate"}


def headline(found: Any) -> str:
    """The live difference of each part over all layers."""
    live = found.overall[found.overall["reading"] == readings.LIVE]
    said = [_overall(found, row) for _, row in live.iterrows()]
    return " ".join(said) or "".join(_overall(found, row) for _, row in found.overall.head(1).iterrows())


def sentences(found: Any) -> list[str]:
    """What differs, where, and how well profiles agree."""
    if found.pairs is None:
        return []
    said = []
    for _, row in _ordered(found.overall).iterrows():
        of = (row["model"], row["part"], row["reading"])
        said.append(_overall(found, row))
        layers = found.table[(found.table[["model", "part", "reading"]] == list(of)).all(axis=1)]
        if len(layers) > 1 and row["word"] != "the same":
            where = [
                f"{word} in {named(rows['layer'])}"
                for word in ("larger", "smaller", "the same", "uncertain")
                if len(rows := layers[layers["word"] == word])
            ]
            said[-1] += f" By layer: {', '.join(where)}." if where else ""
        agree = found.agreement[(found.agreement[["model", "part", "reading"]] == list(of)).all(axis=1)].iloc[0]
        said += _agreement(agree) if row["word"] != "the same" else []
    return [*said, *_about_gates(found), *_about_unpaired(found)]


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values("reading", key=lambda names: names.map(readings.order), kind="stable")


def _overall(found: Any, row: Any) -> str:
    """One sentence about a part and a reading over all layers."""
    what = part_in_words(row["part"], row["reading"])
    if row["word"] == "not measured":
        return f"{what}: nothing could be measured in both."
    if row["word"] == "the same":
        both = "flat in both" if row["before"] == row["after"] == 0 else "the same in both, to rounding"
        return f"{what}: {both}."
    difference = Estimate(**{name: _plain(row[name]) for name in Estimate.__dataclass_fields__})
    if row["word"] == "smaller":
        difference = Estimate(**vars(difference) | _absolute(difference))
    said = {
        "larger": f"it is larger in {row['model']} by",
        "smaller": f"it is smaller in {row['model']} by",
        "uncertain": "the sign of the difference is uncertain,",
        "too few": "the difference is",
    }[row["word"]]
    floor = row["noise_floor"]
    halves = f"; two halves of one analysis differ by {floor:.2g}" if floor == floor else ""
    return (
        f"{what}: the mean scalar curvature is {row['after']:.3g} in {row['model']} and {row['before']:.3g} in "
        f"{found.names[0]}; {said} {difference}{known_to(difference, row['mean_error'])}{halves}."
    )


def _absolute(estimate: Estimate) -> dict[str, float]:
    """A negative difference as an amount."""
    return {"mean": -estimate.mean, "low": -estimate.high, "high": -estimate.low}


def _agreement(row: Any) -> list[str]:
    if row["places"] < 2:
        return []
    said = []
    if row["rank"] == row["rank"]:
        said.append(f"in rank to {row['rank']:.2f}{_of(row, 'rank')}")
    said.append(f"in sign in {row['sign']:.0%} of the layers{_of(row, 'sign', percent=True)}")
    return [f"Over {row['places']} layers the two profiles agree {', and '.join(said)}."]


def _of(row: Any, name: str, percent: bool = False) -> str:
    """The interval of an agreement, and how well halves agree."""
    form = "{:.0%}" if percent else "{:.2f}"
    low, high, halves = (row[f"{name}_low"], row[f"{name}_high"], row[f"{name}_of_halves"])
    said = []
    if low == low and row["clusters"] >= ENOUGH:
        said.append(f"95 % interval {form.format(low)} to {form.format(high)}")
    if halves == halves:
        said.append(f"halves of one analysis: {form.format(halves)}")
    return f" ({'; '.join(said)})" if said else ""


def _about_gates(found: Any) -> list[str]:
    """What gates add that some of the others do not have."""
    said = []
    alone = found.gates[found.gates["not_in"] != ""]
    keys = ["model", "part", "gate", "live", "not_in"]
    for (model, part, gate, live, lacking), rows in alone.groupby(keys, sort=False):
        most = rows.loc[rows["mean"].abs().idxmax()]
        size = Estimate(**{name: _plain(most[name]) for name in Estimate.__dataclass_fields__})
        held = "" if live == readings.LIVE else ", with the pattern frozen,"
        adds = (
            f"What it adds to the scalar curvature{held} is largest in layer {most['layer']}: "
            f"{size}{known_to(size, most['mean_error'])}."
        )
        if (rows["mean"].abs() <= rows["mean_error"]).all():
            adds = f"To the scalar curvature{held} it adds nothing."
        said.append(
            f"Only {model} has {_GATES.get(gate, gate)} in the {part} of {named(rows['layer'])}, {lacking} has none "
            f"there. {adds}"
        )
    return said


def _about_unpaired(found: Any) -> list[str]:
    """What only some of them have."""
    assert found.pairs is not None
    said = []
    for model, rows in found.pairs.unpaired.groupby("model", sort=False):
        kinds = [
            f"{_within(part_in_words(part, reading))} ({named(of['layer'])})"
            for (part, reading), of in rows.groupby(["part", "reading"], sort=False)
        ]
        said.append(f"Only in {model}, and so not compared: {'; '.join(kinds)}.")
    return said


def _within(sentence: str) -> str:
    """The beginning of a sentence, within another."""
    return sentence[:1].lower() + sentence[1:]


def overview(found: Any) -> list[Table]:
    """The live difference by layer and part; and over all layers, of every reading."""
    from rich.table import Table

    if found.pairs is None:
        return []
    shown_tables, first = [], _text(found.names[0])
    for model in dict.fromkeys(found.table["model"]):
        rows = found.table[found.table["model"] == model]
        live = rows[rows["reading"] == readings.LIVE]
        live = live if len(live) else rows
        by_layer = Table(title=f"scalar curvature by layer: {_text(model)} minus {first}", title_justify="left")
        by_layer.add_column("layer", justify="right")
        kinds = list(dict.fromkeys(zip(live["part"], live["reading"], strict=True)))
        for part, reading in kinds:
            by_layer.add_column(f"{part},\n{reading}", justify="right")
        for layer in sorted(set(live["layer"])):
            cells = [
                live[(live["layer"] == layer) & (live["part"] == part) & (live["reading"] == reading)]
                for part, reading in kinds
            ]
            by_layer.add_row(str(layer), *(_cell(cell.iloc[0]) if len(cell) else "-" for cell in cells))
        by_layer.caption = "paired differences, 95 % bootstrap intervals, and the noise floor of halves (±)"
        overall = Table(title=f"over all layers: {_text(model)} minus {first}", title_justify="left")
        for name in ("part", "reading"):
            overall.add_column(name)
        for name in (first, _text(model), "difference", "rank", "sign"):
            overall.add_column(name, justify="right")
        agreement = found.agreement.set_index(["model", "part", "reading"])
        for _, row in _ordered(found.overall[found.overall["model"] == model]).iterrows():
            agree = agreement.loc[(model, row["part"], row["reading"])]
            rank = "-" if agree["rank"] != agree["rank"] else f"{agree['rank']:.2f}"
            overall.add_row(
                row["part"], row["reading"], f"{row['before']:+.2g}", f"{row['after']:+.2g}", _cell(row), rank,
                f"{agree['sign']:.0%}",
            )  # fmt: skip
        overall.caption = "rank and sign: how well the profiles over the layers agree"
        shown_tables += [by_layer, overall]
    return shown_tables


def _cell(row: Any) -> str:
    if row["word"] == "not measured":
        return "-"
    if row["word"] == "the same":
        return "the same"
    interval = "" if row["low"] != row["low"] else f"\n{row['low']:.1g} to {row['high']:.1g}"
    floor = "" if row["noise_floor"] != row["noise_floor"] else f"\n(±{row['noise_floor']:.1g})"
    return f"{shown(row['mean'], row['mean_error'], 2, '+')}{interval}{floor}"


def _text(name: str) -> str:
    """A name in a table, in which nothing steers the terminal and nothing is markup."""
    from rich.markup import escape

    return escape(visible(name))


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
