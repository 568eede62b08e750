"""Running the protocol: a file for each block of seeds as it is done, several processes, and one table in the end."""

from __future__ import annotations

import math
import multiprocessing
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fisherflat._files import made, whole
from fisherflat._progress import Step
from fisherflat._versions import versions as installed
from fisherflat.lab.claims._measures import described, measure
from fisherflat.lab.claims._models import parameters
from fisherflat.lab.claims._protocol import Protocol, Unit
from fisherflat.lab.claims._symmetries import MLPs, mlps, rows_of_mlps
from fisherflat.lab.claims._training import train

if TYPE_CHECKING:
    import pandas as pd

#: the tables, the folder with their parts, and the group of the second one
TABLES, PARTS, SYMMETRIES = ("models", "symmetries"), "parts", "symmetries"
#: seconds between two looks at what is done
_PAUSE = 0.2
#: process seconds on a core of 2.9 GHz: of a step of a layer, by tokens and models, and of a model's measures
_STEP, _MEASURE = {"point": 0.0004, "sequence": 0.0006}, {"point": 0.25, "sequence": 0.3}
#: of a push of a model, and of a step of an MLP
_PUSH, _MLP = 0.006, {"adam": 0.0001, "gradient flow": 0.0003}


@dataclass(frozen=True)
class Run:
    """What is run and where to: `out`, a folder; `steps`, if not those of the protocol; `pilot`, whether it counts."""

    out: Path
    protocol: Protocol
    units: tuple[Unit | MLPs, ...]
    pilot: bool = False
    steps: int | None = None

    def part(self, unit: Unit | MLPs) -> Path:
        """The file of a unit's rows."""
        return self.out / PARTS / f"{unit.name}.parquet"

    @property
    def about(self) -> dict[str, str]:
        """What the rows depend on, kept in each file."""
        return {
            "protocol_sha256": self.protocol.sha256,
            "pilot": str(self.pilot),
            "steps": str(self.steps),
            **versions(),
        }

    def done(self, unit: Unit | MLPs) -> bool:
        """Whether a unit's rows are there, from the same protocol and versions."""
        path = self.part(unit)
        if not path.is_file():
            return False
        import pyarrow.parquet as pq

        try:
            return about(pq.read_schema(path)) == self.about
        except (OSError, ValueError):  # a file that is not one of ours
            return False


def versions() -> dict[str, str]:
    """What the numbers may depend on."""
    return installed("torch")


def about(schema: Any) -> dict[str, str]:
    """What a table was made with, from the metadata of its file."""
    import json

    return dict(json.loads((schema.metadata or {}).get(b"fisherflat", b"{}")))


def rows(protocol: Protocol, unit: Unit | MLPs, steps: int | None = None, pilot: bool = False) -> list[dict[str, Any]]:
    """Train and measure the models of a unit: a row each."""
    if isinstance(unit, MLPs):
        return rows_of_mlps(protocol, unit, steps, pilot)
    cell, found = unit.cell, []
    task, arm, family = protocol["tasks"][cell.task], protocol["arms"][cell.arm], protocol.family(cell.task)
    for one in train(protocol, unit, steps):
        found.append(
            {
                **asdict(cell),
                "family": task["family"],
                "boundary": task["boundary"],
                "width": arm.get("width", family["width"]),
                "seed": one.seed,
                "pilot": pilot,
                "parameters": parameters(one.model, arm),
                "steps": family["steps"] if steps is None else steps,
                "train_accuracy": one.train_accuracy,
                "test_accuracy": one.test_accuracy,
                "loss": one.loss,
                **described(measure(protocol, cell.task, one.model.representation, one.test.inputs)),
                "protocol_hash": protocol.sha256,
            }
        )
    return found


def save(table: list[dict[str, Any]] | pd.DataFrame, about: dict[str, str], path: Path) -> None:
    """A table as Parquet, whole or not at all, with what it was made with in its metadata."""
    import json

    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = pa.Table.from_pandas(pd.DataFrame(table), preserve_index=False)
    metadata = {**(found.schema.metadata or {}), b"fisherflat": json.dumps(about, sort_keys=True).encode()}
    with whole(path) as part:
        pq.write_table(found.replace_schema_metadata(metadata), part, compression="zstd")


