"""What a study of layers would take, from a pilot of a few seconds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fisherflat._display import displayed
from fisherflat.models import Model, as_prompts
from fisherflat.models.moves import parsed
from fisherflat.studies._journal import Row
from fisherflat.studies.layers._settings import Settings
from fisherflat.studies.layers._study import Study
from fisherflat.studies.layers._tasks import Task

#: seconds after which the pilot only counts rows, and takes their time from what it has seen
PATIENCE = 5.0
#: points of a chart in the pilot
FEW = 4


@displayed
@dataclass(frozen=True)
class Plan:
    """What a run would take.

    **Attributes:** `models`, how many there are; `tasks`, of `fisherflat.studies.layers`; `rows`, of the table;
    `seconds`, expected for one process, without loading the models; `memory`, bytes that the process would hold;
    `pilot`, the seconds that it took to find that out.
    """

    models: int
    tasks: int
    rows: int
    seconds: float
    memory: int
    pilot: float

    def __add__(self, other: Plan) -> Plan:
        """One after the other."""
        return Plan(
            self.models + other.models,
            self.tasks + other.tasks,
            self.rows + other.rows,
            self.seconds + other.seconds,
            max(self.memory, other.memory),
            self.pilot + other.pilot,
        )

    def times(self, count: int) -> Plan:
        """As often, one after the other."""
        return Plan(
            self.models * count, self.tasks * count, self.rows * count, self.seconds * count, self.memory, self.pilot
        )

    def seconds_with(self, workers: int) -> float:
        """How long so many workers would take at least: none does less than a task."""
        return max(self.seconds / workers, self.seconds / max(self.tasks, 1))

    def in_words(self, workers: int = 1) -> str:
        """In a sentence, also for several workers."""
        if workers <= 1:
            return str(self)
        time, memory = _duration(self.seconds_with(workers)), workers * self.memory / 2**30
        return f"{self} With {workers} workers about {time} and {memory:.1f} GiB together."

    def __str__(self) -> str:
        """In a sentence."""
        of = "" if self.models == 1 else f"{self.models} models, "
        return (
            f"{of}{self.tasks:,} tasks, {self.rows:,} rows: about {_duration(self.seconds)} and "
            f"{max(self.memory / 2**30, 0.1):.1f} GiB of memory, after a pilot of {self.pilot:.0f} s."
        )


def plan(model: Model, prompts: Any, settings: Settings) -> Plan:
    """What `study` would take: rows, time and memory.

    One task of each kind of part is measured at a single point, and as long as that takes little time at a few more
    points and positions, so that it is seen what each of them costs. Layers whose modules look the same are of a kind.

    **Raises:** `InputError`, `CheckpointError` as `study`.
    """
    started = time.perf_counter()
    encoded = [model.encode(prompt) for prompt in as_prompts(prompts)]
    whole = Study(model, encoded, settings)
    tasks = whole.tasks
    middle = sorted(range(len(encoded)), key=lambda index: len(encoded[index].ids))[len(encoded) // 2]
    kinds = [repr(block.root) for block in model.blocks(encoded[middle])]
    pilots: dict[tuple[str, str], _Pilot] = {}
    for task in tasks:
        kind = kinds[task.layer], task.part
        if kind not in pilots:
            late = time.perf_counter() - started > PATIENCE
            pilots[kind] = _Pilot.of(whole, middle, task, thorough=not late)
    _complete(pilots.values())
    rows, seconds, length = 0, 0.0, len(encoded[middle].ids)
    for task in tasks:
        pilot, positions = pilots[kinds[task.layer], task.part], len(whole.positions[task.prompt])
        rows += pilot.rows(positions, settings.points)
        seconds += pilot.seconds(positions, settings.points) * len(encoded[task.prompt].ids) / max(length, 1)
    needed = max((pilot.memory for pilot in pilots.values()), default=0)
    return Plan(1, len(tasks), rows, seconds, _resident(model) + needed, time.perf_counter() - started)


@dataclass
class _Pilot:
    """One task of a kind.

    **Attributes:** `charts`, rows of it at one point of one position that have numbers, and `failed`, others a
    position; `first`, seconds at one point of one position; `point`, `position`, those of each more, not a number where
    unknown; `memory`, bytes of the jets.
    """

    charts: int
    failed: int
    first: float
    point: float
    position: float
    memory: int

    @classmethod
    def of(cls, whole: Study, middle: int, task: Task, thorough: bool) -> _Pilot:
        settings, prompt, places = whole.settings, whole.prompts[middle], whole.positions[middle]
        found = list[Row]()

        def timed(positions: int, points: int) -> float:
            where: Any = "together" if None in places else places[:positions]
            study = Study(whole.model, [prompt], replace(settings, positions=parsed(where), points=points))
            start = time.perf_counter()
            found[:] = study.measure(Task(task.layer, task.part, 0))
            study_memory[0] = max(study_memory[0], study.largest)
            return time.perf_counter() - start

        study_memory = [0]
        nan = float("nan")
        point = position = nan
        if thorough:
            timed(1, 1)  # what is loaded and compiled once
            if settings.points > 1:
                point = timed(1, FEW)
            if len(places) > 1:
                position = timed(2, 1)
        first = timed(1, 1)
        numbers = [row for row in found if row.get("point") is not None]
        lost = [row for row in found if row.get("point") is None]
        return cls(
            len(numbers),
            len(lost),
            first,
            max(point - first, 0.0) / (FEW - 1) if point == point else nan,
            max(position - first, 0.0) if position == position else nan,
            study_memory[0],
        )

    def rows(self, positions: int, points: int) -> int:
        return positions * (self.charts * points + self.failed)

    def seconds(self, positions: int, points: int) -> float:
        return self.first + (positions - 1) * self.position + positions * (points - 1) * self.point


def _complete(pilots: Iterable[_Pilot]) -> None:
    """What was not measured of one kind is taken from the others, relative to a first point; or is as that."""
    known = list(pilots)
    for name in ("point", "position"):
        shares = [getattr(p, name) / p.first for p in known if getattr(p, name) == getattr(p, name) and p.first > 0]
        share = sum(shares) / len(shares) if shares else 1.0
        for pilot in known:
            if getattr(pilot, name) != getattr(pilot, name):
                setattr(pilot, name, share * pilot.first)


def _resident(model: Model) -> int:
    """Bytes that this process holds; where that cannot be told, those of the model's weights."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return sum(p.numel() * p.element_size() for p in model.module.parameters())


def _duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
