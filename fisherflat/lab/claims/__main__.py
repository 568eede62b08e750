"""Train and measure what the protocol asks for: `python -m fisherflat.lab.claims --out DIR`.

Needs torch, numpy, pandas and pyarrow alone. What is done is kept: the same command goes on with what is left.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

from fisherflat.lab.claims._protocol import Protocol
from fisherflat.lab.claims._run import PARTS, Run, plan, run, units


def main() -> int:
    """Parse the arguments and run, or print what would be run."""
    parser = argparse.ArgumentParser(prog="python -m fisherflat.lab.claims", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for models.parquet and its parts")
    parser.add_argument("--jobs", type=int, default=1, help="processes, with one thread each (default: 1)")
    parser.add_argument("--limit-seconds", type=float, default=math.inf, metavar="S", help="stop after so long")
    parser.add_argument("--seeds", type=int, help="at most so many seeds of each cell (default: those of the protocol)")
    parser.add_argument("--steps", type=int, help="steps of training (default: those of the protocol)")
    parser.add_argument("--group", action="append", default=[], help="only this group; may be given several times")
    parser.add_argument("--task", action="append", default=[], help="only this task; may be given several times")
    parser.add_argument("--pilot", action="store_true", help="with the seeds of pilots, which count for nothing")
    parser.add_argument("--protocol", type=Path, metavar="FILE", help="another protocol than the one that counts")
    parser.add_argument("--plan", action="store_true", help="print what would be run and about how long it takes")
    given = parser.parse_args()
    protocol = Protocol.load() if given.protocol is None else Protocol.load(given.protocol)
    asked = units(protocol, given.group, given.task, given.seeds, given.pilot)
    if given.plan or given.out is None:
        found = plan(protocol, asked, given.steps)
        for name, models, cost in [*found, ("all", sum(row[1] for row in found), sum(row[2] for row in found))]:
            print(f"{name:20} {models:6} models {cost / 60:8.1f} core minutes")
        return 0
    started, last = time.monotonic(), 0.0

    def step(what: str, done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 5 and total:
            last = now
            left = f", {(now - started) * (total - done) / done:.0f} s left" if done else ""
            print(f"{done / total:.0%} after {now - started:.0f} s{left}", file=sys.stderr, flush=True)

    one = Run(given.out, protocol, tuple(asked), given.pilot, given.steps)
    complete = run(one, jobs=given.jobs, limit=given.limit_seconds, step=step)
    kept, failed = (len(list((given.out / PARTS).glob(f"*{end}"))) for end in (".parquet", ".error"))
    print(f"{kept} of {len(asked)} blocks are done, {failed} failed; protocol {protocol.sha256[:12]}")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
