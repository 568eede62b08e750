"""An analysis in words and as a small table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fisherflat._display import shown
from fisherflat.geometry import FLAT_WORDS, Verdict
from fisherflat.parts import readings
from fisherflat.report._digits import known_to
from fisherflat.statistics import ENOUGH, Estimate, estimate
from fisherflat.studies import in_words
from fisherflat.studies.layers import negligible

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

#: part -> how a sentence begins with it
NAMES = {"attention": "Attention", "mlp": "The MLP", "block": "The whole block"}
#: role -> how a sentence speaks of it
HELD = {
    "pattern": "pattern",
    "attention_gate": "attention gate",
    "norm": "norms",
    "mlp_gate": "MLP gate",
    "activation": "activations",
}


def sentences(table: pd.DataFrame, gaps: pd.DataFrame) -> list[str]:
    """What the table says about each part and reading, and what follows."""
    measured = table[table["verdict"].notna()]
    depth = table["layer"].nunique()
    said = _about_family(table)
    said += [f"{part_in_words(*kind)}: {_describe(rows, depth)}." for kind, rows in _kinds(measured)]
    said += [*_about_heads(measured), *_what_bends(measured[measured["part"] == "attention"]), *_about_gaps(gaps)]
    undecided = measured[measured["verdict"] == Verdict.UNDECIDED]
    if len(undecided):
        said.append(
            f"At {len(undecided)} of {len(measured)} points the error of the scalar curvature exceeds its value, so "
            f"that not even its sign is known ({_where(undecided)}): these are undecided, and in no mean."
        )
    small = measured[negligible(measured)]
    if len(small):
        said.append(
            f"At {len(small)} of {len(measured)} points a unit of the chart changes the outputs by less than a "
            f"thousandth of their standard deviation ({_where(small)}): negligible images, whose curvature hardly "
            "matters."
        )
    failed = table[table["verdict"].isna()]
    if len(failed):
        first = failed.iloc[0]
        what = ", ".join(str(first[name]) for name in ("part", "reading") if isinstance(first[name], str))
        said.append(
            f"{len(failed)} of {len(table)} rows have no result; the first is layer {first['layer']}, {what}: "
            f"{first['error']}"
        )
    return said


def _about_family(table: pd.DataFrame) -> list[str]:
    """Of what distributions the numbers are, where these are no Gaussians of one covariance."""
    if "family" not in table or not len(table):
        return []
    measured = table[table["verdict"].notna()]
    said = [f"The numbers are of {in_words(table['family'].iloc[0])} that the model itself makes of the states there."]
    rest, relative = measured["uncertainty"].median(), measured["relative_curvature"].median()
    if rest == rest:
        said.append(
            f"In the median 1 - p of the likeliest outcome is {rest:.2g}, and 4 (1 - p) K, with K the mean sectional "
            f"curvature, which grows towards certainty like 1 / (1 - p), is {relative:.3g}."
        )
    return said


def _where(rows: pd.DataFrame) -> str:
    """Up to three of the places that rows are about."""
    places = [f"layer {layer}, {part}, {reading}" for layer, part, reading in zip(
        rows["layer"], rows["part"], rows["reading"], strict=True
    )]  # fmt: skip
    distinct = list(dict.fromkeys(places))
    return "; ".join(distinct[:3]) + (f"; and {len(distinct) - 3} more" if len(distinct) > 3 else "")


def _whole_parts(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["part"].isin(NAMES)]


def _kinds(table: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """The rows of each part and reading: parts as they come, readings from the simplest on."""
    parts = list(dict.fromkeys(table["part"]))
    groups = _whole_parts(table).groupby(["part", "reading"], sort=False)
    return sorted(groups, key=lambda kind: (parts.index(kind[0][0]), readings.order(kind[0][1])))


def part_in_words(part: str, reading: str) -> str:
    held = [HELD[role] for role in readings.roles(reading)]
    name = NAMES.get(part, part)
    whose = "their" if name == "Heads" else "its"
    return f"{name} with {whose} {' and '.join(held)} frozen" if held else f"{name}, live"


def _describe(rows: pd.DataFrame, of: int) -> str:
    """What the rows of a part and reading say; `of`, how many layers there are."""
    depth = rows["layer"].nunique()
    curved = rows[rows["verdict"] == Verdict.CURVED]
    if curved.empty:
        where = _count(of) if depth == of else named(rows["layer"])
        words = set(rows["verdict"])
        if words == {str(Verdict.PROVED)}:
            return f"flat, by structure alone, in {where}"
        return f"undecided in {where}" if Verdict.UNDECIDED in words else f"flat to its error in {where}"
    positive = curved["scalar_curvature"] > 0
    one = "positive curvature" if positive.all() else "negative curvature"
    sign = one if positive.nunique() == 1 else "curvature of both signs"
    where = named(curved["layer"]) if curved["layer"].nunique() < depth or depth < of else _count(of)
    return f"{sign} in {where}, on average {_estimate(rows)}"


def _estimate(rows: pd.DataFrame) -> str:
    rows = rows[rows["verdict"] != Verdict.UNDECIDED]
    places = rows["position"].astype(object).where(rows["position"].notna(), None)  # none where all words move at once
    found = estimate(rows["scalar_curvature"], list(rows["prompt"]), places)
    return f"{found}{known_to(found, rows['scalar_curvature_error'].mean())}"


def _about_heads(measured: pd.DataFrame) -> list[str]:
    """Which heads are curved most, in each reading."""
    heads = measured[measured["part"].str.startswith("head ")]
    said = []
    for reading, rows in heads.groupby("reading", sort=False):
        curved = rows[rows["verdict"] == Verdict.CURVED]
        if curved.empty:
            flat = rows["verdict"].isin(FLAT_WORDS).all()
            what = "all are flat" if flat else "none is curved, as far as the errors tell"
            said.append(f"{part_in_words('Heads', reading)}: {what}.")
            continue
        groups = [curved["layer"], curved["part"]]
        mean = curved["scalar_curvature"].groupby(groups, sort=False).mean()
        error = curved["scalar_curvature_error"].groupby(groups, sort=False).mean()  # that of a mean is no larger
        layer, head = mean.abs().idxmax()
        of = rows.groupby(["layer", "part"]).ngroups
        said.append(
            f"{part_in_words('Heads', reading)}: {len(mean)} of {of} are curved; the most curved is {head} of layer "
            f"{layer}, with a mean scalar curvature of {shown(mean[layer, head], error[layer, head])}."
        )
    return said


def _what_bends(attention: pd.DataFrame) -> list[str]:
    """What follows for attention from the readings that hold its pattern."""
    curved, not_flat = (
        {reading: set(rows.loc[chosen(rows["verdict"]), "layer"]) for reading, rows in attention.groupby("reading")}
        for chosen in (lambda word: word == Verdict.CURVED, lambda word: ~word.isin(FLAT_WORDS))
    )
    if "frozen pattern" not in curved or "live" not in curved:
        return []
    if not not_flat["frozen pattern"]:
        alone = "So, where it was measured, the softmax pattern alone bends this attention."
        return [alone] if curved["live"] else []
    bent = curved["frozen pattern"]
    flat_without = bent - not_flat.get("frozen pattern+gate", bent)
    bent_without = bent & curved.get("frozen pattern+gate", bent)
    said = []
    if flat_without:
        said.append(f"With the pattern held, the gate alone bends the attention in {named(flat_without)}.")
    if bent_without:
        said.append(
            f"With the pattern{' and the gate' if 'frozen pattern+gate' in curved else ''} held, something else bends "
            f"the attention in {named(bent_without)}: a gate or a norm."
        )
    return said


def _about_gaps(gaps: pd.DataFrame) -> list[str]:
    """Where gates add curvature, as far as the intervals tell."""
    said = []
    for (part, gate, live), rows in _whole_parts(gaps).groupby(["part", "gate", "live"], sort=False):
        rounding, enough = rows["mean_error"], rows["clusters"] >= ENOUGH
        nothing = (rows["low"].abs() <= rounding) & (rows["high"].abs() <= rounding)
        what = {
            "it adds scalar curvature in": enough & (rows["low"] > rounding),
            "it takes some away in": enough & (rows["high"] < -rounding),
            "it changes nothing in": nothing,
            "its sign is uncertain in": enough & ~nothing & (rows["low"] <= rounding) & (rows["high"] >= -rounding),
            "there are too few prompts or positions to tell in": ~enough & ~nothing,
        }
        found = [f"{words} {named(rows.loc[chosen, 'layer'])}" for words, chosen in what.items() if chosen.any()]
        first = rows.loc[rows["mean"].abs().idxmax()]
        largest = Estimate(**{name: _plain(first[name]) for name in Estimate.__dataclass_fields__})
        held = "" if live == readings.LIVE else ", with the pattern frozen"
        said.append(
            f"Expressivity gap of the {gate} in the {part}{held}: {', '.join(found)}; the largest is in layer "
            f"{first['layer']}, {largest}{known_to(largest, first['mean_error'])}."
        )
    return said


def _plain(value: Any) -> Any:
    """A cell as a number or word of Python's own."""
    return value.item() if hasattr(value, "item") else value


