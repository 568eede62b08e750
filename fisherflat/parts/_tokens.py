"""Which token each entry of a node belongs to.

The rows of the input (its last axis but one) are numbered, and the numbers are carried along: entries that are moved
take theirs with them, a product with constants keeps those of its rows, a product of two moving matrices those of the
left operand's rows and of the right one's columns, and what is summed over an axis keeps those that are the same along
it. So the scores of queries `i` and keys `t` have two numberings, that of `i` and that of `t`, and a product over the
token axis is one whose two operands have the same numbering along the axis that is summed.

Of two numberings that vary along the same axes the later one counts: `x_t + x_(t-1)` belongs to token `t`, and so do
values of which some heads are of `x_t` and others of `x_(t-1)`. Rows that have no number, because the input is a vector
or they were mixed in an unknown way, are numbered where the next product with constants applies the same weights to
each of them, a single one too: it may be the only query. The columns of such a product are numbered as well, with the
constant as their origin: they are the keys or queries of another input, should that constant be made of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Graph, Node, Origin, leaves, mapped_leaves
from fisherflat.jets.ops import IN_PLACE, MATRIX_PRODUCTS, REDUCTIONS, STRUCTURAL, SUMS

aten = torch.ops.aten

#: constants that take their shape from what moves
_FILLED = {getattr(aten, f"new_{name}") for name in ("empty", "empty_strided", "zeros", "ones", "full")}
_FILLED |= {getattr(aten, f"{name}_like") for name in ("empty", "zeros", "ones", "full")}
#: more numberings than this say nothing that would be asked
_MOST = 4


@dataclass(frozen=True, eq=False)
class Numbering:
    """The token of each entry, -1 for none: of the map's own input, or of another of that origin.

    **Attributes:** `rows`, integers of the node's shape; `origin`, `None` for the map's own input.
    """

    rows: Tensor
    origin: Origin | None = None

    @cached_property
    def dims(self) -> frozenset[int]:
        """The axes along which it varies."""
        return frozenset(dim for dim in range(self.rows.dim()) if _varies(self.rows, dim))

    def along(self, dim: int) -> Tensor | None:
        """The numbers along an axis where they vary along it, and the same way at all places; else `None`."""
        dim %= self.rows.dim()
        if dim not in self.dims:
            return None
        return self.rows.movedim(dim, -1)


class Tokens:
    """The numberings of the nodes of a graph; `sources` as `fisherflat.parts.moving` gives them."""

    def __init__(self, graph: Graph, sources: dict[Node, list[Node]]) -> None:
        self._sources, self._origins, self._input = sources, graph.origins, graph.input
        self._of: dict[Node, list[Numbering]] = {}
        self._mixed: set[Node] = set()
        self._filled: set[Node] = set()  # constants of which the input gives the shape alone
        for node in graph.nodes:
            if node.packet in _FILLED or (node.inputs and self._filled.issuperset(node.inputs)):
                self._filled.add(node)
            self._of[node] = self._numbered(node)
            if self._mixes(node) or (self._carries(node) and any(source in self._mixed for source in sources[node])):
                self._mixed.add(node)

    def own(self, node: Node) -> list[Numbering]:
        """By the tokens of the map's input: one for a row of hidden states, two for a score."""
        return [numbering for numbering in self._of[node] if numbering.origin is None]

    def other(self, node: Node) -> list[Numbering]:
        """By the rows of other inputs, which are constants."""
        return [numbering for numbering in self._of[node] if numbering.origin is not None]

    def origin(self, constant: Any) -> Origin | None:
        """What a constant was made of."""
        return self._origins.get(id(constant))

    def shared(self, left: Node, right: Node, dims: tuple[int, int] = (-1, -2)) -> bool:
        """Whether entries of two nodes that meet along an axis of each belong to the same tokens there."""
        return any(
            _agree(a.along(dims[0]), b.along(dims[1])) for a in self.own(left) for b in self.own(right)
        )  # fmt: skip

    def mixed(self, node: Node) -> bool:
        """Whether it is a sum over tokens, or of terms of different tokens, moved and scaled by constants at most."""
        return node in self._mixed

    def _carries(self, node: Node) -> bool:
        alone = len(self._sources[node]) == 1 and node.packet in (aten.mul, aten.div, aten.neg)
        return alone or node.packet in SUMS | STRUCTURAL | REDUCTIONS

    def _mixes(self, node: Node) -> bool:
        if node.target is None or not self._sources[node]:
            return False
        if node.packet in (aten.cumsum, aten.convolution):
            return True
        if node.packet in REDUCTIONS:
            return any(n.dims & reduced(node) for n in self.own(self._sources[node][0]))
        if node.packet in MATRIX_PRODUCTS:
            sides = [(side, dim) for side, dim in zip(node.args[-2:], (-1, -2), strict=True) if isinstance(side, Node)]
            return any(n.along(dim) is not None for side, dim in sides for n in self.own(side))
        kept = self.own(node)
        before = [n for source in dict.fromkeys(self._sources[node]) for n in self.own(source)]
        return node.packet in SUMS and any(
            not any(torch.equal(n.rows.expand(node.shape), k.rows) for k in kept) for n in before
        )

    # -- one node after another ----------------------------------------------------------------------------------------

    def _numbered(self, node: Node) -> list[Numbering]:
        if node.target is None:
            return [_rows(node.shape, -2)] if len(node.shape) > 1 and node.shape[-2] > 1 else []
        if not self._sources[node] or (node.shape and isinstance(node.shape[0], tuple)):
            return []
        if node.packet in MATRIX_PRODUCTS:
            return self._of_product(node)
        if node.packet is aten.convolution:  # along the last axis
            return [_rows(node.shape, -1)] if node.shape[-1] > 1 else []
        if node.packet in STRUCTURAL - IN_PLACE:
            return self._of_moved(node)
        if node.packet in REDUCTIONS:
            return self._of_reduced(node)
        shapes = [leaf.shape for leaf in leaves((node.args, node.kwargs)) if isinstance(leaf, (Node, Tensor))]
        try:
            kept = tuple(node.shape) == tuple(torch.broadcast_shapes(*shapes))
        except (RuntimeError, TypeError):
            kept = False
        if kept or node.packet in IN_PLACE:
            return _merged([self._expanded(n, node) for n in self._of[s]] for s in self._sources[node])
        return []

    def _expanded(self, numbering: Numbering, node: Node) -> Numbering:
        return Numbering(numbering.rows.expand(node.shape), numbering.origin)

    def _of_product(self, node: Node) -> list[Numbering]:
        left, right = node.args[-2:]
        groups: list[list[Numbering]] = []
        for operand, summed, kept in ((left, -1, -2), (right, -2, -1)):
            if not isinstance(operand, Node) or not (operand is self._input or self._sources[operand]):
                continue
            if len(operand.shape) < 2 or not operand.shape[summed]:  # an empty sum is constant
                return []
            own = [n for n in self._of[operand] if n.along(summed) is None]
            found = [_over(n, summed, node) for n in own]
            groups.append(found)
            constant = right if operand is left else left
            if isinstance(constant, Node):
                continue
            if not any(n.origin is None and n.along(kept) is not None for n in own):
                if node.shape[kept] > 1:
                    found[:] = [n for n in found if n.dims]  # they are the tokens, and no longer one of others
                if node.shape[kept] > 1 or not any(n.origin is None for n in own):
                    found.append(_rows(node.shape, kept))
            columns = -3 - kept  # the axis that comes from the constant
            origin = self._origins.get(id(constant))
            if origin is not None and node.shape[columns] > 1:
                found.append(_rows(node.shape, columns, origin))
        return _merged(groups)

    def _of_moved(self, node: Node) -> list[Numbering]:
        sources = [source for source in dict.fromkeys(self._sources[node]) if torch.Size(source.shape).numel()]
        found = []
        for kind in (self.own, self.other):
            for here in _matched({source: kind(source) for source in sources}):
                try:
                    rows = _run_on_numbers(node, {source: n.rows for source, n in here.items()}, self._filled)
                except (RuntimeError, TypeError, IndexError, NotImplementedError, KeyError):
                    return []
                if tuple(rows.shape) != tuple(node.shape):
                    return []
                found.append(Numbering(_compact(rows), _common([n.origin for n in here.values()])))
        return found

    def _of_reduced(self, node: Node) -> list[Numbering]:
        (source, *_) = self._sources[node]
        dims = reduced(node)
        found = []
        for numbering in self._of[source]:
            if numbering.dims & dims:
                continue
            rows = numbering.rows
            for dim in sorted(dims, reverse=True):
                rows = rows.narrow(dim, 0, 1)
                rows = rows if len(node.shape) == len(source.shape) else rows.squeeze(dim)
            found.append(Numbering(rows, numbering.origin))
        return found


