"""`python -m fisherflat.bench`: the benchmark with torch and numpy alone."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from fisherflat.bench.floor import filling, over_floor
from fisherflat.bench.maps import MOVING, NAMES, subject


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fisherflat.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=["floor"])
    parser.add_argument("--map", action="append", dest="maps", metavar="NAME", help=f"one of {', '.join(NAMES)}, block-64x4, ...")
    parser.add_argument("--k", action="append", type=int, dest="dims")
    parser.add_argument("--moving", choices=MOVING, default="all")
    parser.add_argument("--points", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float64", "float32"], default="float64")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.maps or NAMES:
        for k in given.dims or [2, 4, 8]:
            what = subject(name, k, dtype=getattr(torch, given.dtype), device=given.device, moving=given.moving)
            row: dict[str, Any] = over_floor(what, given.points or filling(what), given.repeats)
            print(name, f"k={k}", "P =", row["points"], "batch of floor", row["floor_batch"], f"{row['gflops_of_floor']:.0f} GFLOP/s")
            print("   seconds", {key: str(value) for key, value in row["seconds"].items()})
            print("   jet over floor             ", row["jet_over_floor"])
            print("   scalar curvature over floor", row["scalar_curvature_over_floor"])


main()
