"""Analyse a model: the curvature of its layers on real prompts, as a table, in words and in figures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, SupportsIndex

import torch

from fisherflat._files import Scratch, as_json
from fisherflat.errors import InputError
from fisherflat.models import PARTS, as_model, as_prompts
from fisherflat.models.covariances import Covariance
from fisherflat.models.moves import Moves
from fisherflat.report._analysis import Analysis
from fisherflat.report._in_depth import FOLDER, depth_studies, in_depth
from fisherflat.report._large import LargeAnalysis
from fisherflat.runners import Runner, one_process, processes
from fisherflat.spaces.families import ParametricFamily
from fisherflat.studies import begun
from fisherflat.studies.layers import Settings, check, study

#: options of `analyze` that say how, and not what
NOT_MEASURED = ("jobs", "runner", "depth")


def analyze(
    model: Any,
    prompts: Any,
    *,
    dim: SupportsIndex | str | None = None,
    moves: str | Moves | Sequence[str | Moves] = "principal",
    parts: Sequence[str] = PARTS,
    heads: Any = None,
    readings: Sequence[str] | None = None,
    layers: Any = None,
    positions: Any = "spread",
    points: SupportsIndex = 16,
    seed: SupportsIndex = 0,
    engine: str = "taylor",
    dtype: torch.dtype = torch.float64,
    errors: str = "sample",
    family: str | ParametricFamily | None = None,
    precision: str = "working",
    covariance: Covariance = "words",
    output: str = "all",
    jobs: SupportsIndex = 1,
    runner: Runner | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    depth: bool = False,
    progress: bool = True,
) -> Analysis:
    """Curvature of every layer of a model on real prompts, part by part and reading by reading.

    For each layer, prompt and position some token's state moves, by default in the leading principal directions of all
    states that entered the same part over the given prompts, a unit being one standard deviation. By default each part
    has the covariance calibrated on its own outputs at the words of the prompts, so that curvature has no unit of the
    model.
    The idea of comparing gated with ungated attention, and attention with its pattern fixed, is that of *Gating Enables
    Curvature* (arXiv 2604.14702).

    **Args:**

    - `model`, loaded, a module with a list of blocks, or what `fisherflat.load` takes; `prompts`: a text, token ids
      `[n]`, hidden states `[n, d]`, or a sequence of those.
    - `dim`: k, how many directions move, from 2 (a curve has no curvature), or `"full"`: all, at the tokens' own
      states, the scalar curvature then being sampled to 5 %, see docs/full_width.md; `moves`: which, see
      `fisherflat.moves.parse`; or a list of such, each measured by itself and told apart by the column `moves`:
      `["principal", "random:0", "random:1"]`. Estimates are then of the first, and so is a study of depth;
      `Analysis.by_moves` compares them, and `Analysis.along` has the others.
    - `parts`, out of `attention`, `mlp`, `block`; `layers`, indices, negative ones from the end, by default all;
      `heads`: `"all"`, or indices, to measure what heads of the attention give to its output projection, too.
    - `readings`: names as in `fisherflat.readings`; default all that make sense for a part. One is measured in the
      parts that have what it holds.
    - `positions`: which tokens move, one after the other, as `fisherflat.moves.positions` takes them, or a list of
      such with one entry a prompt: `"spread"`, `"last content"`, `"token:bank"`, `[2, 3]`, `[[2], [3]]`.
    - `points`: how many points of each chart; the first is the token's own state, the others are drawn with `seed`
      from within one unit of it.
    - `engine`: of the jets, `"taylor"`, `"xla"`, `"cudagraphs"` or `"autodiff"`; `dtype`: `torch.float64`, or
      `torch.float32` for a result that says so.
    - `errors`: estimate the error of each scalar curvature at a `"sample"` of points (one in 64, at least one for each
      reading of a part) and carry it over to the others, or estimate it at `"all"`, see docs/precision.md.
    - `precision`: `"auto"` computes points of whose scalar curvature fewer than six digits are right in more bits, as
      `StatisticalManifold.measure` does: seconds to minutes a point for large layers.
    - `family`: what the states after a block are read as: `"next-token"`, `"class"` or `"direction"`, what the model's
      own final norm and head make of those of the tokens that move (`Model.readout`), or one of `fisherflat.families`,
      whose parameters they are behind the final norm, such as `NextToken(weight)`. Then `parts` is `["block"]`, and
      curvature is in the family's own metric. Default: the outputs of each part are the mean of a Gaussian.
    - `covariance` of one token's outputs, each token having the same: `"words"`, their mean variance at the words of
      all prompts; `"all"`, at all tokens; `"diagonal"`, the variance of each output at the words; `"full"`, their
      covariance matrix there; a number; or a `Gaussian`, also one of all outputs of a prompt at once. `output`: the
      outputs of `"all"` tokens are the surface, or those of the ones that `"moved"`.
    - `jobs`: how many processes measure at a time; `runner`: what carries out the tasks instead, one
      of `fisherflat.runners`, such as `ff.runners.ray()`, or a function of that kind.
    - `folder`: keep what is done there as it comes (default: in memory, and from 500,000 rows on in a temporary folder
      that goes with the result; save it); `resume`: take what is done from there, and measure only the rest;
      `overwrite`: remove it. Without either a folder that holds an analysis is refused.
    - `depth`: also study how curvature accumulates over the layers on each prompt (`fisherflat.study_depth`), and
      write that into the folder.
    - `progress`: show a bar with the time left, on the error stream.

    **Returns:** an `Analysis`. An interrupt (Ctrl-C) ends it early: `.complete` is false, and the rows that were done
    are there. What fails is a row with an `error`.

    **Raises:** `CheckpointError` for a model that cannot be read; `CovarianceError` for a covariance that is none;
    `InputError` for prompts or arguments that cannot be used, a folder with other results, or one that another run
    works in, before anything is measured.

    >>> import fisherflat as ff
    >>> found = ff.analyze("python-llama", [1, 2, 3, 4], layers=[-1], parts=["attention"], points=1, progress=False)
    >>> found.table.groupby("reading").verdict.agg(set)["frozen pattern"]
    {'flat (proved)'}
    """
    each = Settings.several(
        dim=dim,
        moves=moves,
        parts=parts,
        heads=heads,
        readings=readings,
        layers=layers,
        positions=positions,
        points=points,
        seed=seed,
        engine=engine,
        dtype=dtype,
        errors=errors,
        family=family,
        precision=precision,
        covariance=covariance,
        output=output,
    )
    if depth and each[0].full:
        raise InputError('depth is studied in a few directions; leave out depth, or dim="full"')
    if runner is not None and not callable(runner):
        raise InputError(f"a runner is a function of work and tasks, got {type(runner).__name__}")
    carry_out = runner if runner is not None else one_process if jobs == 1 else processes(jobs)
    if (resume or depth) and folder is None:
        raise InputError(f"{'resume' if resume else 'depth'} needs a folder, where results are kept as they come")
    with nullcontext() if folder is None else begun(folder, resume, overwrite):
        loaded = as_model(model)
        found = list[Analysis]()
        for number, one in enumerate(each):
            place = folder if folder is None or not number else Path(folder) / _place(one)
            if number and not found[-1].complete:
                break
            found.append(
                _analyzed(loaded, prompts, one, carry_out, place, resume, overwrite, depth and not number, progress)
            )
    return found[0] if len(each) == 1 else _together(found, len(found) == len(each))


def check_places(
    models: Iterable[Any], prompts: Any, load: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> None:
    """Refuse layers, heads and positions that one of several models does not have, before any of them is measured.

    Models that are given by their paths are loaded for that, one at a time, where such places are named at all.

    **Args:** `load`, options of `fisherflat.load`; `options`, of `analyze`.

    **Raises:** as `analyze`.
    """
    if not {"layers", "heads", "positions"} & options.keys():
        return
    settings = Settings.several(**{name: value for name, value in options.items() if name not in NOT_MEASURED})[0]
    for model in models:
        check(as_model(model, **load or {}), prompts, settings)


def _place(settings: Settings) -> str:
    """Where what is done along another of several moves is kept: its name, and what tells it from others."""
    digest = sha256(as_json(settings.moves.settings, indent=None).encode()).hexdigest()[:8]
    return f"moves/{re.sub('[^A-Za-z0-9]+', '-', settings.moves.name)[:32]}-{digest}"


def _together(found: Sequence[Analysis], all_of_them: bool) -> Analysis:
    """Analyses that differ in what moved, as one; whether none is missing."""
    first, *others = found
    notes = list(dict.fromkeys(note for one in found for note in one.notes))
    named = ", ".join(name for one in others for name in one.moves)
    notes.append(f"Estimates, sentences and figures are about the first of several moves; the table also has {named}.")
    settings = first.settings | {"others": [one.settings["moves"] for one in others]}
    about: dict[str, Any] = {"model": first.model, "settings": settings, "notes": notes}
    about["complete"] = all_of_them and all(one.complete for one in found)
    about |= {"patterns": first.patterns, "depth": first.depth, "studies": first.studies}
    rows = (row for one in found for row in one.each())
    if any(isinstance(one, LargeAnalysis) for one in found):
        return LargeAnalysis.written(rows, Scratch(), **about)
    return Analysis(list(rows), **about)


def _analyzed(
    model: Any,
    prompts: Any,
    settings: Settings,
    carry_out: Runner,
    folder: str | Path | None,
    resume: bool,
    overwrite: bool,
    depth: bool,
    progress: bool,
) -> Analysis:
    loaded, given = as_model(model), as_prompts(prompts)
    sections = {
        f"depth/prompt {i}": partial(in_depth, loaded, prompt, settings, Path(folder) / FOLDER.format(i), progress)
        for i, prompt in enumerate(given)
        if depth and folder is not None
    }
    found = study(
        loaded,
        given,
        settings,
        runner=carry_out,
        folder=folder,
        resume=resume,
        overwrite=overwrite,
        more=sections,
        progress=progress,
    )
    said = {
        text: [row["sentence"] for row in found.more[key]]
        for text, key in zip(found.texts, sections, strict=False)
        if found.more.get(key)
    }
    about: dict[str, Any] = {
        "model": found.model,
        "settings": found.settings,
        "complete": found.complete,
        "notes": found.notes,
    }
    about |= {"depth": said, "studies": depth_studies(Path(folder)) if folder is not None and said else ()}
    if not isinstance(found.rows, list):  # they stay on disk
        return LargeAnalysis.written(found.rows, folder if folder is not None else Scratch(), **about)
    return Analysis(found.rows, **about)
