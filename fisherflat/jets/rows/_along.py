"""What an op reads of its arguments where some rows of its output are wanted, and the op that computes just these."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Node, mapped_leaves
from fisherflat.jets.ops import OPS, REDUCTIONS, SUMS

aten = torch.ops.aten

Rows = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """Some of an argument: of `whole`, the indices `rows` along an `axis`."""

    whole: Node | Tensor
    axis: int
    rows: Rows


@dataclass(frozen=True, eq=False)
class Op:
    """An op, and its arguments, among them `Part`s; without a target it is its only argument."""

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def whole(node: Node) -> Op:
    """The op of a node, reading no more than it needs."""
    if node.packet is aten.select:
        x, dim, index = node.args
        return Op(node.target, (Part(x, dim % len(x.shape), (index % x.shape[dim],)), dim, 0), node.kwargs)
    if node.packet is aten.slice:
        x, dim = node.args[:2]
        return Op(None, (Part(x, dim % len(x.shape), _sliced(node)),), {})
    if node.packet is aten.index_select and isinstance(node.args[2], Tensor):
        return _chosen(*node.args)
    if node.packet is aten.index and isinstance(node.args[0], Node):
        x, given = node.args
        chosen = [(dim, index) for dim, index in enumerate(given) if index is not None]
        if len(chosen) == 1 and isinstance(chosen[0][1], Tensor) and chosen[0][1].dim() == 1:
            dim, index = chosen[0]
            if index.dtype in (torch.int32, torch.int64):
                return _chosen(x, dim, index.long() % x.shape[dim])
    return Op(node.target, node.args, node.kwargs)


def _chosen(x: Node, dim: int, indices: Tensor) -> Op:
    """Entries of an axis in any order."""
    wanted = indices.tolist()
    at = {row: place for place, row in enumerate(sorted(set(wanted)))}
    part = Part(x, dim % len(x.shape), tuple(at))
    if wanted == list(at):
        return Op(None, (part,), {})
    return Op(aten.index_select.default, (part, dim, indices.new_tensor([at[row] for row in wanted])), {})


def along(node: Node, axis: int, rows: Rows) -> Op | None:
    """The op of a node for some of its `rows` along an axis; `None` where it does not work by these."""
    rule = _RULES.get(node.packet) or (_each if _by_entries(node) else None)
    return rule(node, axis, rows) if rule is not None else None


def _by_entries(node: Node) -> bool:
    op = OPS.get(node.packet)
    return op is not None and (op.kind == "function" or node.packet in _ENTRYWISE)


def _each(node: Node, axis: int, rows: Rows) -> Op:
    """Of ops of entries that belong together."""
    part = _broadcast(node, axis, rows)
    return Op(node.target, mapped_leaves(part, node.args), mapped_leaves(part, node.kwargs))


def _broadcast(node: Node, axis: int, rows: Rows) -> Callable[[Any], Any]:
    """What is read of an argument whose axes are broadcast to those of the output."""

    def part(leaf: Any) -> Any:
        at = axis - len(node.shape) + len(leaf.shape) if isinstance(leaf, (Node, Tensor)) else -1
        return leaf if at < 0 or leaf.shape[at] == 1 else Part(leaf, at, rows)

    return part


def _sized(node: Node, axis: int, rows: Rows) -> list[int]:
    return [len(rows) if at == axis else size for at, size in enumerate(node.shape)]


def _reshape(node: Node, axis: int, rows: Rows) -> Op | None:
    x, before = node.args[0], math.prod(node.shape[:axis])
    for at, size in enumerate(x.shape):
        if size == node.shape[axis] and math.prod(x.shape[:at]) == before:
            return Op(node.target, (Part(x, at, rows), _sized(node, axis, rows)), node.kwargs)
    return None


def _permute(node: Node, axis: int, rows: Rows) -> Op:
    x, dims = node.args
    return Op(node.target, (Part(x, dims[axis] % len(dims), rows), dims), node.kwargs)


def _expand(node: Node, axis: int, rows: Rows) -> Op:
    return Op(node.target, (_broadcast(node, axis, rows)(node.args[0]), _sized(node, axis, rows)), node.kwargs)


def _select(node: Node, axis: int, rows: Rows) -> Op:
    x, dim, index = node.args
    dim %= len(x.shape)
    return Op(node.target, (Part(x, axis + (axis >= dim), rows), dim, index), node.kwargs)


def _between(start: int | None = None, stop: int | None = None, step: int = 1) -> slice:
    return slice(start, stop, step)


def _sliced(node: Node) -> Rows:
    """Which indices a slice takes."""
    x, dim, *bounds = node.args
    return tuple(range(x.shape[dim])[_between(*bounds)])


def _slice(node: Node, axis: int, rows: Rows) -> Op:
    x, dim, *others = node.args
    if dim % len(x.shape) != axis:
        return Op(node.target, (Part(x, axis, rows), dim, *others), node.kwargs)
    taken = _sliced(node)
    return Op(None, (Part(x, axis, tuple(taken[row] for row in rows)),), {})


def _cat(node: Node, axis: int, rows: Rows) -> Op | None:
    things, dim = node.args[0], (node.args[1] if len(node.args) > 1 else 0)
    if dim % len(node.shape) != axis:
        return Op(node.target, ([Part(x, axis, rows) for x in things], dim), node.kwargs)
    if not all(isinstance(x, Node) for x in things):
        return None  # some of its rows might depend on nothing
    parts, start = list[Part](), 0
    for x in things:
        inside = tuple(row - start for row in rows if start <= row < start + x.shape[axis])
        parts += [Part(x, axis, inside)] if inside else []
        start += x.shape[axis]
    return Op(node.target, (parts, dim), node.kwargs)


def _reduced(node: Node, axis: int, rows: Rows) -> Op | None:
    x, dims, *kept = node.args if len(node.args) > 1 else (*node.args, None)
    over = {dim % len(x.shape) for dim in (dims if isinstance(dims, Sequence) else [dims]) if dim is not None}
    if not over:
        return None
    keeping = kept[0] if kept else node.kwargs.get("keepdim", False)
    at = axis if keeping else [dim for dim in range(len(x.shape)) if dim not in over][axis]
    return None if at in over else Op(node.target, (Part(x, at, rows), *node.args[1:]), node.kwargs)


def _softmax(node: Node, axis: int, rows: Rows) -> Op | None:
    x, dim, *others = node.args
    return None if dim % len(x.shape) == axis else Op(node.target, (Part(x, axis, rows), dim, *others), node.kwargs)


def _product(node: Node, axis: int, rows: Rows) -> Op:
    *summand, a, b = node.args
    rank, part = len(node.shape), _broadcast(node, axis, rows)
    left = a if axis == rank - 1 else Part(a, axis, rows)
    right = b if axis == rank - 2 else Part(b, axis, rows)
    return Op(node.target, (*map(part, summand), left, right), node.kwargs)


_RULES: dict[Any, Callable[[Node, int, Rows], Op | None]] = {
    aten.reshape: _reshape,
    aten.permute: _permute,
    aten.expand: _expand,
    aten.select: _select,
    aten.slice: _slice,
    aten.cat: _cat,
    aten._softmax: _softmax,
    aten._log_softmax: _softmax,
    aten.mm: _product,
    aten.bmm: _product,
    aten.addmm: _product,
    **dict.fromkeys(REDUCTIONS, _reduced),
}
_ENTRYWISE = SUMS | {aten.mul, aten.div, aten.pow, aten.neg, aten.where, aten.masked_fill, aten._to_copy}
