"""Reductions into places that an index names, and others of whole slices."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.recording.decompositions._table import decomposes

NEUTRAL = {"prod": 1.0, "amax": -math.inf, "amin": math.inf}


@decomposes("scatter_reduce")
def _scatter_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A mask says which entries of the source go to which place."""
    if x.dim() == 0:
        args = (x.reshape(1), 0, index.reshape(-1), source.reshape(-1), reduce)
        return _scatter_reduce(*args, include_self=include_self).reshape(())
    dim %= x.dim()
    # an index may be shorter than what it writes into, but for the axis along which it does
    touched, sizes = x, list(index.shape)
    sizes[dim] = x.shape[dim]
    for axis, size in enumerate(sizes):
        touched = touched.narrow(axis, 0, size)
    for axis, size in enumerate(index.shape):
        source = source.narrow(axis, 0, size)
    places, into, given = (t.movedim(dim, -1) for t in (index, touched, source))
    mask = places.unsqueeze(-2) == torch.arange(into.shape[-1], device=x.device).unsqueeze(-1)  # [..., place, entry]
    count = mask.sum(-1)
    if reduce in ("sum", "mean"):
        total = torch.zeros_like(into).scatter_add(-1, places, given)
        reduced = total + into if include_self else total
        reduced = reduced / (count + include_self).clamp_min(1) if reduce == "mean" else reduced
    else:
        each = torch.where(mask, given.unsqueeze(-2), NEUTRAL[reduce])
        if not each.shape[-1]:
            return x
        reduced = each.prod(-1) if reduce == "prod" else each.amax(-1) if reduce == "amax" else each.amin(-1)
        if include_self:
            join = {"prod": torch.mul, "amax": torch.maximum, "amin": torch.minimum}[reduce]
            reduced = join(into, reduced)
    if not include_self:
        reduced = torch.where(count > 0, reduced, into)
    return _placed(x, reduced.movedim(-1, dim))


def _placed(x: Tensor, part: Tensor) -> Tensor:
    """`x` with the entries at the beginning of each axis replaced."""
    for axis, size in enumerate(part.shape):
        if size != x.shape[axis]:
            return x.slice_scatter(_placed(x.narrow(axis, 0, size), part), axis, 0, size)
    return part


@decomposes("scatter.reduce", "scatter.value_reduce")
def _scatter_with(x: Tensor, dim: int, index: Tensor, source: Any, *, reduce: str) -> Tensor:
    if not isinstance(source, Tensor):
        source = torch.full(index.shape, source, dtype=x.dtype, device=x.device)
    return _scatter_reduce(x, dim, index, source, {"add": "sum", "multiply": "prod"}[reduce])


@decomposes("index_reduce")
def _index_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    shape = [1] * source.dim()
    if source.dim():
        shape[dim] = -1
    return _scatter_reduce(x, dim, index.reshape(shape).expand(source.shape), source, reduce, include_self=include_self)


@decomposes("ldexp")
def _ldexp(x: Tensor, exponent: Tensor) -> Tensor:
    return x * torch.exp2(exponent)
