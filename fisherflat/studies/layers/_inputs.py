"""What a study says of its precision: digits by part, and tables that the model computed in single precision."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import islice

import torch

from fisherflat._typing import Tensor
from fisherflat.geometry import StatisticalManifold
from fisherflat.spaces.charts import principal
from fisherflat.spaces.families import Gaussian
from fisherflat.studies._journal import Row
from fisherflat.studies.layers._settings import Settings
from fisherflat.studies.layers._study import Study

#: at how many points, within a unit of the chart, it is looked how much tables matter
_POINTS = 4


def about_digits(rows: Sequence[Row], settings: Settings) -> list[str]:
    """How many digits of the scalar curvatures are right in each part, where that is not what is usual."""
    if settings.dtype == torch.float64 and settings.engine == "taylor":
        return []
    how = "in float32" if settings.dtype == torch.float32 else f"by the {settings.engine} engine"
    by_part: dict[str, list[float]] = {}
    for row in rows:
        if row.get("verdict") is None:
            continue
        value, error = abs(row["scalar_curvature"]), row["scalar_curvature_error"]
        if value > 0:
            part = "heads" if row["part"].startswith("head ") else row["part"]
            by_part.setdefault(part, []).append(-math.log10(max(error / value, 1e-17)))
    if not by_part:
        return [f"Computed {how}: every scalar curvature is zero."]
    medians = {part: max(statistics.median(digits), 0) for part, digits in by_part.items()}
    said = ", ".join(f"{digits:.0f} in {_NAMES.get(part, part)}" for part, digits in medians.items())
    return [f"Computed {how}: digits of the scalar curvature that are right, in the median: {said}."]


_NAMES = {"mlp": "MLPs", "block": "whole blocks"}


def about_tables(work: Study) -> list[str]:
    """How much the tables matter that a model computes and does not store, measured on its first layer.

    They have the digits of the format that they were computed in, mostly float32, whatever everything else is computed
    in. No error of a curvature shows it: it would be another map.
    """
    model = work.model
    tables = model.tables
    if not tables:
        return []
    work.forget()  # of a model whose weights stay on disk no more than a block at a time
    try:
        plain = _first_layer(work)
        with model.tables_rounded_anew():
            other = _first_layer(work)
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


def _first_layer(work: Study) -> Tensor:
    """The scalar curvature of the attention of the first layer at a few points, the model run anew."""
    work.model.weights.release()
    attention = next(iter(islice(work.model.blocks(work.prompts[0], stop=1), 1))).attention
    chart = principal(attention.input.double(), -1, 2)
    manifold = StatisticalManifold(attention, chart, Gaussian.calibrated(attention(attention.input)), degenerate="nan")
    u = torch.rand(_POINTS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    return manifold.scalar_curvature(u)
