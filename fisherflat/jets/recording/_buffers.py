"""Memory that several tensors share: what is written through one of them is read through the others.

Each view knows the steps that lead to it from the tensor that the memory was made for. A write is carried back along
them, as the functional form of each step; the others find that their node is out of date, and take the steps anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Node

aten = torch.ops.aten
#: emits an op: a node where one is among its arguments, else its value; the last argument has the output's shape
Emit = Callable[[Any, tuple[Any, ...], Tensor], Any]

RENAMING = {aten.detach, aten.alias, aten.lift_fresh, aten.detach_copy, aten.alias_copy}
RESHAPING = {aten.view, aten._unsafe_view, aten.reshape, aten.view_copy, aten._reshape_alias, aten._reshape_copy}
RESHAPING |= {aten.unsqueeze, aten.unsqueeze_copy, aten.squeeze, aten.squeeze_copy, aten.flatten, aten.unflatten}
PERMUTING = {aten.t, aten.transpose, aten.permute, aten.t_copy, aten.transpose_copy, aten.permute_copy}
_INVERSES = {aten.reshape.default, aten.permute.default, aten.view_as_complex.default, aten.view_as_real.default}


@dataclass(eq=False)
class Buffer:
    """Some memory.

    **Attributes:** `root`, the real tensor that it was made for; `node`, what `root` holds, `None` where that is
    constant; `version`, counted up by writes; `external`, whether it was there before the call; `blank`, which entries
    of `root` have not been written yet, `None` where there are none.
    """

    root: Tensor
    node: Node | None
    external: bool = False
    version: int = 0
    blank: Tensor | None = None


@dataclass(eq=False)
class Step:
    """From a tensor to a view of it, `target(whole, *args)`; `back` is `None` where it cannot be written through."""

    target: Any
    args: tuple[Any, ...]
    before: Tensor
    after: Tensor
    back: Any = None
    back_args: tuple[Any, ...] = ()

    def taken(self, emit: Emit, whole: Any) -> Any:
        """The view of `whole`."""
        return whole if self.target is None else emit(self.target, (whole, *self.args), self.after)

    def written(self, emit: Emit, whole: Any, part: Any) -> Any:
        """`whole` with `part` where the view is."""
        if self.target is None:
            return part
        if self.back in _INVERSES:
            return emit(self.back, (part, *self.back_args), self.before)
        if self.back is aten.index_put.default:
            flat = emit(aten.reshape.default, (whole, [-1]), self.before.reshape(-1))
            part = emit(aten.reshape.default, (part, [-1]), self.after.reshape(-1))
            flat = emit(self.back, (flat, list(self.back_args), part), self.before.reshape(-1))
            return emit(aten.reshape.default, (flat, list(self.before.shape)), self.before)
        return emit(self.back, (whole, part, *self.back_args), self.before)


@dataclass(eq=False)
class View:
    """A tensor of the call: its real value, the memory that it lies in, and how it lies there."""

    value: Tensor
    buffer: Buffer
    steps: tuple[Step, ...] = ()
    _node: Any = field(default=None, repr=False)
    _version: int = -1

    @property
    def moves(self) -> bool:
        """Whether what it holds depends on the input."""
        return self.buffer.node is not None

    def symbol(self, emit: Emit) -> Any:
        """What it holds: a node, or the value itself where that is constant."""
        if self.buffer.node is None:
            return self.value
        if self._version != self.buffer.version:
            node: Any = self.buffer.node
            for step in self.steps:
                node = step.taken(emit, node)
            self.hold(node)
        return self._node

    def hold(self, node: Any) -> None:
        """Remember the node as long as nothing is written into the memory."""
        self._node, self._version = node, self.buffer.version

    def unwritten(self) -> Tensor | None:
        """Which of its entries have never been written, if any."""
        blank = self.buffer.blank
        if blank is None:
            return None
        return blank.as_strided(self.value.size(), self.value.stride(), self.value.storage_offset())

    def write(self, emit: Emit, symbol: Any, before: Tensor) -> bool:
        """Let it hold `symbol`; `before` is what the root held until now, where that was constant.

        Whether the memory can be written that way.
        """
        wholes: list[Any] = [self.buffer.node if self.buffer.node is not None else before]
        for step in self.steps:
            if step.target is not None and step.back is None:
                return False
            wholes.append(step.taken(emit, wholes[-1]))
        node = symbol
        for step, whole in zip(reversed(self.steps), reversed(wholes[:-1]), strict=True):
            node = step.written(emit, whole, node)
        self.buffer.node = node if isinstance(node, Node) else None
        self.buffer.version += 1
        self.hold(symbol)
        return True


def key(tensor: Tensor) -> int:
    """What a tensor and all views of it share."""
    return tensor.untyped_storage()._cdata


def step_to(packet: Any, args: Any, kwargs: Any, before: Tensor, after: Tensor, position: int) -> Step | None:
    """How a view lies in the tensor that it was taken of, `None` where no op says it for any memory layout.

    **Args:** `position`, of `after` among the outputs of the op.
    """
    if packet in RENAMING or (packet is aten.expand and after.shape == before.shape):
        return Step(None, (), before, after)
    if packet in RESHAPING and after.dtype == before.dtype:
        return Step(
            aten.reshape.default, (list(after.shape),), before, after, aten.reshape.default, (list(before.shape),)
        )
    if packet in PERMUTING:
        order = permutation(packet, args)
        undone = [order.index(axis) for axis in range(len(order))]
        return Step(aten.permute.default, (list(order),), before, after, aten.permute.default, (undone,))
    if packet in (aten.view_as_real, aten.view_as_complex):
        pair = (aten.view_as_real.default, aten.view_as_complex.default)
        there, back = pair if packet is aten.view_as_real else pair[::-1]
        return Step(there, (), before, after, back)
    if packet is aten.expand:
        return Step(aten.expand.default, (list(after.shape),), before, after)
    if packet is aten.slice:
        span = bounds(before, *args[1:], **kwargs)
        return Step(aten.slice.Tensor, span, before, after, aten.slice_scatter.default, span)
    if packet is aten.select:
        return Step(aten.select.int, args[1:], before, after, aten.select_scatter.default, args[1:])
    if packet in (aten.split, aten.unsafe_split, aten.split_with_sizes, aten.unsafe_split_with_sizes):
        axis = args[2] if len(args) > 2 else kwargs.get("dim", 0)
        length = before.shape[axis]
        given = args[1]
        sizes = given if isinstance(given, (list, tuple)) else [given] * (-(-length // given) if given else 1)
        start = sum(sizes[:position])
        span = bounds(before, axis, start, start + sizes[position])
        return Step(aten.slice.Tensor, span, before, after, aten.slice_scatter.default, span)
    if packet is aten.unbind:
        where = (args[1] if len(args) > 1 else kwargs.get("dim", 0), position)
        return Step(aten.select.int, where, before, after, aten.select_scatter.default, where)
    if packet is aten.diagonal:
        names = ("offset", "dim1", "dim2")
        given = {"offset": 0, "dim1": 0, "dim2": 1} | dict(zip(names, args[1:], strict=False)) | kwargs
        where = tuple(given[name] for name in names)
        return Step(aten.diagonal.default, where, before, after, aten.diagonal_scatter.default, where)
    return None


def step_in_memory(root: Tensor, after: Tensor) -> Gathered | None:
    """A view as a gather of entries of `root` by their place in memory, `None` where it sees other memory too."""
    if root.dtype != after.dtype or after.is_conj() != root.is_conj() or after.is_neg() != root.is_neg():
        return None
    places = torch.arange(root.untyped_storage().nbytes() // root.element_size(), device=root.device)
    entry = torch.full_like(places, -1)
    entry[places.as_strided(root.size(), root.stride(), root.storage_offset())] = torch.arange(
        root.numel(), device=root.device
    ).reshape(root.shape)
    index = entry[places.as_strided(after.size(), after.stride(), after.storage_offset())]
    if (index < 0).any():
        return None
    return Gathered(aten.index.Tensor, (), root, after, aten.index_put.default, (index.reshape(-1),))


class Gathered(Step):
    """A view that is read as a gather."""

    def taken(self, emit: Emit, whole: Any) -> Any:
        """The view of `whole`."""
        flat = emit(aten.reshape.default, (whole, [-1]), self.before.reshape(-1))
        part = emit(aten.index.Tensor, (flat, list(self.back_args)), self.after.reshape(-1))
        return emit(aten.reshape.default, (part, list(self.after.shape)), self.after)


def bounds(x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> tuple[int, int, int, int]:
    """The arguments of a slice, within the bounds of `x`: batched ops take no others."""
    start, end, _ = slice(start, end).indices(x.shape[dim])
    return dim, start, end, step


def permutation(packet: Any, args: tuple[Any, ...]) -> tuple[int, ...]:
    """The order of axes that an op of `PERMUTING` takes."""
    rank = args[0].dim()
    if packet in (aten.permute, aten.permute_copy):
        return tuple(dim % rank for dim in args[1])
    order = list(range(rank))
    if rank < 2:
        return tuple(order)
    a, b = (0, 1) if packet in (aten.t, aten.t_copy) else (args[1] % rank, args[2] % rank)
    order[a], order[b] = order[b], order[a]
    return tuple(order)


def no_entries(root: Tensor) -> Tensor:
    """A mask of `root` that lies in memory as it does, all false."""
    return torch.empty_strided(root.size(), root.stride(), dtype=torch.bool, device=root.device).fill_(False)
