"""Affine ops on all coefficients of a series at once.

Such an op acts on each coefficient alone, and its constant summands enter the value only. In general that is a `vmap`
over coefficients and points; the ops that blocks are full of are written for coefficients directly, without its cost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from fisherflat.jets.engines._batched import batched
from fisherflat.jets.engines._fallback import padded
from fisherflat.jets.engines._writing import into
from fisherflat.jets.graph import Node
from fisherflat.jets.rules import Series, aligned

aten = torch.ops.aten


def applied(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], total: int) -> Tensor:
    """The op of `node`, affine in all its floating arguments together, as `total` coefficients `[C, P, *shape]`."""
    direct = DIRECT.get(node.packet)
    if direct is not None:
        return direct(node.shape, *args, **kwargs)
    leaves, structure = tree_flatten((args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Series))
    constant = _constant_summands(node, args, kwargs)
    over_points = tuple(isinstance(leaf, Series) for leaf in leaves)

    def call(*filled: Any) -> Tensor:
        full_args, full_kwargs = tree_unflatten(filled, structure)
        return node.target(*full_args, **full_kwargs)

    def rows(start: int, stop: int) -> Tensor:
        """All points of so many coefficients, as one long batch."""
        filled, points = [], 0
        for position, leaf in enumerate(leaves):
            if isinstance(leaf, Series):
                data = padded(leaf.data[start:stop], stop - start) if _is_real(leaf) else leaf.data[:1]
                points = data.shape[1]
                filled.append(data.expand(stop - start, *data.shape[1:]).flatten(0, 1))
            else:
                filled.append(_zero(leaf) if start > 0 and position in constant else leaf)
        return batched(node, call, over_points, filled).unflatten(0, (stop - start, points))

    if not constant:
        return rows(0, total)
    return torch.cat([rows(0, 1), rows(1, total)]) if total > 1 else rows(0, 1)


#: arguments that choose or scale entries; all other tensors, and numbers called `value`, are summands
_NO_SUMMANDS = {"index", "indices", "mask", "condition", "weight"}


def _constant_summands(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> set[int]:
    """Where, among the flattened arguments, the constant part of an affine op is."""
    names = [argument.name for argument in node.target._schema.arguments]
    found, position = set(), 0
    for name, argument in [*zip(names, args, strict=False), *kwargs.items()]:
        for leaf in tree_flatten(argument, is_leaf=lambda leaf: isinstance(leaf, Series))[0]:
            if isinstance(leaf, Tensor):
                is_summand = name not in _NO_SUMMANDS
            else:
                is_summand = name == "value" and isinstance(leaf, (int, float)) and leaf != 0
            if is_summand:
                found.add(position)
            position += 1
    return found


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, Series) and leaf.data.is_floating_point()


def _zero(leaf: Any) -> Any:
    return torch.zeros_like(leaf) if isinstance(leaf, Tensor) else 0


# -- ops of one series: `x` is [C, P, *shape] --------------------------------------------------------------------------


def _dims(dims: Any, rank: int) -> list[int]:
    """Dimensions of the value as dimensions of its coefficients."""
    if dims is None or (isinstance(dims, (tuple, list)) and not dims):
        dims = range(rank)
    return [d % max(rank, 1) + 2 for d in (dims if isinstance(dims, (tuple, list, range)) else [dims])]


def _dim(x: Tensor, dim: int) -> int:
    return _dims(dim, x.dim() - 2)[0]


def _of_one(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda shape, x, *args, **kwargs: function(x.data, shape, *args, **kwargs)


def _expand(x: Tensor, shape: tuple[int, ...], size: Any) -> Tensor:
    return aligned(x, len(shape)).expand(*x.shape[:2], *shape)


def _sum(x: Tensor, shape: tuple[int, ...], dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    return x.sum(_dims(dim, x.dim() - 2), keepdim) if x.dim() > 2 else x


def _mean(x: Tensor, shape: tuple[int, ...], dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    return x.mean(_dims(dim, x.dim() - 2), keepdim) if x.dim() > 2 else x


def _slice(
    x: Tensor, shape: tuple[int, ...], dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Tensor:
    return aten.slice.Tensor(x, _dim(x, dim), start, end, step)


def _pad(x: Tensor, shape: tuple[int, ...], pad: list[int], value: float = 0) -> Tensor:
    out = aten.constant_pad_nd(x, pad, 0)
    if value != 0:
        out[0] = aten.constant_pad_nd(x[0], pad, value)
    return out


# -- ops of several summands -------------------------------------------------------------------------------------------


def _rows(leaf: Any, like: Tensor, rank: int) -> Tensor:
    """Coefficients `[C, P, *shape]` of rank `rank`; a constant has one for all points."""
    if isinstance(leaf, Series):
        return aligned(leaf.data, rank)
    tensor = leaf if isinstance(leaf, Tensor) else like.new_tensor(leaf)
    return aligned(tensor[None, None], rank)


def _moving(*leaves: Any) -> Tensor:
    """The coefficients of the series of highest order."""
    return max((leaf.data for leaf in leaves if _is_real(leaf)), key=len)


def _put(target: Tensor, rows: Tensor) -> None:
    """Write coefficients, and zeros for those that are missing."""
    target[: len(rows)].copy_(rows)
    target[len(rows) :].zero_()


def _cat(shape: tuple[int, ...], pieces: Any, dim: int = 0) -> Tensor:
    like, start = _moving(*pieces), 0
    out = like.new_empty(*like.shape[:2], *shape)
    for piece in pieces:
        if tuple(piece.shape) == (0,):
            continue  # torch takes such a tensor beside any others
        rows = _rows(piece, like, len(shape))
        axis = _dim(rows, dim)
        _put(out.narrow(axis, start, rows.shape[axis]), rows)
        start += rows.shape[axis]
    return out


def _stack(shape: tuple[int, ...], pieces: Any, dim: int = 0) -> Tensor:
    like = _moving(*pieces)
    out = like.new_empty(*like.shape[:2], *shape)
    for position, piece in enumerate(pieces):
        _put(out.select(_dim(out, dim), position), _rows(piece, like, len(shape) - 1))
    return out


def _slice_scatter(
    shape: tuple[int, ...], x: Any, source: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Tensor:
    like = _moving(x, source)
    out = like.new_empty(*like.shape[:2], *shape)
    _put(out, _rows(x, like, len(shape)))
    _put(aten.slice.Tensor(out, _dim(out, dim), start, end, step), _rows(source, like, len(shape)))
    return out


def _select_scatter(shape: tuple[int, ...], x: Any, source: Any, dim: int, index: int) -> Tensor:
    like = _moving(x, source)
    out = like.new_empty(*like.shape[:2], *shape)
    _put(out, _rows(x, like, len(shape)))
    _put(out.select(_dim(out, dim), index), _rows(source, like, len(shape) - 1))
    return out


def _where(shape: tuple[int, ...], condition: Any, a: Any, b: Any) -> Tensor:
    like, rank = _moving(a, b), len(shape)
    out = like.new_empty(*like.shape[:2], *shape)
    choice, first, second = _rows(condition, like, rank)[0], _rows(a, like, rank), _rows(b, like, rank)
    shared = min(len(first), len(second))
    into(out[:shared], torch.where, choice, first[:shared], second[:shared])
    out[shared : len(first)].copy_(first[shared:]).masked_fill_(~choice, 0)
    out[shared : len(second)].copy_(second[shared:]).masked_fill_(choice, 0)
    return out


#: ATen op -> function(shape of the output, *args, **kwargs) with series for what moves
DIRECT: dict[Any, Callable[..., Tensor]] = {
    aten.reshape: _of_one(lambda x, shape, size: x.reshape(*x.shape[:2], *shape)),
    aten.permute: _of_one(lambda x, shape, dims: x.permute(0, 1, *(d + 2 for d in dims))),
    aten.expand: _of_one(_expand),
    aten.select: _of_one(lambda x, shape, dim, index: x.select(_dim(x, dim), index)),
    aten.slice: _of_one(_slice),
    aten.sum: _of_one(_sum),
    aten.mean: _of_one(_mean),
    aten.neg: _of_one(lambda x, shape: -x),
    aten.cumsum: _of_one(lambda x, shape, dim, dtype=None: x.cumsum(_dim(x, dim)) if x.dim() > 2 else x),
    aten.flip: _of_one(lambda x, shape, dims: x.flip(_dims(dims, x.dim() - 2)) if dims else x),
    aten.tril: _of_one(lambda x, shape, diagonal=0: x.tril(diagonal)),
    aten.triu: _of_one(lambda x, shape, diagonal=0: x.triu(diagonal)),
    aten.constant_pad_nd: _of_one(_pad),
    aten.cat: _cat,
    aten.stack: _stack,
    aten.slice_scatter: _slice_scatter,
    aten.select_scatter: _select_scatter,
    aten.where: _where,
    aten.masked_fill: lambda shape, x, mask, value: _where(shape, mask, value, x),
}
