"""What is studied: maps and a chart, given, or a model's blocks on a prompt and what moves in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fisherflat.errors import InputError
from fisherflat.models import Block, Encoded, Model
from fisherflat.models.moves import Moves, Position, Principal, tokens
from fisherflat.spaces.charts import Chart
from fisherflat.studies.depth._stack import Map


@dataclass(frozen=True, eq=False)
class OnPrompt:
    """A model's blocks on a prompt, and the chart in which some of its tokens move where they enter the first block."""

    prompt: Encoded
    position: Position
    blocks: Sequence[Block]
    chart: Chart


def on_prompt(model: Model, prompt: Any, moves: Moves, where: int | str | None = None) -> OnPrompt:
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


def subject(
    blocks: Model | Map | Sequence[Map], chart: Chart | None, prompt: Any
) -> tuple[Map | Sequence[Map], Chart, bool]:
    """Maps, chart, and whether their graphs may all stay in memory; of a model with the chart that it has by default.

    **Raises:** `InputError` for a model without a prompt, or maps without a chart.
    """
    if not isinstance(blocks, Model):
        if chart is None or prompt is not None:
            raise InputError("blocks need a chart, and take no prompt; a model from fisherflat.load takes one")
        return blocks, chart, True
    if prompt is None:
        raise InputError("a model needs a prompt: give one as prompt=, text or token ids")
    if chart is not None:
        return blocks.blocks(prompt), chart, in_memory(blocks)
    found = on_prompt(blocks, prompt, Principal())
    return found.blocks, found.chart, in_memory(blocks)


def in_memory(model: Model) -> bool:
    """Whether the weights of all blocks may be in memory at a time."""
    return not model.weights.lazy
