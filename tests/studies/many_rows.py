"""What millions of rows take: `python tests/studies/many_rows.py --rows 10000000`.

A journal is written task by task, as an analysis of 32 layers writes it, with made-up numbers; opened again, as a
resumed one does; made into the parts of a table, whose estimates are computed; saved with its page, and opened. Then it
is gone through for means by layer and verdict, some columns of all rows are written as CSV, and one prompt becomes
arrays. Each step says when it ended, how long it took the process, and how much memory the process has held at most
until then, and Arrow of it. With `--layers 1` a thirtieth of the rows need as much memory.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow

from fisherflat.report import LargeAnalysis, load
from fisherflat.studies import Journal
from fisherflat.studies.layers import QUANTITIES, Settings, Task
from fisherflat.studies.layers._run import Rows

PARTS, READINGS, POSITIONS, POINTS = ("attention", "mlp", "block"), ("live", "frozen pattern"), 5, 16


def rows_of(task: Task, rng: random.Random) -> list[dict[str, Any]]:
    """The rows of a task: readings, positions, points."""
    about = {"layer": task.layer, "part": task.part, "prompt": task.prompt, "text": f"prompt number {task.prompt}"}
    about |= {"control": None, "moves": "principal", "covariance": "words", "output": "all", "variance": 1.0}
    about |= {"roles": "pattern", "token": "word", "raw_token": "word", "token_class": "content", "error": None}
    about |= {"rerouted": False, "negligible_image": False, "verdict": "curved"}
    numbers = (*QUANTITIES, "scalar_curvature_error")
    return [
        {**about, **{name: rng.gauss(1, 1) for name in numbers}, "scalar_curvature": rng.gauss(task.layer, 1),
         "reading": reading, "position": position, "point": point, "u": [rng.random(), rng.random()]}
        for reading in READINGS for position in range(POSITIONS) for point in range(POINTS)
    ]  # fmt: skip


def measured(count: int, layers: int, folder: Path) -> None:
    """Write, open, make a table, estimate."""
    of_task = len(READINGS) * POSITIONS * POINTS
    prompts = max(1, count // (layers * len(PARTS) * of_task))
    tasks = [Task(layer, part, prompt) for layer in range(layers) for part in PARTS for prompt in range(prompts)]
    rng, identity = random.Random(0), {"rows": count}
    started, took = time.perf_counter(), [time.process_time()]

    def said(what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        arrow = (pyarrow.default_memory_pool().max_memory() or 0) / 2**30
        took.append(time.process_time())
        print(
            f"{what}: {time.perf_counter() - started:.0f} s, of which the process worked {took[-1] - took[-2]:.0f} in "
            f"this step; at most {peak:.2f} GiB, Arrow {arrow:.2f}",
            flush=True,
        )

    said(f"{len(tasks) * of_task:,} rows in {len(tasks):,} tasks")
    journal = Journal(folder, identity)
    for task in tasks:
        journal.write(task.key, rows_of(task, rng))
    journal.close(True)
    said(f"journal of {journal.path.stat().st_size / 2**30:.2f} GiB written")
    journal = Journal(folder, identity, resume=True)
    journal.close(True)
    said("opened")
    settings = Settings.of().plain() | {"prompts": [[prompt] for prompt in range(prompts)]}
    large = LargeAnalysis.written(Rows(tasks, journal.done), folder, model="m", settings=settings, complete=True)
    size = sum(path.stat().st_size for path in (folder / "table").iterdir())
    said(f"table of {size / 2**30:.2f} GiB in {len(list((folder / 'table').iterdir()))} parts")
    print(len(large.estimates), "estimates")
    said("estimated")
    large.save(folder)
    said("saved, with its page")
    found = load(folder)
    assert isinstance(found, LargeAnalysis)
    said(f"opened as {found!r}")
    sums, counts = Counter[tuple[int, str]](), Counter[tuple[int, str]]()
    for piece in found.scan(["layer", "verdict", "scalar_curvature"]):
        groups = piece.groupby(["layer", "verdict"])["scalar_curvature"]
        sums.update(groups.sum().to_dict())
        counts.update(groups.count().to_dict())
    assert counts.total() == found.count and all(abs(sums[key] / counts[key] - key[0]) < 1 for key in counts)
    said(f"means of {len(counts)} groups")
    with (folder / "some.csv").open("w") as file:
        for number, piece in enumerate(found.scan(["layer", "part", "reading", "prompt", "scalar_curvature"])):
            piece.to_csv(file, index=False, header=number == 0)
    said(f"CSV of {(folder / 'some.csv').stat().st_size / 2**30:.2f} GiB written")
    said(f"arrays of one prompt: {dict(found.where(prompt=0).to_xarray().sizes)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10**7)
    parser.add_argument("--layers", type=int, default=32, help="what is in memory is one part of one of them")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measured(chosen.rows, chosen.layers, Path(temporary))
