"""What is studied: maps and a chart, given, or a model's blocks on a prompt and what moves in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from torch import Tensor

from fisherflat.errors import InputError
from fisherflat.models import READOUTS, Block, Encoded, Model, as_model
from fisherflat.models.covariances import Covariance, called, fitted, of_tokens
from fisherflat.models.covariances import covariance as covariance_of
from fisherflat.models.covariances import output as output_of
from fisherflat.models.moves import Moves, Position, Principal, tokens
from fisherflat.parts.readings import LIVE
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian, ParametricFamily
from fisherflat.studies._lens import Lens, named
from fisherflat.studies.depth._stack import Stack


@dataclass(frozen=True, eq=False)
class OnPrompt:
    """A model's blocks on a prompt, and the chart in which some of its tokens move where they enter the first block."""

    prompt: Encoded
    position: Position
    blocks: Sequence[Block]
    chart: Chart


def on_prompt(model: Model, prompt: Any, moves: Moves, where: Any = None) -> OnPrompt:
    """A model on a prompt. **Args:** `where` as in `Moves.place`.

    **Raises:** `InputError`, `CheckpointError` for a prompt or movement that cannot be used.
    """
    encoded = prompt if isinstance(prompt, Encoded) else model.encode(prompt)
    position = moves.place(model, encoded, where)
    variants = moves.variants(model, encoded, position)
    blocks = [model.blocks(variant) for variant in variants]
    states = [some[0].hidden_states for some in blocks]
    chart = moves.fit(states, variants).chart(states, tokens(variants[0], position))
    return OnPrompt(variants[0], position, blocks[0], chart)


def read_stack(
    blocks: Any,
    chart: Chart | None,
    prompt: Any,
    family: Gaussian | ParametricFamily | str | None,
    halves: bool,
    reading: str,
    covariance: Covariance | None = None,
    output: str = "all",
) -> Stack:
    """The stack of maps in a chart, or of a model on a prompt, in the chart that it has by default; in a reading.

    **Raises:** `InputError` for a model without a prompt, or maps without a chart; what `Stack` raises.
    """
    maps, keep, model = blocks, True, None
    if isinstance(blocks, (Model, str, Path)) or prompt is not None:
        if prompt is None:
            raise InputError("a model needs a prompt: give one as prompt=, a text or token ids")
        if isinstance(blocks, FunctionType) or (isinstance(blocks, Sequence) and not isinstance(blocks, str)):
            raise InputError("blocks take no prompt; a model does: one of fisherflat.load, a module, or a folder")
        model = as_model(blocks)
        keep = in_memory(model)
        if chart is None:
            found = on_prompt(model, prompt, Principal())
            maps, chart = found.blocks, found.chart
        else:
            maps = model.blocks(prompt)
    elif chart is None:
        raise InputError("blocks need a chart; a model in its own chart needs a prompt: give one as prompt=")
    read = isinstance(family, ParametricFamily) or (isinstance(family, str) and family in READOUTS)
    moved = moving(chart) if output_of(output) == "moved" else None
    if read and moved is not None:
        raise InputError("a family reads the tokens that move by itself: give no output besides")
    if covariance is not None:
        if family is not None:
            raise InputError("give a family or a covariance, which is that of a Gaussian, and not both")
        family = measured_in(covariance, None if model is None else model.encode(prompt), moved)  # type: ignore[assignment]
    stack = Stack(maps, chart, None if read else family, halves=halves, keep=keep, moved=moved)  # type: ignore[arg-type]
    if read:
        stack = seen(stack, family, model, prompt)
    return stack if reading == LIVE else stack.read(reading)


def measured_in(
    given: Covariance, prompt: Encoded | None, moved: Sequence[int] | None = None
) -> Gaussian | str | Callable[[Tensor], Gaussian]:
    """The covariance of each depth: given, or fitted to the outputs of that depth, as in `fisherflat.analyze`.

    **Args:** `prompt`, whose words it is fitted to; `moved`, the tokens whose outputs are measured (default: all).

    **Raises:** `InputError` for one that is fitted to words, without a model and its prompt.
    """
    what = covariance_of(given)
    if prompt is None:
        if what == "all":
            return "calibrated"
        if isinstance(what, str):
            raise InputError(f'covariance={what!r} is fitted to words: give a model and its prompt, or take "all"')
    return Fit(what, prompt, moved)


@dataclass(frozen=True, eq=False)
class Fit:
    """The covariance of a depth's outputs, made of them."""

    what: Covariance
    prompt: Encoded | None
    moved: Sequence[int] | None

    @property
    def name(self) -> str:
        """For tables."""
        return str(called(self.what))

    def __call__(self, outputs: Tensor) -> Gaussian:
        """Of all outputs that are measured at once."""
        one = fitted(self.what, [outputs], [] if self.prompt is None else [self.prompt])
        if outputs.dim() < 2:
            return one
        return of_tokens(one, outputs.shape[-1], outputs[..., 0].numel() if self.moved is None else len(self.moved))


def moving(chart: Chart) -> list[int]:
    """The tokens that move in a chart of states `[n, d]`."""
    if chart.point.dim() != 2:
        raise InputError(
            f'output="moved" needs states [n, d], of which tokens move; the chart is in a space of shape '
            f'{list(chart.point.shape)}: take output="all"'
        )
    return chart.basis.abs().sum((0, -1)).nonzero()[:, 0].tolist()


def seen(stack: Stack, family: Any, model: Model | None, prompt: Any) -> Stack:
    """The stack with its states read as the parameters of a family: of a model, by its own head.

    **Raises:** `InputError` for a head that is asked for without a model, `CheckpointError` where it has none.
    """
    if model is None:
        if isinstance(family, str):
            raise InputError(
                f"the family {family!r} is what the head of a model makes of states; give the model itself with its "
                "prompt, or one of ff.families, whose parameters the outputs are"
            )
        return stack.seen(Lens(None, family, ()))
    lens = Lens.of(model, family, model.encode(prompt), moving(stack.chart), stack.chart.point)
    return stack.seen(lens, named(family))


def in_memory(model: Model) -> bool:
    """Whether the weights of all blocks may be in memory at a time."""
    return not model.weights.lazy
