"""`python -m fisherflat.lab.bench`: what `fisherflat bench` does, with torch and numpy alone."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from fisherflat.errors import FisherflatError
from fisherflat.lab.bench import bench
from fisherflat.lab.bench._plan import DTYPES, ON_REQUEST, SECTIONS, Plan
from fisherflat.lab.bench.maps import MOVING, NAMES


def main() -> None:
    """Read the options and run. An error of ours is one message and exit code 1; wrong usage is 2, an interrupt 130."""
    parser = argparse.ArgumentParser(prog="python -m fisherflat.lab.bench", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, metavar="FILE", help="write the results there, as JSON")
    add("--device", default="cpu", help="cpu, or cuda (float64 and float32)")
    add("--quick", action="store_true", help="a small run, half a minute")
    add("--only", action="append", metavar="SECTION", help=f"{', '.join(SECTIONS + ON_REQUEST)}; several: with commas")
    add("--map", action="append", dest="maps", metavar="NAME", help=f"{', '.join(NAMES)}, block-64x4, minilm-0 ...")
    add("--k", action="append", type=int, dest="dims", metavar="K", help="dimension of the chart")
    add("--dtype", action="append", dest="dtypes", choices=DTYPES)
    add("--moving", choices=MOVING, default="all", help="which tokens move")
    add("--points", type=int, help="points of the floor and memory sections (default: as many as fill the machine)")
    add("--repeats", type=int, default=5)
    add("--threads", type=int, help="of torch on the CPU (default: as torch has them)")
    given = vars(parser.parse_args())
    names = {field.name for field in fields(Plan)}
    chosen = {name: value for name, value in given.items() if name in names and value is not None}
    for name in ("only", "maps"):
        chosen |= {name: [word for item in chosen[name] for word in item.split(",")]} if name in chosen else {}
    chosen |= {name: tuple(value) for name, value in chosen.items() if isinstance(value, list)}
    try:
        bench(Plan(**chosen), given["out"])
    except FisherflatError as error:
        print(f"fisherflat: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
