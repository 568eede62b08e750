"""Geodesics of many pairs at a time, next to geomstats' own solver of the same equations on the same metric."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fisherflat.geometry import StatisticalManifold
from fisherflat.lab.bench._measure import Spread, by_clock
from fisherflat.lab.bench.maps import subject

#: map and pairs; of a quick run
FULL, QUICK = ("attention-64", 64), ("attention-8", 2)
#: tolerances that its solver may have, the loosest first
TOLERANCES = (1e-6, 1e-7, 1e-8, 1e-9)
#: how many times as far off as we it may be: what is left is in its favour
SAME = 10.0
#: how far apart the two may be, relative to a pair's distance in coordinates
AGREES = 1e-6


def over_ours(name: str, pairs: int, repeats: int, k: int = 2) -> dict[str, Any]:
    """Process seconds of both for the velocities of geodesics between random pairs of points.

    geomstats solves the boundary-value problem of one pair after the other (`LogODESolver`, by scipy's `solve_bvp`) on
    `M.to_geomstats()`, to the loosest tolerance at which it is about as good as we. How far a velocity is off is seen
    where its geodesic, integrated to 1e-11, ends.
    """
    from geomstats.numerics.bvp import ScipySolveBVP
    from geomstats.numerics.geodesic import LogODESolver

    made = subject(name, k)
    manifold = StatisticalManifold(made.module, made.chart)
    start, end = made.points(2 * pairs).split(pairs)
    far, space = (end - start).norm(dim=-1), manifold.to_geomstats()

    def error(velocity: Tensor) -> float:
        return float(((manifold.exp(start, velocity) - end).norm(dim=-1) / far).max())

    def ours() -> Tensor:
        manifold.__dict__.pop("_joined", None)  # which keeps the last paths for whoever asks once more
        return manifold.log(start, end)

    def theirs(tolerance: float) -> Tensor:
        solver = LogODESolver(space, integrator=ScipySolveBVP(tol=tolerance, max_nodes=10**5), use_jac=False)
        return torch.as_tensor(solver.log(end.numpy(), start.numpy()))

    right = ours()
    row: dict[str, Any] = {"map": name, "k": k, "pairs": pairs, "our_error": error(right)}
    for tolerance in TOLERANCES:
        found = theirs(tolerance)
        row |= {"tolerance": tolerance, "their_error": error(found)}
        if row["their_error"] <= SAME * row["our_error"]:
            break
    row["difference"] = float(((found - right).norm(dim=-1) / far).max())
    row["agrees"] = row["difference"] <= AGREES
    if row["agrees"]:
        taken = by_clock({"ours": ours, "geomstats": lambda: theirs(tolerance)}, repeats, made.device)["process"]
        row["seconds"] = {name: Spread.of(samples) for name, samples in taken.items()}
        row["geomstats_over_ours"] = Spread.ratio(taken["geomstats"], taken["ours"])
    return row


def table(rows: list[dict[str, Any]]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Title, header and rows for reading."""
    return (
        "Geodesics between pairs of points, process time, next to geomstats' solver on the same metric",
        ("map", "k", "pairs", "our error", "its error", "its tolerance", "ours, s", "geomstats, s", "over ours"),
        [
            (
                *(str(row[key]) for key in ("map", "k", "pairs")),
                *(f"{row[key]:.0e}" for key in ("our_error", "their_error", "tolerance")),
                *(str(row["seconds"][who]) if "seconds" in row else "" for who in ("ours", "geomstats")),
                str(row.get("geomstats_over_ours", f"they differ by {row['difference']:.0e}")),
            )
            for row in rows
        ],
    )
