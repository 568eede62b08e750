"""Charts of many coordinates: time of the scalar curvature over that of the jets it is made of, and peak memory."""

from __future__ import annotations

from typing import Any

import torch

from fisherflat.geometry import Geometry, StatisticalManifold
from fisherflat.jets import Jet, size
from fisherflat.lab.bench._measure import Spread, by_clock
from fisherflat.lab.bench.maps import subject
from fisherflat.lab.bench.memory import peak

#: numbers of coordinates; in a quick run
DIMS, QUICK = (8, 16, 32, 64, 128), (4,)
MAP = "attention-64"
#: coefficients of all points together
COEFFICIENTS = 4000


def over_jets(k: int, repeats: int, **where: Any) -> dict[str, Any]:
    """Process seconds of both, of the same points, and what both take at their peak over `k^2 D` numbers."""
    made = subject(MAP, k, **where)
    manifold = StatisticalManifold(made.module, made.chart, dtype=made.dtype)
    u = made.points(max(1, COEFFICIENTS // size(k)))
    jet = manifold.jet(u).coefficients

    def geometry() -> torch.Tensor:
        return Geometry(Jet(jet, k)).scalar_curvature

    taken = by_clock({"jets": lambda: manifold.jet(u), "geometry": geometry}, repeats, made.device)["process"]
    hessians = u.shape[0] * k * k * manifold.ambient_dim * jet.element_size()
    return {
        "k": k,
        "points": u.shape[0],
        **{name: Spread.of(seconds) for name, seconds in taken.items()},
        "geometry_over_jets": Spread.ratio(taken["geometry"], taken["jets"]),
        "peak_over_hessians": peak(geometry, made.device) / hessians,
    }


def table(rows: list[dict[str, Any]]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Title, header and rows for reading."""
    return (
        f"The scalar curvature of {MAP} over its jets, process time, and its peak memory over that of the Hessians",
        ("k", "P", "jets, s", "geometry, s", "over the jets", "peak"),
        [
            (
                *(str(row[key]) for key in ("k", "points", "jets", "geometry", "geometry_over_jets")),
                f"{row['peak_over_hessians']:.2f}",
            )
            for row in rows
        ],
    )
