"""A study of layers: which tasks there are, and how they are carried out while someone waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from fisherflat._files import Scratch
from fisherflat._progress import progress as bar
from fisherflat._version import __version__
from fisherflat.certificates import digests
from fisherflat.errors import RoutingWarning, warn
from fisherflat.models import Model, as_prompts
from fisherflat.parts.readings import LIVE, order, roles
from fisherflat.runners import Runner, one_process
from fisherflat.studies._journal import Done, Journal, Row, begun
from fisherflat.studies._prompts import plain_prompt
from fisherflat.studies._tables import about_tables
from fisherflat.studies.layers._full import unreached
from fisherflat.studies.layers._inputs import about_digits
from fisherflat.studies.layers._settings import Settings
from fisherflat.studies.layers._study import Study
from fisherflat.studies.layers._tasks import Task

#: rows that are held in memory, and no more: about a gigabyte
MANY = 500_000
#: more work of a study, by the key of the journal: what does it on which prompt, and returns its rows
More = Mapping[str, Callable[[], list[Row]]]


@dataclass
class Layers:
    """The curvature of a model's layers.

    **Attributes:** `model`, its name; `settings`, the arguments, fit for JSON; `rows`, one for each layer, part,
    reading, prompt, position and point; `notes`, sentences about the run; `texts`, of the prompts; `more`, the rows of
    further work by its key; `complete`, false after an interrupt; `scratch`, where many rows lie that no folder was
    given for.
    """

    model: str
    settings: dict[str, Any]
    rows: Sequence[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    more: dict[str, list[Row]] = field(default_factory=dict)
    complete: bool = False
    scratch: Scratch | None = None


def study(
    model: Model,
    prompts: Any,
    settings: Settings,
    *,
    runner: Runner = one_process,
    folder: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    more: More | None = None,
    progress: bool = True,
) -> Layers:
    """The geometry of every layer of a model on prompts, part by part and reading by reading.

    **Args:**

    - `model`; `prompts`, one or several (`fisherflat.models.as_prompts`); `settings`, what is measured.
    - `runner`, what carries out the tasks.
    - `folder`, where what is done is kept as it comes (default: in memory, many rows in a temporary folder); `resume`:
      take what is done from there; `overwrite`: remove it.
    - `more`: work to do after the layers, and keep in the same way; it shows its progress itself.
    - `progress`: show a bar with the time left, on the error stream.

    **Returns:** what was measured. An interrupt (Ctrl-C) ends it early: `.complete` is false, and the rows that were
    done are there. What fails is a row with an `error`.

    **Raises:** `InputError`, `CheckpointError` for prompts that cannot be used, or a folder with other results, or one
    that another run works in, before anything is measured.
    """
    with nullcontext() if folder is None else begun(folder, resume, overwrite):
        return _carried_out(model, prompts, settings, runner, folder, resume, overwrite, more or {}, progress)


def check(model: Model, prompts: Any, settings: Settings) -> None:
    """Refuse what `study` would refuse of a model, without measuring anything.

    **Raises:** `InputError`, `CheckpointError` as `study`.
    """
    _ = Study(model, [model.encode(prompt) for prompt in as_prompts(prompts)], settings).tasks


def _carried_out(
    model: Model,
    prompts: Any,
    settings: Settings,
    runner: Runner,
    folder: str | Path | None,
    resume: bool,
    overwrite: bool,
    more: More,
    progress: bool,
) -> Layers:
    work = Study(model, [model.encode(prompt) for prompt in as_prompts(prompts)], settings)
    about = {"prompts": [plain_prompt(prompt) for prompt in work.prompts], **work.settings.plain()}
    kept = _Kept()
    tasks: list[Task] = []
    complete = False
    try:
        with bar(progress) as advance:
            advance("running the model", 0, None)
            tasks = work.tasks
            if folder is not None:
                kept = _Kept(Journal(folder, _identity(model, about), resume, overwrite))
            left = [task for task in tasks if task.key not in kept.done]
            advance("measuring", len(tasks) - len(left), len(tasks))
            for count, (task, rows) in enumerate(runner(work, left), len(tasks) - len(left) + 1):
                kept.add(task.key, rows)
                advance(task.key, count, len(tasks))
        for key, carry_out in more.items():
            if key not in kept.done:
                kept.add(key, carry_out())
        complete = True
    except KeyboardInterrupt:
        pass
    finally:
        kept.close(complete)
    done = kept.done
    every = Rows(tasks, done)
    few = list(every) if len(every) <= MANY else None
    if few is not None:
        notes = [*_notes(few, settings), *about_digits(few, settings), *model.notes]
    else:
        notes = [f"There are {len(every):,} rows, which were not gone through for notes.", *model.notes]
    if complete:
        first = work.first
        work.forget()  # of a model whose weights stay on disk no more than a block at a time
        notes += about_tables(model, work.prompts[0], first)
    else:
        count = sum(task.key in done for task in tasks)
        notes.append(f"Interrupted: {count} of {len(tasks)} tasks are done." if tasks else "Interrupted at the start.")
    extra = {key: done[key] for key in more if key in done}
    return Layers(
        model.name,
        _resolved(work, about, tasks, done),
        every if few is None else few,
        notes,
        [prompt.text for prompt in work.prompts],
        extra,
        complete,
        kept.scratch,
    )


class _Kept:
    """What is done: in a journal, or without one in memory, which moves into one of its own when it has many rows.

    **Attributes:** `done`, the rows of tasks by key; `scratch`, the folder of a journal of its own.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal, self._count = journal, 0
        self.done: dict[str, list[Row]] | Done = {} if journal is None else journal.done
        self.scratch: Scratch | None = None

    def add(self, key: str, rows: list[Row]) -> None:
        if self._journal is not None:
            self._journal.write(key, rows)
            return
        assert isinstance(self.done, dict)
        self.done[key] = rows
        self._count += len(rows)
        if self._count > MANY:
            self.scratch = Scratch()
            self._journal, before = Journal(self.scratch.path, {}), self.done
            for each, own in before.items():
                self._journal.write(each, own)
            self.done = self._journal.done

    def close(self, finished: bool) -> None:
        if self._journal is not None:
            self._journal.close(finished)


