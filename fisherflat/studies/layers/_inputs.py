"""What a study of layers says of its precision: digits by part."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch

from fisherflat.studies._journal import Row
from fisherflat.studies.layers._settings import Settings


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
