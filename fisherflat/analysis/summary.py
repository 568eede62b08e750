"""An analysis in words and as a small table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from fisherflat.analysis.tasks import Row

if TYPE_CHECKING:
    from rich.table import Table

FLAT = "flat to rounding"
#: part and reading -> how a sentence names them
NAMES = {
    ("attention", "frozen pattern"): "Attention with its pattern frozen",
    ("attention", "live"): "Attention, live",
    ("mlp", "live"): "The MLP",
    ("block", "live"): "The whole block",
}


def sentences(rows: Sequence[Row]) -> list[str]:
    """What the rows say about each part and reading, and what follows."""
    measured = [row for row in rows if row["verdict"] is not None]
    kinds = {kind: [r for r in measured if (r["part"], r["reading"]) == kind] for kind in NAMES}
    said = [f"{NAMES[kind]}: {_describe(found)}." for kind, found in kinds.items() if found]
    frozen, live = kinds["attention", "frozen pattern"], kinds["attention", "live"]
    if frozen and live:
        bent = [row for row in frozen if row["verdict"] != FLAT]
        if bent:
            said.append(
                f"With the pattern held, something else bends the attention in {_layers(bent)}: a gate or a norm."
            )
        elif any(row["verdict"] != FLAT for row in live):
            said.append("So, where it was measured, the softmax pattern alone bends this attention.")
    failed = [row for row in rows if row["verdict"] is None]
    if failed:
        first = failed[0]
        where = f"the first is layer {first['layer']}, {first['part']}, {first['reading']}"
        said.append(f"{len(failed)} of {len(rows)} rows have no result; {where}: {first['error']}")
    return said


def _describe(rows: Sequence[Row]) -> str:
    depth = len({row["layer"] for row in rows})
    curved = [row for row in rows if row["verdict"] != FLAT]
    if not curved:
        return f"flat to rounding in {_count(depth)}"
    values = [row["scalar_curvature"] for row in rows]
    signs = {row["verdict"] for row in curved}
    sign = f"{signs.pop()} curvature" if len(signs) == 1 else "curvature of both signs"
    where = _layers(curved) if len({row["layer"] for row in curved}) < depth else f"{_count(depth)}"
    return f"{sign} in {where}, median {median(values):.3g}, from {min(values):.3g} to {max(values):.3g}"


def _count(depth: int) -> str:
    return "the one layer" if depth == 1 else f"all {depth} layers"


def _layers(rows: Sequence[Row]) -> str:
    layers = sorted({row["layer"] for row in rows})
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"


def table_by_layer(rows: Sequence[Row]) -> Table:
    """The median scalar curvature over prompts, positions and points: a row a layer, a column a part and reading."""
    from rich.table import Table

    kinds = list(dict.fromkeys((row["part"], row["reading"]) for row in rows))
    table = Table(title="scalar curvature by layer", caption="medians, per mean variance of the part's own outputs")
    table.add_column("layer", justify="right")
    for part, reading in kinds:
        table.add_column(f"{part}\n{reading}", justify="right")
    for layer in sorted({row["layer"] for row in rows}):
        cells = [[r for r in rows if (r["layer"], r["part"], r["reading"]) == (layer, *kind)] for kind in kinds]
        table.add_row(str(layer), *map(_cell, cells))
    return table


def _cell(rows: Sequence[Row]) -> str:
    measured = [row for row in rows if row["verdict"] is not None]
    if not measured:
        return "error" if rows else "-"
    if all(row["verdict"] == FLAT for row in measured):
        return "flat"
    value = median(row["scalar_curvature"] for row in measured)
    return f"{value:+.3g}" if math.isfinite(value) else "error"