def load(path: str | Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """A table and what it was made with."""
    import pyarrow.parquet as pq

    found = pq.read_table(path)
    return found.to_pandas(), about(found.schema)


def seconds(protocol: Protocol, unit: Unit | MLPs, steps: int | None = None) -> float:
    """About how long a unit takes on one core."""
    if isinstance(unit, MLPs):
        recipe = protocol["mlps"][unit.optimizer.replace(" ", "_")]
        return _MLP[unit.optimizer] * len(unit.seeds) * (recipe["steps"] if steps is None else steps)
    cell = unit.cell
    family = protocol["tasks"][cell.task]["family"]
    count = protocol["families"][family]["steps"] if steps is None else steps
    pushed = _PUSH * count / protocol["push"]["every"] if "push" in protocol["arms"][cell.arm] else 0.0
    return len(unit.seeds) * (cell.depth * (_STEP[family] * count + _MEASURE[family]) + pushed)


def units(
    protocol: Protocol, groups: Sequence[str] = (), tasks: Sequence[str] = (), seeds: int | None = None,
    pilot: bool = False,
) -> list[Unit | MLPs]:  # fmt: skip
    """What is to be trained, the most important first: as `Protocol.units`, and the MLPs, a group `symmetries`."""
    known = [group["name"] for group in protocol["groups"]]
    asked = [name for name in groups if name != SYMMETRIES]
    found: list[Unit | MLPs] = []
    if asked or not groups:
        found += protocol.units(groups=asked, tasks=tasks, seeds=seeds, pilot=pilot)
    if (not groups and not tasks) or SYMMETRIES in groups:
        after = (at for at, unit in enumerate(found) if isinstance(unit, Unit) and unit.cell.group != known[0])
        at = next(after, len(found))
        found[at:at] = mlps(protocol, seeds, pilot)  # they take little time
    return found


def train_part(one: Run, unit: Unit | MLPs) -> None:
    """Train and measure a unit, and write its rows."""
    made(one.out / PARTS)
    save(rows(one.protocol, unit, one.steps, one.pilot), one.about, one.part(unit))


def run(one: Run, *, jobs: int = 1, limit: float = math.inf, step: Step = lambda what, done, total: None) -> bool:
    """Do what is left of a run, by `jobs` processes with a thread each, and join all rows into `models.parquet`.

    Units are begun in their order, none that would hardly end within `limit` seconds; what is not done by then is given
    up. The rows of a unit are on disk as soon as it is done. A unit that fails leaves its error beside its file, and
    the others go on.

    **Returns:** whether all is done.
    """
    end = time.time() + limit
    made(one.out / PARTS)
    left = [unit for unit in one.units if not one.done(unit)]
    context = multiprocessing.get_context("spawn")
    taken, speed = context.Value("i", 0), context.Value("d", 1.0)
    arguments = (one, left, taken, speed, end)
    if jobs == 1 and limit == math.inf:
        _work(*arguments, step)
    else:
        workers = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(min(jobs, len(left)))]
        try:
            for worker in workers:
                worker.start()
            while any(worker.is_alive() for worker in workers) and time.time() < end:
                step("training and measuring", *_progress(one, left))
                time.sleep(_PAUSE)
        finally:
            for worker in workers:
                worker.terminate()
                worker.join()
    step("training and measuring", *_progress(one, left))
    collect(one)
    return all(one.done(unit) for unit in one.units)


def _progress(one: Run, left: list[Unit | MLPs]) -> tuple[int, int]:
    """Seconds of work that are done, and in all."""
    cost = {unit: seconds(one.protocol, unit, one.steps) for unit in left}
    return round(sum(cost[unit] for unit in left if one.part(unit).is_file())), round(sum(cost.values()))


def _work(
    one: Run, left: list[Unit | MLPs], taken: Any, speed: Any, end: float, step: Step = lambda what, done, total: None
) -> None:
    """Take units in order until there are none, or no time for them."""
    torch.set_num_threads(1)
    while True:
        with taken.get_lock():
            index, taken.value = taken.value, taken.value + 1
        if index >= len(left):
            return
        unit = left[index]
        guess = seconds(one.protocol, unit, one.steps)
        if time.time() + guess * speed.value > end:
            continue  # a shorter one may fit
        begun, error = time.time(), one.part(unit).with_suffix(".error")
        try:
            train_part(one, unit)
            error.unlink(missing_ok=True)
        except Exception:  # whatever it is, the other units are not to be lost
            error.write_text(traceback.format_exc(), encoding="utf-8")
        with speed.get_lock():  # of this machine, as seen so far
            speed.value += 0.2 * ((time.time() - begun) / guess - speed.value)
        step(unit.name, *_progress(one, left))


def collect(one: Run) -> list[Path]:
    """Join the rows of what is done, in the protocol's order, into `models.parquet` and `symmetries.parquet`."""
    import pandas as pd

    found = []
    for name in TABLES:
        parts = [load(one.part(unit))[0] for unit in one.units if unit.table == name and one.done(unit)]
        if parts:
            found.append(one.out / f"{name}.parquet")
            save(pd.concat(parts, ignore_index=True), one.about, found[-1])
    return found


def plan(protocol: Protocol, units: Sequence[Unit | MLPs], steps: int | None = None) -> list[tuple[str, int, float]]:
    """Each group with its models and about how many core seconds they take."""
    found: dict[str, tuple[int, float]] = {}
    for unit in units:
        name = unit.cell.group if isinstance(unit, Unit) else SYMMETRIES
        models, cost = found.get(name, (0, 0.0))
        found[name] = (models + len(unit.seeds), cost + seconds(protocol, unit, steps))
    return [(name, *numbers) for name, numbers in found.items()]
