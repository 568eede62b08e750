"""What a sum of second derivatives saves: mean curvature and metric of many directions, next to whole 2-jets."""

from __future__ import annotations

from typing import Any

import torch

from fisherflat.geometry import StatisticalManifold
from fisherflat.lab.bench._measure import Spread, by_clock
from fisherflat.lab.bench.maps import subject

#: maps, and numbers of directions; points at a time
MAPS, DIMS, POINTS = ("attention-64", "block-64"), (16, 32, 64), 1
QUICK = (("attention-64",), (16,))
#: what is compared, and how far the numbers may differ, relative to the largest
QUANTITIES, AGREES = ("mean_curvature", "metric"), 1e-11


def over_whole(name: str, k: int, repeats: int, device: str = "cpu") -> dict[str, Any]:
    """Process seconds of each quantity alone, and of the mean curvature from whole 2-jets, in turns."""
    made = subject(name, k, device=device)
    manifold, u = StatisticalManifold(made.module, made.chart), made.points(POINTS)
    row: dict[str, Any] = {"map": name, "k": k, "points": POINTS}
    with torch.no_grad():
        whole = manifold.at(u)
        for quantity in QUANTITIES:
            truth = getattr(whole, quantity)
            row[quantity] = {
                "difference": float((getattr(manifold, quantity)(u) - truth).abs().max() / truth.abs().max())
            }
        row["agrees"] = all(row[quantity]["difference"] <= AGREES for quantity in QUANTITIES)
        if not row["agrees"]:
            return row
        calls = {quantity: lambda quantity=quantity: getattr(manifold, quantity)(u) for quantity in QUANTITIES}
        taken = by_clock(calls | {"whole": lambda: manifold.at(u).mean_curvature}, repeats, made.device)["process"]
    for quantity in QUANTITIES:
        row[quantity]["seconds"] = Spread.of(taken[quantity])
        row[quantity]["whole_over_it"] = Spread.ratio(taken["whole"], taken[quantity])
    return row | {"whole": Spread.of(taken["whole"])}


def table(rows: list[dict[str, Any]]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Title, header and rows for reading."""

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        found = [row[quantity] for quantity in QUANTITIES]
        if not row["agrees"]:
            return f"they differ by {max(one['difference'] for one in found):.0e}", *[""] * 4
        return str(row["whole"]), *(str(cell) for one in found for cell in (one["seconds"], one["whole_over_it"]))

    named = [name.replace("_", " ") for name in QUANTITIES]
    return (
        f"Quantities that need no whole 2-jets next to the mean curvature from such, {POINTS} point, process time",
        ("map", "k", "from whole 2-jets, s", *(cell for name in named for cell in (f"{name}, s", "whole over it"))),
        [(row["map"], str(row["k"]), *cells(row)) for row in rows],
    )
