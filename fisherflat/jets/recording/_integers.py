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

_NARROW = (torch.uint8, torch.int8, torch.int16, torch.int32)
_MOVING_ENTRIES = {
    aten.reshape, aten.view, aten.permute, aten.expand, aten.select, aten.slice, aten.cat, aten.stack, aten.index,
    aten.gather, aten.index_select, aten.where, aten.clone, aten._to_copy, aten.neg, aten.abs, aten.flip, aten.amax,
    aten.amin, aten.maximum, aten.minimum, aten.diagonal, aten.unsqueeze, aten.squeeze, aten.slice_scatter,
    aten.select_scatter, aten.max, aten.min,
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
        if kind in _NARROW and self.size(node) > torch.iinfo(kind).max:
            raise TraceError(
                f"{node.op} at {node.source} makes {kind} of what depends on the input, which may wrap round; use "
                "torch.int64"
            )
        if kind == torch.bool and node.packet in (aten.add, aten.mul):
            logical = aten.logical_or if node.packet is aten.add else aten.logical_and
            return lambda a, b, **kwargs: logical(*map(_truth, (a, b)))
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
        kind = self._dtypes.get(node)
        if kind == torch.bool:
            return 1.0
        if kind is None or kind.is_floating_point or kind.is_complex or node.target is None:
            return math.inf
        packet = node.packet
        if node.target is getitem:  # places, ranks and flags that an op of real numbers gives beside its values
            return float(max((math.prod(source.shape) for source in node.args[0].inputs), default=1))
        if packet in (aten.add, aten.sub, aten.mul):
            if kind == torch.uint8 and packet is aten.sub:
                return math.inf
            a, b = map(self.size, node.args[:2])
            return a * b if packet is aten.mul else a + self.size(node.kwargs.get("alpha", 1)) * b
        if packet in (aten.sum, aten.cumsum):
            return self.size(node.args[0]) * math.prod(node.args[0].shape)
        if packet in _MOVING_ENTRIES and not (kind == torch.uint8 and packet is aten.neg):
            given = [leaf for leaf in leaves(node.args) if isinstance(leaf, (Node, Tensor))]
            return max(
                map(self.size, given if packet not in (aten.index, aten.gather, aten.index_select) else given[:1])
            )
        return math.inf


def _truth(leaf: Any) -> Tensor:
    return leaf if isinstance(leaf, Tensor) else torch.tensor(bool(leaf))
