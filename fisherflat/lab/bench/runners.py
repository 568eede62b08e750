"""Ray next to local processes on one machine, with tasks of a second.

`python -m fisherflat.lab.bench.runners` carries out the same tasks by either in turns, with a worker for each core. A
task multiplies matrices until its process has worked for a second, and says when it began and ended. The table has how
long all took from the first beginning to the last end, how much of that time the workers were at tasks, which other
processes on the machine hardly change, and how long it took until the first began.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass

import torch

from fisherflat.lab.bench._measure import Spread
from fisherflat.runners import Runner, processes, ray


@dataclass(frozen=True)
class Second:
    """One of several tasks that are alike."""

    number: int

    @property
    def key(self) -> str:
        """Its number."""
        return str(self.number)


@dataclass(frozen=True)
class Multiply:
    """What a task does: so many seconds of work of its process."""

    seconds: float

    def measure(self, task: Second) -> tuple[float, float]:
        """When it began and when it ended."""
        began, worked = time.time(), time.process_time()
        matrix = torch.full((128, 128), 1 / 128, dtype=torch.float64)
        while time.process_time() - worked < self.seconds:
            matrix = matrix @ matrix
        return began, time.time()


@dataclass(frozen=True)
class Took:
    """Seconds until the first task began and until the last ended after that, and the share at which there was work."""

    before: float
    span: float
    busy: float


def took(runner: Runner, workers: int, tasks: int, seconds: float) -> Took:
    """What a runner takes for so many tasks."""
    asked = time.time()
    times = [times for _, times in runner(Multiply(seconds), [Second(number) for number in range(tasks)])]
    began, ended = min(began for began, _ in times), max(ended for _, ended in times)
    return Took(began - asked, ended - began, sum(b - a for a, b in times) / (workers * (ended - began)))


def measured(tasks: int, seconds: float, repeats: int) -> dict[str, list[Took]]:
    """What either runner takes, in turns, with a worker for each core."""
    workers, by_ray = os.cpu_count() or 1, ray()
    runners: dict[str, Runner] = {"processes": processes(workers), "ray": by_ray}
    found: dict[str, list[Took]] = {name: [] for name in runners}
    for _ in range(repeats):
        for name, runner in runners.items():
            found[name].append(took(runner, workers, tasks, seconds))
            print(f"{name}: {found[name][-1]}", file=sys.stderr, flush=True)
    by_ray.close()
    return found


def table(found: dict[str, list[Took]]) -> str:
    """In Markdown."""
    lines = ["| runner | first task after, s | all tasks, s | workers at tasks | over processes |", "| --- " * 5 + "|"]
    local = [one.span for one in found["processes"]]
    for name, runs in found.items():
        columns = [Spread.of([getattr(one, field) for one in runs]) for field in ("before", "span", "busy")]
        over = Spread.ratio([one.span for one in runs], local)
        lines.append(f"| {name} | {columns[0]} | {columns[1]} | {columns[2]} | {over} |")
    return "\n".join(lines)


def main() -> int:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m fisherflat.lab.bench.runners", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=1.0, help="of work a task (default: 1)")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    print(table(measured(given.tasks, given.seconds, given.repeats)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
