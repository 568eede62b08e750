"""Sums, products and extremes of consecutive pieces of an axis."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.recording.decompositions._table import decomposes

#: what a piece without entries comes to
_EMPTY = {"sum": 0.0, "mean": 0.0, "prod": 1.0, "max": -torch.inf, "min": torch.inf}


@decomposes("segment_reduce")
def _segment_reduce(
    x: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    indices: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Any:
    """Each row of the axes before `axis` has pieces of its own; `initial` takes part in each of them."""
    if indices is not None or (lengths is None and offsets is None):
        return NotImplemented
    if offsets is None:
        offsets = torch.nn.functional.pad(lengths.cumsum(-1), (1, 0))  # type: ignore[union-attr]
    bounds, rows = offsets.reshape(-1, offsets.shape[-1]), x.flatten(0, axis - 1) if axis else x[None]
    found = [
        torch.stack([_reduced(row[first:last], reduce, initial) for first, last in pairwise(b)])
        for row, b in zip(rows, bounds.tolist(), strict=True)
    ]
    return torch.stack(found).reshape(*x.shape[:axis], bounds.shape[1] - 1, *x.shape[axis + 1 :])


def _reduced(piece: Tensor, reduce: str, initial: float | None) -> Tensor:
    none = len(piece) == 0
    if none and initial is None and reduce == "mean":
        return piece.new_full(piece.shape[1:], torch.nan)
    start = piece.new_full((1, *piece.shape[1:]), _EMPTY[reduce] if initial is None else initial)
    entries = torch.cat([start, piece])
    if reduce in ("max", "min"):
        return entries.amax(0) if reduce == "max" else entries.amin(0)
    total = entries.prod(0) if reduce == "prod" else entries.sum(0)
    return total / len(piece) if reduce == "mean" and not none else total