def reduced(node: Node) -> frozenset[int]:
    """The axes of its operand that a reduction sums over."""
    rank = len(node.inputs[0].shape)
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    if not rank or dims is None or (isinstance(dims, (tuple, list)) and not dims):
        return frozenset(range(rank))
    return frozenset(dim % max(rank, 1) for dim in ([dims] if isinstance(dims, int) else dims))


def _rows(shape: tuple[int, ...], dim: int, origin: Origin | None = None) -> Numbering:
    """Numbers along one axis."""
    ones = [1] * len(shape)
    ones[dim] = shape[dim]
    return Numbering(torch.arange(shape[dim]).reshape(ones).expand(shape), origin)


def _over(numbering: Numbering, summed: int, node: Node) -> Numbering:
    """That of a product over an axis along which it does not vary."""
    return Numbering(numbering.rows.narrow(summed, 0, 1).expand(node.shape), numbering.origin)


def _matched(numberings: dict[Node, list[Numbering]]) -> list[dict[Node, Numbering]]:
    """The numberings of operands that are joined, those together that number the same: in order, or by their axes."""
    most = max(map(len, numberings.values()), default=0)
    if all(len(found) == most for found in numberings.values()):
        return [{node: found[place] for node, found in numberings.items()} for place in range(most)]
    richest = next(found for found in numberings.values() if len(found) == most)
    return [
        {node: n for node, found in numberings.items() for n in found if n.dims == leading.dims}
        for leading in richest
    ]  # fmt: skip


