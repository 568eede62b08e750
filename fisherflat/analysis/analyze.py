"""Which tasks an analysis consists of, and how they are carried out while someone waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from fisherflat.analysis.measure import PARTS, READINGS, Study, sample_points
from fisherflat.analysis.result import Analysis
from fisherflat.analysis.tasks import Row, Task, run
from fisherflat.checkpoints import Block, Encoded, Model
from fisherflat.errors import InputError


def analyze(
    model: Model,
    prompts: Any,
    dim: int = 2,
    *,
    parts: Sequence[str] = tuple(PARTS),
    readings: Sequence[str] = tuple(READINGS),
    layers: Sequence[int] | None = None,
    positions: str | Sequence[int] = "last",
    points: int = 1,
    seed: int = 0,
    engine: str = "taylor",
    progress: bool = True,
) -> Analysis:
    """Curvature of every layer of a model on real prompts.

    For each layer, prompt and position one token's state moves in the `dim` leading principal directions of all states
    that entered the same part over the given prompts; a unit is one standard deviation. Measured are the attention
    operator (live, and with its pattern frozen at the base point), the MLP and the whole block, each with the
    covariance calibrated on its own outputs over the given prompts, so that curvature has no unit of the model.

    **Args:**

    - `model`, from `fisherflat.load`; `prompts`: a text, a list of token ids, or a sequence of those.
    - `dim`: how many directions move, from 2 (a curve has no curvature).
    - `parts`, out of `attention`, `mlp`, `block`; `readings`, out of `live`, `frozen pattern`; `layers`, default all.
    - `positions`: `"last"` for the last token that is not special (such as [SEP]), `"all"` for all such tokens, or
      indices, negative ones from the end.
    - `points`: how many points of each chart; the first is the token's own state, the others are drawn with `seed`
      from within one standard deviation of it.
    - `engine`: of the jets, `"taylor"` or `"autodiff"`; `progress`: show a bar with the time left.

    **Returns:** an `Analysis`. An interrupt (Ctrl-C) ends it early: `.complete` is false, and the rows that were done
    are there. What fails is a row with an `error`.

    **Raises:** `InputError`, `CheckpointError` for prompts and arguments that cannot be used, before anything is
    measured.
    """
    encoded = [model.encode(prompt) for prompt in _as_list(prompts)]
    _check_arguments(dim, parts, readings, points)
    moving = [moving_positions(prompt, positions) for prompt in encoded]
    rows: list[Row] = []
    tasks: list[Task] = []
    notes: list[str] = []
    done, complete = 0, False
    try:
        with _progress(progress) as advance:
            blocks = [model.blocks(prompt) for prompt in encoded]
            study = Study(encoded, blocks, sample_points(points, dim, seed), engine)
            tasks = [
                Task(layer, part, reading, prompt, position)
                for layer in _layers(layers, len(blocks[0]))
                for part in parts
                for reading in study.readings(layer, part)
                if reading in readings
                for prompt in range(len(encoded))
                for position in moving[prompt]
            ]
            notes = _notes(blocks[0])
            for task, found in run(tasks, study.measure):
                rows += found
                done += 1
                advance(task, len(tasks))
        complete = True
    except KeyboardInterrupt:
        notes.append(f"Interrupted: {done} of {len(tasks)} tasks were done." if tasks else "Interrupted at the start.")
    where = positions if isinstance(positions, str) else [int(position) for position in positions]
    settings = {"dim": dim, "positions": where, "points": points, "seed": seed, "engine": engine}
    return Analysis(rows, model=model.name, settings=settings, complete=complete, notes=notes)


def _as_list(prompts: Any) -> list[Any]:
    """One prompt or several, as a list."""
    if isinstance(prompts, (str, torch.Tensor)):
        return [prompts]
    if not isinstance(prompts, Sequence):
        raise InputError(f"prompts are a text, token ids, or a sequence of those; got {type(prompts).__name__}")
    if prompts and all(isinstance(item, int) for item in prompts):
        return [prompts]
    if not prompts:
        raise InputError("there are no prompts; give at least one text")
    return list(prompts)


def _check_arguments(dim: int, parts: Sequence[str], readings: Sequence[str], points: int) -> None:
    if dim < 2:
        raise InputError(f"dim must be at least 2, got {dim}: a curve has no intrinsic curvature")
    if points < 1:
        raise InputError(f"points must be at least 1, got {points}")
    for chosen, known, what in ((parts, PARTS, "parts"), (readings, READINGS, "readings")):
        if isinstance(chosen, str) or not chosen or not set(chosen) <= set(known):
            raise InputError(f"{what} must be a list out of {list(known)}, got {chosen!r}")


def moving_positions(prompt: Encoded, positions: str | Sequence[int]) -> list[int]:
    """The tokens of a prompt that move; `positions` as in `analyze`.

    **Raises:** `InputError` where there are none.
    """
    n = len(prompt.ids)
    if isinstance(positions, str):
        if positions not in ("last", "all"):
            raise InputError(f'positions must be "last", "all" or a list of indices, got {positions!r}')
        words = [index for index, special in enumerate(prompt.special) if not special]
        if not words:
            raise InputError(
                f"the prompt {prompt.text!r} holds only special tokens; give a word, or positions as indices"
            )
        return words if positions == "all" else words[-1:]
    outside = [index for index in positions if not -n <= index < n]
    if outside or not positions:
        what = f"position {outside[0]} is outside" if outside else "no positions are given for"
        raise InputError(f"{what} the prompt {prompt.text!r} of {n} tokens")
    return list(dict.fromkeys(index % n for index in positions))


def _layers(layers: Sequence[int] | None, depth: int) -> list[int]:
    if layers is None:
        return list(range(depth))
    outside = [layer for layer in layers if not -depth <= layer < depth]
    if outside or not layers:
        raise InputError(f"layers must be indices of the {depth} layers, from 0; got {list(layers)}")
    return list(dict.fromkeys(layer % depth for layer in layers))


def _notes(blocks: Sequence[Block]) -> list[str]:
    """Which layers have a token mixer without an attention pattern, such as linear attention or a state space model."""
    without: dict[str, list[str]] = {}
    for block in blocks:
        if block.anatomy.attention and not block.anatomy.softmax:
            without.setdefault(str(block.anatomy.mixer), []).append(str(block.index))
    return [
        f"No softmax mixes the tokens in layer{'s' if len(layers) > 1 else ''} {', '.join(layers)} ({mixer}), "
        "so there is no pattern to freeze."
        for mixer, layers in without.items()
    ]


@contextmanager
def _progress(show: bool) -> Iterator[Any]:
    """A function `(task, total) -> None` that moves a bar on the error stream."""
    if not show:
        yield lambda task, total: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)) as bar:
        shown = bar.add_task("reading the model's blocks", total=None)

        def advance(task: Task, total: int) -> None:
            bar.update(shown, total=total, advance=1, description=f"layer {task.layer}, {task.part}, {task.reading}")

        yield advance
