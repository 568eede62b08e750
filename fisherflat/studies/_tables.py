"""What a study says of tables that the model computed in single precision."""

from __future__ import annotations

from itertools import islice

import torch

from fisherflat._typing import Tensor
from fisherflat.geometry import StatisticalManifold
from fisherflat.jets.graph import Graph
from fisherflat.models import Encoded, Model, Part
from fisherflat.spaces.charts import principal
from fisherflat.spaces.families import Gaussian

#: at how many points, within a unit of the chart, it is looked how much tables matter
_POINTS = 4


def about_tables(model: Model, prompt: Encoded, first: tuple[Part, Graph] | None = None) -> list[str]:
    """How much the tables matter that a model computes and does not store, measured on its first layer.

    They have the digits of the format that they were computed in, mostly float32, whatever everything else is computed
    in. No error of a curvature shows it: it would be another map.

    **Args:** `first`: the attention of that layer on the prompt and its trace, where they were made already.
    """
    tables = model.tables
    if not tables:
        return []
    try:
        plain = _curvature(*(first or [_first_attention(model, prompt)]))
        with model.tables_rounded_anew():
            other = _curvature(_first_attention(model, prompt))
    except Exception:  # what cannot be measured here has said so in a row
        return []
    change = ((other - plain).abs() / plain.abs()).nan_to_num(nan=0.0).amax().item()
    named = f"{tables[0]}{f' and {len(tables) - 1} more' if len(tables) > 1 else ''}"
    if not change:  # none of them enters there
        return []
    of = min(model.rounded.values(), default="float32")
    return [
        f"Tables that {model.name} computes ({named}) have the digits of {of}. Rounding them differently changes the "
        f"scalar curvature of the attention of layer 0 by up to {change:.0e} of its value, at {_POINTS} points about "
        "the last token of the first prompt."
    ]


def _first_attention(model: Model, prompt: Encoded) -> Part:
    """That of the first layer, the model run anew."""
    model.weights.release()
    return next(iter(islice(model.blocks(prompt, stop=1), 1))).attention


def _curvature(attention: Part, graph: Graph | None = None) -> Tensor:
    """The scalar curvature of an attention, by its trace where there is one, at a few points."""
    chart, family = principal(attention.input.double(), -1, 2), Gaussian.calibrated(attention(attention.input))
    manifold = StatisticalManifold(attention if graph is None else graph, chart, family, degenerate="nan")
    u = torch.rand(_POINTS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    return manifold.scalar_curvature(u)