def _count(depth: int) -> str:
    return "the one layer" if depth == 1 else f"all {depth} layers"


def named(layers: object) -> str:
    numbers = sorted(set(layers))  # type: ignore[call-overload]
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


def headline(table: pd.DataFrame, estimates: pd.DataFrame) -> str:
    """Which readings are flat by structure everywhere, and which live part of which layer is curved most."""
    measured = table[table["verdict"].notna()]
    if measured.empty:
        return "Nothing could be measured."
    depth = table["layer"].nunique()
    said = [
        f"{part_in_words(*kind)}: {_describe(rows, depth)}."
        for kind, rows in _kinds(measured)
        if set(rows["verdict"]) == {str(Verdict.PROVED)}
    ]
    live = measured[(measured["reading"] == readings.LIVE) & (measured["verdict"] == Verdict.CURVED)]
    places = live.drop_duplicates(["layer", "part"])[["layer", "part"]]
    found = places.merge(estimates[estimates["reading"] == readings.LIVE], on=["layer", "part"]).dropna(subset=["mean"])
    if found.empty:
        return " ".join(said) or "No live part is curved, as far as the errors tell."
    most = found.loc[found["mean"].abs().idxmax()]
    value = Estimate(**{name: _plain(most[name]) for name in Estimate.__dataclass_fields__})
    where = f"{most['part']} of layer {most['layer']}"
    return " ".join([*said, f"Most curved, live: the {where}, {value}{known_to(value, most['mean_error'])}."])


