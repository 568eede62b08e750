"""Follow the curvature of a model through its training, checkpoint by checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from fisherflat._files import as_json, whole
from fisherflat._version import __version__
from fisherflat.certificates import digests
from fisherflat.errors import CheckpointError, InputError
from fisherflat.models import Checkpoint, architecture, as_model, as_prompts, checkpoints, common, fingerprint
from fisherflat.report._analysis import Analysis
from fisherflat.report._analyze import NOT_MEASURED, analyze, check_places
from fisherflat.report._result import room_for
from fisherflat.report._tracked import Stage, Track
from fisherflat.studies import kept
from fisherflat.studies.layers import Settings

#: beside a saved analysis: of which files it is, and what was measured
DONE = "checkpoint.json"


def track(
    runs: Any,
    prompts: Any,
    *,
    names: Sequence[str] | None = None,
    load: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **options: Any,
) -> Track:
    """The curvature of a model through its training: trajectories by layer, part and reading, with intervals.

    **Args:**

    - `runs`: a folder with checkpoints, a step in the name of each (`checkpoint-100`, `step_000200`, `epoch3`), or
      several of them, such as of a gated and an ungated run, side by side.
    - `prompts`, as in `fisherflat.analyze`: the same for all checkpoints.
    - `names`, of the runs (default: those of their folders).
    - `load`: options of `fisherflat.load`.
    - `folder`: keep what is done there as it comes; `resume`: measure only what is not there yet, also as new
      checkpoints come; `overwrite`: begin anew.
    - `progress`: show a bar with the time left, on the error stream.
    - `options`: those of `fisherflat.analyze`.

    **Returns:** a `Track`. A checkpoint that cannot be read, or is of another architecture than most of its run, is
    left out, and a sentence says so. An interrupt (Ctrl-C) ends it early: `.complete` is false.

    **Raises:** `InputError` where there is no such folder, or no checkpoint in it that can be read, two are of one
    step, or the folder holds other results; `CheckpointError` where none can be used; and what `analyze` raises for
    prompts and options.

    >>> import fisherflat as ff
    >>> from pathlib import Path
    >>> from shutil import copytree
    >>> for step in (100, 200):
    ...     copied = copytree(ff.zoo.FOLDER / "python-llama", Path("run") / f"checkpoint-{step}")
    >>> small = {"layers": [0], "parts": ["mlp"], "points": 1, "progress": False}
    >>> found = ff.track("run", "def mean(values):", readings=["live"], **small)
    >>> list(found.table["step"])
    [100, 200]
    """
    given = [runs] if isinstance(runs, (str, Path)) else list(runs) if isinstance(runs, (list, tuple)) else []
    if not given or not all(isinstance(run, (str, Path)) for run in given):
        raise InputError("give a folder of checkpoints, or a list of such folders")
    if names is not None and (isinstance(names, str) or len(names) != len(given)):
        raise InputError(f"names must be {len(given)} words, one for each run, got {names!r}")
    if resume and folder is None:
        raise InputError("resume needs a folder, where results are kept as they come")
    stages = _stages(given, names)
    if not any(stage.left_out is None for stage in stages):
        raise InputError(f"no checkpoint can be read; {stages[0].path}: {stages[0].left_out}")
    what = _what(options, prompts)
    place = None if folder is None else Path(folder)
    complete = True
    with nullcontext() if place is None else room_for(Track, place, overwrite=overwrite or resume):
        if len(given) > 1:
            first = {stage.run: stage.path for stage in reversed(stages) if stage.left_out is None}
            with suppress(CheckpointError, OSError):  # which a sentence says below
                check_places(first.values(), prompts, load, options)
        for stage in stages:
            if stage.left_out is None:
                where = None if place is None else place / stage.folder
                try:
                    stage.analysis = _measured(stage, where, prompts, load, options, what, resume, overwrite, progress)
                    stage.place = where if stage.analysis.complete else None
                except (CheckpointError, OSError) as error:
                    stage.left_out = f"it cannot be read: {error}"
                if stage.analysis is not None and not stage.analysis.complete:
                    complete = False
                    break
    if complete and all(stage.left_out for stage in stages):
        raise CheckpointError(f"no checkpoint can be used; {stages[0].path}: {stages[0].left_out}")
    return Track(stages, complete=complete)


def to_measure(runs: Sequence[str | Path], folder: str | Path | None) -> list[list[Path]]:
    """The checkpoints of each run that `track` would measure, but for runs of which none is left.

    **Args:** `folder`, with what was done before, if it is to go on.
    """
    left: dict[str, list[Path]] = {}
    for stage in _stages(runs, None):
        if stage.left_out is None and not (folder and (Path(folder) / stage.folder / DONE).is_file()):
            left.setdefault(stage.run, []).append(stage.path)
    return list(left.values())


def _stages(runs: Sequence[str | Path], names: Sequence[str] | None) -> list[Stage]:
    """The checkpoints of all runs, with names that tell the runs apart."""
    found = [checkpoints(run) for run in runs]
    called = _named([Path(run).expanduser().resolve().name for run in runs] if names is None else names)
    return [stage for name, own in zip(called, found, strict=True) for stage in _looked_at(name, own)]


def _looked_at(run: str, found: Sequence[Checkpoint]) -> list[Stage]:
    """The checkpoints of a run, with what is wrong with those that are left out."""
    stages = [Stage(run, step, path) for step, path in found]
    kinds = {}
    for stage in stages:
        try:
            kinds[stage.step] = architecture(stage.path)
        except (CheckpointError, OSError) as error:
            stage.left_out = f"it cannot be read: {error}"
    usual = common(list(kinds.values())) if kinds else None
    for stage in stages:
        if stage.step in kinds and kinds[stage.step] != usual:
            assert usual is not None
            stage.left_out = (
                f"it is of another architecture ({kinds[stage.step].kind}) than most of its run ({usual.kind})"
                if kinds[stage.step].kind != usual.kind
                else f"its weights have other names or shapes than most of its run ({usual.kind})"
            )
    return stages


def _measured(
    stage: Stage,
    where: Path | None,
    prompts: Any,
    load: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    what: Mapping[str, Any] | None,
    resume: bool,
    overwrite: bool,
    progress: bool,
) -> Analysis:
    """The analysis of a checkpoint: the one that is there, where it is of the same files and settings."""
    if where is None:
        return analyze(as_model(stage.path, **load or {}), prompts, **options, progress=progress)
    same = what and {
        "fisherflat": __version__,
        "files": fingerprint(stage.path),
        "load": {name: str(value) for name, value in (load or {}).items()},
        **what,
    }
    if resume and same and kept(where / DONE, same):
        with suppress(InputError):  # damaged since: it is made again from its journal
            return Analysis.load(where)
    keeping: dict[str, Any] = {"folder": where, "resume": resume, "overwrite": overwrite}
    found = analyze(as_model(stage.path, **load or {}), prompts, **options, **keeping, progress=progress)
    if found.complete:
        found.save(where)
    if found.complete and same:
        with whole(where / DONE) as part:
            part.write_text(as_json(same), encoding="utf-8")
    return found


def _what(options: Mapping[str, Any], prompts: Any) -> dict[str, Any] | None:
    """What is measured, besides the model; `None` where that cannot be written down.

    Positions that a function chooses have no name: only the journals know what it chose.
    """
    found = {"settings": _settings(options), "prompts": [_plain(prompt) for prompt in as_prompts(prompts)]}
    try:
        as_json(found)
    except TypeError:
        return None
    return found


def _plain(prompt: Any) -> Any:
    """A prompt fit for JSON: a text or token ids as they are, and a digest of what is larger."""
    if isinstance(prompt, Mapping):
        return {str(name): _plain(value) for name, value in prompt.items()}
    return digests.of_tensor(torch.as_tensor(prompt)) if hasattr(prompt, "shape") else repr(prompt)


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """What is measured, fit for JSON. **Raises:** `InputError` for options that `analyze` does not take."""
    own = {name: value for name, value in options.items() if name not in NOT_MEASURED}
    if options.get("depth"):
        raise InputError("track follows layers; study the depth of single checkpoints with study_depth")
    try:
        first, *others = [one.plain() for one in Settings.several(**own)]
        return first | ({"others": [one["moves"] for one in others]} if others else {})
    except TypeError as error:
        raise InputError(f"track takes the options of analyze: {error}") from error


def _named(names: Sequence[str]) -> list[str]:
    """A name for each run, fit for a folder; of equal ones the second and so on are numbered."""
    said: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:80] or "run"
        numbered = (plain if count == 1 else f"{plain}-{count}" for count in range(1, len(names) + 2))
        said.append(next(each for each in numbered if each not in said))
    return said
