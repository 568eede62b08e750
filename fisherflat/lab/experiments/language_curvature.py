"""How curved the attention layers of a language model are, with and without its gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fisherflat.lab.experiments.language import PROMPTS
from fisherflat.models import Model
from fisherflat.parts import readings

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

#: with nothing held; with the pattern held, where what is left is the gate's
READINGS = (readings.LIVE, readings.name(["pattern"]))


def in_memory(module: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, name: str) -> Model:
    """A causal language model as `fisherflat.load` would give it: its blocks in float64, with eager attention."""
    module.set_attn_implementation("eager")
    module.double().eval()
    return Model(module.base_model, tokenizer, name=name)


def attention_curvature(
    model: Model, prompts: Sequence[str] = PROMPTS, points: int = 4, layers: Sequence[int] | None = None
) -> pd.DataFrame:
    """The curvature of a language model's attention in each layer and reading, the last token of each prompt moving.

    **Returns:** a table with the columns `layer`, `reading`, `prompt` and `scalar_curvature`: the median of the scalar
    curvature's absolute value over the points of the chart (`fisherflat.analyze` says which), per mean variance of the
    layer's own outputs. A reading that holds what a layer does not have is left out.
    """
    from fisherflat.report import analyze

    options: dict[str, Any] = {"parts": ["attention"], "readings": list(READINGS), "positions": "last"}
    table = analyze(model, list(prompts), points=points, layers=layers, progress=False, **options).table
    table = table.assign(scalar_curvature=table.scalar_curvature.abs())
    return table.groupby(["layer", "reading", "prompt"], as_index=False, sort=False).scalar_curvature.median()


def by_layer(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """For each reading and layer the median over prompts of what `attention_curvature` found."""
    medians = table.groupby(["reading", "layer"]).scalar_curvature.median()
    return {
        reading: {str(layer): value for layer, value in medians[reading].items()}
        for reading in READINGS
        if reading in medians
    }