class Rows(Sequence[Row]):
    """The rows of tasks that are done, by layer, part and reading: tasks hold all readings of one prompt.

    Those of one part of a layer at a time are in memory, where they come from a journal.
    """

    def __init__(self, tasks: Sequence[Task], done: Mapping[str, list[Row]]) -> None:
        self._groups: dict[tuple[int, str], list[str]] = {}
        for task in tasks:
            if task.key in done:
                self._groups.setdefault((task.layer, task.part), []).append(task.key)
        self._done = done
        keys = (key for group in self._groups.values() for key in group)
        self._count = sum(map(done.rows, keys)) if isinstance(done, Done) else sum(len(done[key]) for key in keys)

    def __iter__(self) -> Iterator[Row]:
        for keys in self._groups.values():
            yield from _in_order([row for key in keys for row in self._done[key]])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return next(islice(self, index, None)) if isinstance(index, int) and index >= 0 else list(self)[index]


def _resolved(
    work: Study, about: dict[str, Any], tasks: Sequence[Task], done: Mapping[str, list[Row]]
) -> dict[str, Any]:
    """The settings as they were carried out: indices and names where words were asked for, which stay in `asked`.

    `layers` and `heads` are indices, `readings` those that were measured, and `positions` those of each prompt, or
    `together`.
    """
    measured = [task for task in tasks if task.key in done]
    # tasks of other prompts have the same heads and readings
    first = {(task.layer, task.part): task.key for task in reversed(measured)}
    rows = [row for key in first.values() for row in done[key]]
    heads = {int(row["part"].removeprefix("head ")) for row in rows if row["part"].startswith("head ")}
    found = {
        "layers": sorted({task.layer for task in tasks}),
        "heads": sorted(heads) if "heads" in work.settings.parts and heads else about["heads"],
        "readings": sorted({row["reading"] for row in rows if row.get("reading")}, key=order),
        "positions": ["together" if None in places else places for places in work.positions],
    }
    return about | found | {"asked": {name: about[name] for name in found}}


def _identity(model: Model, about: dict[str, Any]) -> dict[str, Any]:
    """What the rows of a task depend on: another choice of layers or parts asks for other tasks, not for other rows."""
    settings = {name: value for name, value in about.items() if name not in ("layers", "parts")}
    return {"fisherflat": __version__, "weights": digests.of_tensors(model.weights.each(model.module)), **settings}


def _in_order(rows: list[Row]) -> list[Row]:
    """The rows by layer, part and reading."""
    parts = {kind: rank for rank, kind in enumerate(dict.fromkeys((row["layer"], row["part"]) for row in rows))}
    return sorted(rows, key=lambda row: (parts[row["layer"], row["part"]], order(row.get("reading") or LIVE)))


def _notes(rows: Sequence[Row], settings: Settings) -> list[str]:
    """Sentences about what could not be measured as it might be expected, and about precision."""
    said = []
    measured = [row for row in rows if row.get("verdict") is not None]
    asked = settings.readings
    if asked is None or any("pattern" in roles(reading) for reading in asked):
        attention = [row for row in measured if row["part"] == "attention"]
        held = {row["layer"] for row in attention if "pattern" in roles(row["reading"])}
        if without := sorted({row["layer"] for row in attention} - held):
            said.append(
                f"No softmax mixes the tokens in layer{'s' if len(without) > 1 else ''} "
                f"{', '.join(map(str, without))}, so there is no pattern to freeze."
            )
    if measured:
        found = {row["reading"] for row in measured}
        said += [f"No part has what {r!r} holds, so it was measured nowhere." for r in asked or () if r not in found]
    said += unreached(measured)
    if elsewhere := {(row["layer"], row["part"], row["reading"]) for row in measured if row["rerouted"]}:
        points = [row for row in measured if (row["layer"], row["part"], row["reading"]) in elsewhere]
        layers = sorted({layer for layer, _, _ in elsewhere})
        count, named = sum(row["rerouted"] for row in points), ", ".join(map(str, layers))
        said.append(
            f"In layer{'s' if len(layers) > 1 else ''} {named} a mixture of experts chooses others at {count} of "
            f"{len(points)} points than at the prompt itself; each point has the geometry of its own routing, and the "
            "surface jumps in between."
        )
        warn(said[-1], RoutingWarning)
    return said
