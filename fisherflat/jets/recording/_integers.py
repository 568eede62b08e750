"""Integers and booleans that depend on the input: rules read them as real numbers, so they must never wrap round."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fisherflat.errors import TraceError
from fisherflat.jets.graph import Node, getitem, leaves
from fisherflat.jets.recording._tape import Tape, plainly

aten = torch.ops.aten

_KINDS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
#: what a cast of a real number to `torch.int64` may hold: larger ones balls refuse to cast
_CAST = 2.0**53
#: ops that move entries, choose among them or fill them in
_MOVING_ENTRIES = {
    aten.reshape, aten.view, aten.permute, aten.expand, aten.select, aten.slice, aten.cat, aten.stack, aten.index,
    aten.gather, aten.index_select, aten.where, aten.clone, aten._to_copy, aten.neg, aten.abs, aten.flip, aten.amax,
    aten.amin, aten.maximum, aten.minimum, aten.diagonal, aten.unsqueeze, aten.squeeze, aten.slice_scatter,
    aten.select_scatter, aten.max, aten.min, aten.scatter, aten.index_put, aten.index_copy, aten.index_fill,
    aten.masked_fill, aten.constant_pad_nd, aten.repeat, aten.roll, aten.tril, aten.triu, aten.clamp, aten.clamp_min,
    aten.clamp_max, aten.floor, aten.ceil, aten.round, aten.trunc, aten.t, aten.transpose, aten.unbind, aten.split,
    aten.alias, aten.detach, aten.view_as, aten.copy,
}  # fmt: skip
#: ops whose first argument alone is what they choose from
_CHOOSING = {aten.index, aten.gather, aten.index_select}
#: what is no larger than twice the largest argument and one
_BOUNDED = {
    aten.floor_divide, aten.div, aten.remainder, aten.fmod, aten.sign, aten.sgn, aten.gcd, aten.bitwise_and,
    aten.bitwise_or, aten.bitwise_xor, aten.bitwise_not, aten.bitwise_right_shift, aten.__rshift__,
}  # fmt: skip
_COUNTING = {aten.count_nonzero, aten.argmax, aten.argmin, aten.argsort, aten.bucketize, aten.searchsorted}
_TRUTHS = {
    aten.lt, aten.le, aten.gt, aten.ge, aten.eq, aten.ne, aten.logical_and, aten.logical_or, aten.logical_xor,
    aten.logical_not, aten.any, aten.all, aten.isnan, aten.isinf, aten.isposinf, aten.isneginf, aten.isfinite,
    aten.isreal, aten.isin, aten.signbit,
}  # fmt: skip
#: ops that are logic where they are of booleans, and arithmetic or bits of integers else
OF_TRUTHS = {
    aten.add: aten.logical_or, aten.mul: aten.logical_and, aten.bitwise_and: aten.logical_and,
    aten.bitwise_or: aten.logical_or, aten.bitwise_xor: aten.logical_xor, aten.bitwise_not: aten.logical_not,
}  # fmt: skip


class Integers:
    """What may be done with the integers and booleans of a tape, in ops that are exact on real numbers."""

    def __init__(self, tape: Tape) -> None:
        self._dtypes = tape.dtypes
        self._sizes: dict[Node, float] = {}

    def form(self, node: Node) -> Callable[..., Any]:
        """The op of `node` with integers as torch has them.

        **Raises:** `TraceError` for integers of a narrow type that could leave its range.
        """
        kind = self._dtypes.get(node)
        if kind in _KINDS and self.size(node) > torch.iinfo(kind).max:
            raise TraceError(
                f"{node.op} at {node.source} makes {kind} of what depends on the input, which may wrap round; use "
                + ("real numbers" if kind == torch.int64 else "torch.int64")
            )
        if kind == torch.bool and self.size(node) > 1:
            raise TraceError(f"{node.op} of booleans at {node.source} has no rule; write that step in real numbers")
        if kind == torch.bool and node.packet in OF_TRUTHS:
            return lambda *args, **kwargs: OF_TRUTHS[node.packet](*map(_truth, args))
        asked = node.kwargs.get("dtype")
        if isinstance(asked, torch.dtype) and not asked.is_floating_point and node.packet is not aten._to_copy:
            return lambda x, *args, dtype, **kwargs: node.target(x.to(dtype), *args, **kwargs)
        return lambda *args, **kwargs: plainly(node, args, kwargs)

    def size(self, thing: Any) -> float:
        """A bound of the absolute value of a constant, or of what a node of integers or booleans may hold."""
        if isinstance(thing, Tensor):
            return float(thing.abs().max()) if thing.numel() and thing.dtype != torch.bool else 1.0
        if isinstance(thing, (bool, int, float)):
            return abs(float(thing))
        if not isinstance(thing, Node):
            return 0.0
        if thing not in self._sizes:
            self._sizes[thing] = self._bound(thing)
        return self._sizes[thing]

    def _bound(self, node: Node) -> float:
        kind, packet = self._dtypes.get(node), node.packet
        if kind is None or kind.is_floating_point or kind.is_complex or node.target is None:
            return math.inf
        if kind == torch.bool and (packet in _TRUTHS or packet in OF_TRUTHS or packet is aten._to_copy):
            return 1.0
        if node.target is getitem:  # places, ranks and flags that an op of real numbers gives beside its values
            places = float(max((math.prod(source.shape) for source in node.args[0].inputs), default=1))
            return max(places, *(self.size(source) for source in node.args[0].inputs if not self._is_real(source)), 1.0)
        if packet in (aten.add, aten.sub, aten.rsub, aten.mul):
            if kind == torch.uint8 and packet in (aten.sub, aten.rsub):
                return math.inf
            a, b = map(self.size, node.args[:2])
            alpha = self.size(node.kwargs.get("alpha", 1))
            return a * b if packet is aten.mul else a + alpha * b if packet is not aten.rsub else alpha * a + b
        if packet in (aten.sum, aten.cumsum):
            return self.size(node.args[0]) * math.prod(node.args[0].shape)
        if packet in (aten.prod, aten.cumprod):
            return self.size(node.args[0]) ** math.prod(node.args[0].shape)
        if packet in (aten.mm, aten.bmm, aten.mv, aten.dot):
            a, b = node.args
            return self.size(a) * self.size(b) * a.shape[-1]
        if packet is aten.pow and isinstance(node.args[1], int):
            return float(self.size(node.args[0])) ** abs(node.args[1])
        if packet is aten._to_copy and kind == torch.int64 and self._is_real(node.args[0]):
            return _CAST
        if packet in _MOVING_ENTRIES and not _accumulates(node) and not (kind == torch.uint8 and packet is aten.neg):
            if kind == torch.bool:
                return 1.0
            read = node.args[:1] if packet in _CHOOSING else (node.args, node.kwargs)
            return max(self.size(leaf) for leaf in leaves(read) if isinstance(leaf, (Node, Tensor, int)))
        if packet in _BOUNDED:
            return 1 + 2 * max(map(self.size, node.args[:2]))
        # of real numbers come places and counts, as they do of integers by some ops
        counts = packet in _COUNTING or all(map(self._is_real, node.inputs))
        return _CAST if kind == torch.int64 and counts else math.inf

    def _is_real(self, node: Node) -> bool:
        return node in self._dtypes and self._dtypes[node].is_floating_point


def _accumulates(node: Node) -> bool:
    """Whether what comes to one place is added up there."""
    return "reduce" in node.kwargs or (
        node.packet is aten.index_put and any(x is True for x in (*node.args[3:], *node.kwargs.values()))
    )


def _truth(leaf: Any) -> Tensor:
    return leaf if isinstance(leaf, Tensor) else torch.tensor(bool(leaf))
