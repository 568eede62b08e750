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
#: so many of the pairs are solved by the other solver, which takes one after the other, and its time is scaled up
FEW = 4
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
    where its geodesic, integrated to 1e-11, ends. It solves the first `FEW` pairs, and its time for
    all is that time as many times as they are more; errors are the largest of the pairs that are solved.
    """
    from geomstats.numerics.bvp import ScipySolveBVP
    from geomstats.numerics.geodesic import LogODESolver

    made = subject(name, k)
    manifold = StatisticalManifold(made.module, made.chart)
    start, end = made.points(2 * pairs).split(pairs)
    few = min(FEW, pairs)
    first, last, space = start[:few], end[:few], manifold.to_geomstats()
    far = (end - start).norm(dim=-1)

    def error(velocity: Tensor) -> float:
        n = len(velocity)
        return float(((manifold.exp(start[:n], velocity) - end[:n]).norm(dim=-1) / far[:n]).max())

    def ours() -> Tensor:
        manifold.__dict__.pop("_joined", None)  # which keeps the last paths for whoever asks once more
        return manifold.log(start, end)

    def theirs(tolerance: float) -> Tensor:
        solver = LogODESolver(space, integrator=ScipySolveBVP(tol=tolerance, max_nodes=10**5), use_jac=False)
        return torch.as_tensor(solver.log(last.numpy(), first.numpy()))

    right = ours()
    row: dict[str, Any] = {"map": name, "k": k, "pairs": pairs, "few": few, "our_error": error(right)}
    for tolerance in TOLERANCES:
        found = theirs(tolerance)
        row |= {"tolerance": tolerance, "their_error": error(found)}
        if row["their_error"] <= SAME * row["our_error"]:
            break
    row["difference"] = float(((found - right[:few]).norm(dim=-1) / far[:few]).max())
    row["agrees"] = row["difference"] <= AGREES
    if row["agrees"]:
        taken = by_clock({"ours": ours, "geomstats": lambda: theirs(tolerance)}, repeats, made.device)["process"]
        row["seconds"] = {name: Spread.of(samples) for name, samples in taken.items()}
        row["geomstats_over_ours"] = Spread.ratio(taken["geomstats"], taken["ours"], pairs / few)
    return row


def table(rows: list[dict[str, Any]]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Title, header and rows for reading."""
    return (
        "Geodesics between pairs of points, process time, next to geomstats' solver on the same metric",
        (
            "map",
            "k",
            "pairs",
            "our error",
            "its error",
            "its tolerance",
            "ours, s",
            "geomstats, s (pairs)",
            "over ours, for all",
        ),
        [
            (
                *(str(row[key]) for key in ("map", "k", "pairs")),
                *(f"{row[key]:.0e}" for key in ("our_error", "their_error", "tolerance")),
                *((str(row["seconds"]["ours"]), _of_few(row)) if "seconds" in row else ("", "")),
                str(row.get("geomstats_over_ours", f"they differ by {row['difference']:.0e}")),
            )
            for row in rows
        ],
    )


def _of_few(row: dict[str, Any]) -> str:
    return f"{row['seconds']['geomstats']} ({row['few']})"
