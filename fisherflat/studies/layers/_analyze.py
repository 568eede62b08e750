"""Analyse a model: which tasks there are, and how they are carried out while someone waits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fisherflat._progress import progress as bar
from fisherflat._version import __version__
from fisherflat.certificates import digests
from fisherflat.errors import InputError, RoutingWarning
from fisherflat.geometry import ENGINES
from fisherflat.models import Encoded, Model
from fisherflat.models.moves import Moves, parse
from fisherflat.parts.readings import LIVE, canonical, order, roles
from fisherflat.studies.layers._in_depth import in_depth
from fisherflat.studies.layers._journal import Journal
from fisherflat.studies.layers._result import Analysis
from fisherflat.studies.layers._runners import one_process, processes
from fisherflat.studies.layers._study import PARTS, Settings, Study
from fisherflat.studies.layers._tasks import Row, Runner, Task


def analyze(
    model: Model,
    prompts: Any,
    dim: int | None = None,
    *,
    moves: str | Moves = "principal",
    parts: Sequence[str] = PARTS,
    heads: str | Sequence[int] | None = None,
    readings: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    positions: str | Sequence[int] = "spread",
    points: int = 8,
    seed: int = 0,
    engine: str = "taylor",
    dtype: torch.dtype = torch.float64,
    jobs: int = 1,
    runner: Runner | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    depth: bool = False,
    progress: bool = True,
) -> Analysis:
    """Curvature of every layer of a model on real prompts, part by part and reading by reading.

    For each layer, prompt and position some token's state moves, by default in the leading principal directions of all
    states that entered the same part over the given prompts, a unit being one standard deviation. Each part has the
    covariance calibrated on its own outputs at the words of the prompts, so that curvature has no unit of the model.

    **Args:**

    - `model`, from `fisherflat.load`; `prompts`: a text, a list of token ids, or a sequence of those.
    - `dim`: how many directions move, from 2 (a curve has no curvature); `moves`: which, see `fisherflat.moves.parse`.
    - `parts`, out of `attention`, `mlp`, `block`; `layers`, default all; `heads`: `"all"`, or indices, to measure what
      heads of the attention give to its output projection, too.
    - `readings`: names as in `fisherflat.readings`; default all that make sense for a part. One is measured in the
      parts that have what it holds.
    - `positions`: which tokens move, one after the other, see `fisherflat.moves`.
    - `points`: how many points of each chart; the first is the token's own state, the others are drawn with `seed`
      from within one unit of it.
    - `engine`: of the jets, `"taylor"` or `"autodiff"`; `dtype`: `torch.float64`, or `torch.float32` for a result that
      says so.
    - `jobs`: how many processes measure at a time; `runner`: what carries out the tasks instead, see
      `fisherflat.studies.layers`.
    - `folder`: keep what is done there as it comes; `resume`: take what is done from there, and measure only the rest.
    - `depth`: also study how curvature accumulates over the layers on each prompt (`fisherflat.studies.depth`), and
      write that into the folder.
    - `progress`: show a bar with the time left.

    **Returns:** an `Analysis`. An interrupt (Ctrl-C) ends it early: `.complete` is false, and the rows that were done
    are there. What fails is a row with an `error`.

    **Raises:** `InputError`, `CheckpointError` for prompts and arguments that cannot be used, or a folder with other
    results, before anything is measured.
    """
    settings = _settings(dim, moves, parts, heads, readings, layers, positions, points, seed, engine, dtype)
    carry_out = runner if runner is not None else one_process if jobs == 1 else processes(jobs)
    if (resume or depth) and folder is None:
        raise InputError(f"{'resume' if resume else 'depth'} needs a folder, where results are kept as they come")
    given = _as_list(prompts)
    study = Study(model, [model.encode(prompt) for prompt in given], settings)
    about = {"prompts": [_plain(prompt) for prompt in study.prompts], **settings.plain()}
    journal: Journal | None = None
    done: dict[str, list[Row]] = {}
    tasks: list[Task] = []
    complete = False
    try:
        with bar(progress) as advance:
            advance("running the model", 0, None)
            tasks = study.tasks
            if folder is not None:
                journal = Journal(folder, _identity(model, about), resume)
                done = journal.done
            left = [task for task in tasks if task.key not in done]
            advance("measuring", len(tasks) - len(left), len(tasks))
            for count, (task, rows) in enumerate(carry_out(study, left), len(tasks) - len(left) + 1):
                done[task.key] = rows
                if journal is not None:
                    journal.write(task.key, rows)
                advance(task.key, count, len(tasks))
        if depth and journal is not None:
            _study_depths(study, given, journal, progress)
        complete = True
    except KeyboardInterrupt:
        pass
    finally:
        if journal is not None:
            journal.close(complete)
    rows = _in_order([row for task in tasks for row in done.get(task.key, ())])
    notes = _notes(rows, settings)
    if not complete:
        count = sum(task.key in done for task in tasks)
        notes.append(f"Interrupted: {count} of {len(tasks)} tasks are done." if tasks else "Interrupted at the start.")
    sections = [(prompt.text, done.get(_depth_key(i), [])) for i, prompt in enumerate(study.prompts)]
    said = {text: [row["sentence"] for row in found] for text, found in sections if found}
    return Analysis(rows, model=model.name, settings=about, complete=complete, notes=notes, depth=said)


def _study_depths(study: Study, prompts: Sequence[Any], journal: Journal, progress: bool) -> None:
    """The depth on each prompt that is not in the journal yet."""
    for index, prompt in enumerate(prompts):
        if (key := _depth_key(index)) in journal.done:
            continue
        said = in_depth(study, prompt, journal.path.parent / key, progress)
        if said is None:
            raise KeyboardInterrupt
        journal.write(key, [{"sentence": sentence} for sentence in said])


def _depth_key(prompt: int) -> str:
    """The name of the task, and of its folder."""
    return f"depth/prompt {prompt}"


def _settings(
    dim: int | None,
    moves: str | Moves,
    parts: Sequence[str],
    heads: str | Sequence[int] | None,
    readings: Sequence[str] | None,
    layers: Sequence[int] | None,
    positions: str | Sequence[int],
    points: int,
    seed: int,
    engine: str,
    dtype: torch.dtype,
) -> Settings:
    """The arguments, checked as far as that goes without the model."""
    what = parse(moves, dim)
    if what.dim < 2:
        raise InputError(f"dim must be at least 2, got {what.dim}: a curve has no intrinsic curvature")
    if points < 1:
        raise InputError(f"points must be at least 1, got {points}")
    if engine not in ENGINES:
        raise InputError(f"engine must be one of {sorted(ENGINES)}, got {engine!r}")
    if dtype not in (torch.float32, torch.float64):
        raise InputError(f"dtype must be torch.float64 or torch.float32, got {dtype}")
    if isinstance(heads, str) and heads != "all":
        raise InputError(f'heads must be "all" or a list of indices, got {heads!r}')
    if isinstance(parts, str) or not (parts or heads) or not set(parts) <= set(PARTS):
        raise InputError(f"parts must be a list out of {list(PARTS)}, got {parts!r}")
    for chosen, name in ((layers, "layers"), (readings, "readings")):
        if isinstance(chosen, str) or (chosen is not None and not chosen):
            raise InputError(f"{name} must be a list that is not empty, got {chosen!r}")
    return Settings(
        moves=what,
        parts=(*dict.fromkeys(parts), *(("heads",) if heads else ())),
        heads=None if heads is None or isinstance(heads, str) else tuple(heads),
        readings=None if readings is None else tuple(dict.fromkeys(map(canonical, readings))),
        layers=None if layers is None else tuple(layers),
        positions=positions if isinstance(positions, str) else tuple(int(position) for position in positions),
        points=points,
        seed=seed,
        engine=engine,
        dtype=dtype,
    )


def _as_list(prompts: Any) -> list[Any]:
    """One prompt or several, as a list."""
    if isinstance(prompts, (str, Tensor)):
        return [prompts]
    if not isinstance(prompts, Sequence):
        raise InputError(f"prompts are a text, token ids, or a sequence of those; got {type(prompts).__name__}")
    if prompts and all(isinstance(item, int) for item in prompts):
        return [prompts]
    if not prompts:
        raise InputError("there are no prompts; give at least one text")
    return list(prompts)


def _plain(prompt: Encoded) -> Any:
    """A prompt fit for JSON: its token ids, or what tells hidden states apart."""
    return prompt.ids.tolist() if prompt.hidden is None else {"hidden_states": digests.of_tensor(prompt.hidden)}


def _identity(model: Model, about: dict[str, Any]) -> dict[str, Any]:
    """What the rows of a task depend on: another choice of layers or parts asks for other tasks, not for other rows."""
    settings = {name: value for name, value in about.items() if name not in ("layers", "parts")}
    return {"fisherflat": __version__, "weights": digests.of_tensors(model.weights.each(model.module)), **settings}


def _in_order(rows: list[Row]) -> list[Row]:
    """The rows by layer, part and reading: tasks hold all readings of one prompt."""
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
    if elsewhere := {(row["layer"], row["part"], row["reading"]) for row in measured if row["rerouted"]}:
        points = [row for row in measured if (row["layer"], row["part"], row["reading"]) in elsewhere]
        layers = sorted({layer for layer, _, _ in elsewhere})
        count, named = sum(row["rerouted"] for row in points), ", ".join(map(str, layers))
        said.append(
            f"In layer{'s' if len(layers) > 1 else ''} {named} a mixture of experts chooses others at {count} of "
            f"{len(points)} points than at the prompt itself; each point has the geometry of its own routing, and the "
            "surface jumps in between."
        )
        warnings.warn(said[-1], RoutingWarning, stacklevel=3)
    if settings.dtype == torch.float32:
        said.append("Computed in float32: expect about three digits of curvature, and fewer where it nearly cancels.")
    return said
