"""An analysis in words and as a small table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fisherflat.parts import readings
from fisherflat.statistics import ENOUGH, Estimate, estimate
from fisherflat.studies.layers import FLAT

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

#: part -> how a sentence begins with it
NAMES = {"attention": "Attention", "mlp": "The MLP", "block": "The whole block"}
#: role -> how a sentence speaks of it
_HELD = {
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
    said = [f"{_spoken(*kind)}: {_describe(rows, depth)}." for kind, rows in _kinds(measured)]
    said += [*_about_heads(measured), *_what_bends(measured[measured["part"] == "attention"]), *_about_gaps(gaps)]
    failed = table[table["verdict"].isna()]
    if len(failed):
        first = failed.iloc[0]
        what = ", ".join(str(first[name]) for name in ("part", "reading") if isinstance(first[name], str))
        said.append(
            f"{len(failed)} of {len(table)} rows have no result; the first is layer {first['layer']}, {what}: "
            f"{first['error']}"
        )
    return said


def _whole_parts(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["part"].isin(NAMES)]


def _kinds(table: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    """The rows of each part and reading: parts as they come, readings from the simplest on."""
    parts = list(dict.fromkeys(table["part"]))
    groups = _whole_parts(table).groupby(["part", "reading"], sort=False)
    return sorted(groups, key=lambda kind: (parts.index(kind[0][0]), readings.order(kind[0][1])))


def _spoken(part: str, reading: str) -> str:
    held = [_HELD[role] for role in readings.roles(reading)]
    name = NAMES.get(part, part)
    whose = "their" if name == "Heads" else "its"
    return f"{name} with {whose} {' and '.join(held)} frozen" if held else f"{name}, live"


def _describe(rows: pd.DataFrame, of: int) -> str:
    """What the rows of a part and reading say; `of`, how many layers there are."""
    depth = rows["layer"].nunique()
    curved = rows[rows["verdict"] != FLAT]
    if curved.empty:
        return f"flat to rounding in {_count(of) if depth == of else _named(rows['layer'])}"
    signs = set(curved["verdict"])
    sign = f"{signs.pop()} curvature" if len(signs) == 1 else "curvature of both signs"
    where = _named(curved["layer"]) if curved["layer"].nunique() < depth or depth < of else _count(of)
    return f"{sign} in {where}, on average {_estimate(rows)}"


def _estimate(rows: pd.DataFrame) -> str:
    places = rows["position"].astype(object).where(rows["position"].notna(), None)  # none where all words move at once
    return str(estimate(rows["scalar_curvature"], list(rows["prompt"]), places))


def _about_heads(measured: pd.DataFrame) -> list[str]:
    """Which heads are curved most, in each reading."""
    heads = measured[measured["part"].str.startswith("head ")]
    said = []
    for reading, rows in heads.groupby("reading", sort=False):
        curved = rows[rows["verdict"] != FLAT]
        if curved.empty:
            said.append(f"{_spoken('Heads', reading)}: all are flat to rounding.")
            continue
        size = curved["scalar_curvature"].abs().groupby([curved["layer"], curved["part"]], sort=False).median()
        layer, head = size.idxmax()
        of = rows.groupby(["layer", "part"]).ngroups
        said.append(
            f"{_spoken('Heads', reading)}: {len(size)} of {of} are curved; the most curved is {head} of layer {layer}, "
            f"with a median |scal| of {size.max():.3g}; the median over the curved heads is {size.median():.3g}."
        )
    return said


def _what_bends(attention: pd.DataFrame) -> list[str]:
    """What follows for attention from the readings that hold its pattern."""
    curved = {
        reading: set(rows.loc[rows["verdict"] != FLAT, "layer"]) for reading, rows in attention.groupby("reading")
    }
    if "frozen pattern" not in curved or "live" not in curved:
        return []
    bent = curved["frozen pattern"]
    if not bent:
        alone = "So, where it was measured, the softmax pattern alone bends this attention."
        return [alone] if curved["live"] else []
    flat_without = bent - curved.get("frozen pattern+gate", bent)
    said = []
    if flat_without:
        said.append(f"With the pattern held, the gate alone bends the attention in {_named(flat_without)}.")
    if bent - flat_without:
        said.append(
            f"With the pattern{' and the gate' if 'frozen pattern+gate' in curved else ''} held, something else bends "
            f"the attention in {_named(bent - flat_without)}: a gate or a norm."
        )
    return said


def _about_gaps(gaps: pd.DataFrame) -> list[str]:
    """Where gates add curvature, as far as the intervals tell."""
    said = []
    for (part, gate, live), rows in _whole_parts(gaps).groupby(["part", "gate", "live"], sort=False):
        nothing, enough = (rows["low"] == 0) & (rows["high"] == 0), rows["clusters"] >= ENOUGH
        what = {
            "it adds scalar curvature in": enough & (rows["low"] > 0),
            "it takes some away in": enough & (rows["high"] < 0),
            "it changes nothing in": nothing,
            "its sign is uncertain in": enough & ~nothing & (rows["low"] <= 0) & (rows["high"] >= 0),
            "there are too few prompts or positions to tell in": ~enough & ~nothing,
        }
        found = [f"{words} {_named(rows.loc[chosen, 'layer'])}" for words, chosen in what.items() if chosen.any()]
        first = rows.loc[rows["mean"].abs().idxmax()]
        largest = Estimate(**{name: _plain(first[name]) for name in Estimate.__dataclass_fields__})
        held = "" if live == readings.LIVE else ", with the pattern frozen"
        said.append(
            f"Expressivity gap of the {gate} in the {part}{held}: {', '.join(found)}; the largest is in layer "
            f"{first['layer']}, {largest}."
        )
    return said


def _plain(value: Any) -> Any:
    """A cell as a number or word of Python's own."""
    return value.item() if hasattr(value, "item") else value


def _count(depth: int) -> str:
    return "the one layer" if depth == 1 else f"all {depth} layers"


def _named(layers: object) -> str:
    numbers = sorted(set(layers))  # type: ignore[call-overload]
    return f"layer{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"


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
        shown[-1].caption = "means and 95 % bootstrap intervals, per mean variance of the part's own outputs"
    return shown


def _cell(table: pd.DataFrame, estimates: pd.DataFrame, key: tuple[int, str, str]) -> str:
    names = ["layer", "part", "reading"]
    rows = table[(table[names] == list(key)).all(axis=1)]
    measured = rows[rows["verdict"].notna()]
    if measured.empty:
        return "error" if len(rows) else "-"
    if (measured["verdict"] == FLAT).all():
        return "flat"
    found = estimates[(estimates[names] == list(key)).all(axis=1)].iloc[0]
    interval = "" if found["low"] != found["low"] else f"\n{found['low']:.1g} to {found['high']:.1g}"
    return f"{found['mean']:+.2g}{interval}"