def glance(table: pd.DataFrame, estimates: pd.DataFrame) -> list[Table]:
    """The scalar curvature by layer, a column a part: live, or in the first reading that there is of it. No heads."""
    from rich.table import Table

    named = _whole_parts(table[table["reading"].notna()])
    kinds: dict[str, str] = {}
    for (part, reading), _ in _kinds(named):
        if part not in kinds or reading == readings.LIVE:
            kinds[part] = reading
    if not kinds:
        return []
    shown = Table(title="scalar curvature by layer", title_justify="left")
    shown.add_column("layer", justify="right")
    for part, reading in kinds.items():
        shown.add_column(f"{part},\n{reading}", justify="right")
    for layer in sorted(set(table["layer"])):
        shown.add_row(str(layer), *(_cell(table, estimates, (layer, *kind)) for kind in kinds.items()))
    shown.caption = _caption(table, estimates)
    return [shown]


def overview(table: pd.DataFrame, estimates: pd.DataFrame) -> list[Table]:
    """The mean scalar curvature with its interval, a table a part: a row a layer, a column a reading. No heads."""
    from rich.table import Table

    shown = []
    named = table[table["reading"].notna()]
    for part in dict.fromkeys(_whole_parts(named)["part"]):
        kinds = [kind for kind, _ in _kinds(named) if kind[0] == part]
        shown.append(Table(title=f"scalar curvature of the {part} by layer"))
        shown[-1].add_column("layer", justify="right")
        for _, reading in kinds:
            shown[-1].add_column(reading.replace("+", "\n+"), justify="right")
        for layer in sorted(set(table["layer"])):
            shown[-1].add_row(str(layer), *(_cell(table, estimates, (layer, *kind)) for kind in kinds))
    if shown:
        shown[-1].caption = _caption(table, estimates)
    return shown


def _cell(table: pd.DataFrame, estimates: pd.DataFrame, key: tuple[int, str, str]) -> str:
    names = ["layer", "part", "reading"]
    rows = table[(table[names] == list(key)).all(axis=1)]
    measured = rows[rows["verdict"].notna()]
    if measured.empty:
        return "error" if len(rows) else "-"
    if measured["verdict"].isin(FLAT_WORDS).all():
        return "flat"
    if not (measured["verdict"] == Verdict.CURVED).any():
        return "undecided"
    found = estimates[(estimates[names] == list(key)).all(axis=1)].iloc[0]
    interval = "" if found["low"] != found["low"] else f"\n{_ends(found['low'], found['high'])}"
    undecided = int((measured["verdict"] == Verdict.UNDECIDED).sum())
    left_out = f"\n{undecided} undecided" if undecided else ""
    return f"{shown(found['mean'], found['mean_error'], 2, '+')}{interval}{left_out}"


def _ends(low: float, high: float) -> str:
    """An interval in as few digits as leave its ends where they are, to a tenth of its length."""
    for digits in range(1, 7):
        ends = [f"{end:.{digits}g}" for end in (low, high)]
        if max(abs(float(ends[0]) - low), abs(float(ends[1]) - high)) <= (high - low) / 10:
            break
    return " to ".join(ends)


def _caption(table: pd.DataFrame, estimates: pd.DataFrame) -> str:
    unit = "in the family's own metric" if "family" in table else "per mean variance of the part's own outputs"
    known = estimates[(estimates["count"] > 0) & estimates["low"].notna()]
    sure = (
        "95 % intervals over random planes"
        if len(known) and (known["level"] == "plane").all()
        else "95 % bootstrap intervals"
        if (estimates["clusters"][estimates["count"] > 0] >= ENOUGH).all()
        else f"bootstrap intervals (95 % from {ENOUGH} prompts on)"
    )
    return f"means and {sure}, {unit}"