def _run_on_numbers(node: Node, rows: dict[Node, Tensor], filled: set[Node]) -> Tensor:
    """An op that moves entries, on the numbers of the entries; what it fills in has none."""
    joins = node.packet in (aten.cat, aten.stack)

    def given(leaf: Any) -> Any:
        if isinstance(leaf, Node) and leaf not in rows and (joins or leaf in filled):
            return torch.full((), -1).expand(leaf.shape)
        if isinstance(leaf, Node):
            return rows[leaf]
        if isinstance(leaf, Tensor) and leaf.is_floating_point():
            return torch.full((), -1).expand(leaf.shape)
        return -1 if isinstance(leaf, float) else leaf

    if node.packet is aten.constant_pad_nd:
        return torch.constant_pad_nd(rows[node.args[0]], node.args[1], -1)
    numbered = mapped_leaves(given, (node.args, node.kwargs))
    return node.target(*numbered[0], **numbered[1])


def _merged(groups: Iterable[list[Numbering]]) -> list[Numbering]:
    """Those of several operands without repetitions; of two that vary along the same axes the later one."""
    found: list[Numbering] = []
    for group in groups:
        fresh = [new for new in group if not any(_same(new, old) for old in found)]
        free = [place for place, old in enumerate(found) if not any(_same(new, old) for new in group)]
        for new in fresh:
            place = next((p for p in free if _alike(new, found[p])), None)
            if place is None:
                found.append(new)
            elif new.origin is None:
                found[place] = Numbering(torch.maximum(found[place].rows, new.rows))
    return found[:_MOST]


def _same(a: Numbering, b: Numbering) -> bool:
    return _alike(a, b) and (a.origin is not None or torch.equal(a.rows, b.rows))


def _alike(a: Numbering, b: Numbering) -> bool:
    """Whether they vary along the same axes."""
    return (a.origin is None) is (b.origin is None) and a.dims == b.dims


def _common(origins: list[Origin | None]) -> Origin | None:
    first = origins[0]
    for origin in origins[1:]:
        if first is not None and origin is not None:
            first = Origin(first.leaves & origin.leaves, first.projected and origin.projected)
    return first


def _agree(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two rows of numbers, at any places, are the same wherever both have some."""
    if a is None or b is None or a.shape[-1] != b.shape[-1]:
        return False
    a, b = (_without_copies(rows).flatten(0, -2).unique(dim=0) for rows in (a, b))
    if len(a) == 1:  # as in a sum, the later token counts where some heads or features are of tokens before
        b = b.amax(0, keepdim=True)
    if len(a) != len(b):
        return False
    return bool(((a == b) | (a < 0) | (b < 0)).all() and ((a >= 0) & (b >= 0)).any())


def _without_copies(rows: Tensor) -> Tensor:
    """One of each along the axes of a view that repeats its entries."""
    for dim in range(rows.dim()):
        if rows.stride(dim) == 0:
            rows = rows.narrow(dim, 0, 1)
    return rows


def _varies(rows: Tensor, dim: int) -> bool:
    if rows.shape[dim] < 2 or rows.stride(dim) == 0 or not rows.numel():
        return False
    rows = _without_copies(rows)
    return bool(((rows.amax(dim, keepdim=True) != rows) & (rows >= 0)).any())


def _compact(rows: Tensor) -> Tensor:
    """The same numbers without copies along the axes where they are constant; what was filled in there takes them."""
    shape = rows.shape
    for dim in range(rows.dim()):
        if rows.shape[dim] > 1 and not _varies(rows, dim):
            rows = rows.narrow(dim, 0, 1) if rows.stride(dim) == 0 else rows.amax(dim, keepdim=True)
    return rows.expand(shape)
