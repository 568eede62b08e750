"""A graph of the same map in which what stands still is apart from what moves, and what is not read is not computed.

A value is divided along one axis, mostly that of the tokens, into the rows that move and those that stand still. The
latter are computed without derivatives, from the input on, where `aten.detach` says so: keys and values of tokens that
stand still, and everything that a causal mask keeps from what moves. An op that works by rows is done for each part by
itself, others see the parts put together. It is the same function of the input, whatever that is; its derivatives are
those along directions in which only the given entries move.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch

from fisherflat._typing import Bool, Float, Tensor
from fisherflat.jets.graph import Graph, Node, leaves, mapped_leaves
from fisherflat.jets.ops import MATRIX_PRODUCTS
from fisherflat.jets.rows._along import Op, Part, Rows, along, whole
from fisherflat.jets.rows._moving import Moving, moving

aten = torch.ops.aten

#: in multiplications: what is worth looking at, and what it costs to pass over an entry
_WORTH, _PASS = 2**22, 4
#: of the cost before: what is left where it pays, and the cost of a row without derivatives
_GAIN, _STILL = 0.8, 1e-3


def moved_by(directions: Float[Tensor, "*batch"], rank: int) -> Bool[Tensor, "*shape"]:
    """Which entries of an input of that rank any directions move, `[*batch, k, *shape]`."""
    return (directions != 0).flatten(0, directions.dim() - rank - 1).any(0)


@dataclass(frozen=True, eq=False)
class Divided:
    """**Attributes:** `graph`, the map by rows; `moves`, a mask of which entries of its output may move."""

    graph: Graph
    moves: Bool[Tensor, "*out"]


#: what was found of a graph that is still in use, by the mask: the other graph, if any, and what moves of its output
_KNOWN: WeakKeyDictionary[Graph, dict[tuple[torch.device, bytes], tuple[Graph | None, Tensor]]] = WeakKeyDictionary()


def divided(graph: Graph, given: Bool[Tensor, "*shape"]) -> Divided:
    """The same map for an input of which the entries that are `given` move: a mask of its shape.

    A map that is small, or of which most moves, is left as it is, and so is one that follows its weights: these may
    move as well, and what is made of them.
    """
    before = sum(map(_work, graph.nodes))
    seen = isinstance(graph.output, Node) and graph.program is None and not given.is_meta
    if not seen or before < _WORTH or not all(node.entries for node in graph.nodes):
        return Divided(graph, given.new_ones(graph.shape))
    assert isinstance(graph.output, Node)
    known, key = _KNOWN.setdefault(graph, {}), (given.device, given.cpu().numpy().tobytes())
    if key not in known:
        moves = moving(graph, given)
        values = _wanted(graph, moves)
        after = sum(_work(node) * value.share for node, value in values.items())
        found = _Building(values, given.device).graph(graph) if after <= _GAIN * before else None
        known[key] = found, _box(moves[graph.output], graph.shape, given.device)
    found, mask = known[key]
    return Divided(found or graph, mask)


def _box(moves: Moving, shape: tuple[int, ...], device: torch.device) -> Tensor:
    mask = torch.ones(shape, dtype=torch.bool, device=device)
    for axis, rows in enumerate(moves):
        still = torch.tensor(sorted(set(range(shape[axis])) - rows), dtype=torch.long, device=device)
        mask.index_fill_(axis, still, False)
    return mask


def _work(node: Node) -> float:
    """What a node costs for each coefficient of each point, in multiplications."""
    return node.entries * (node.args[-1].shape[-2] if node.packet in MATRIX_PRODUCTS else _PASS)


@dataclass(eq=False)
class _Value:
    """What is wanted of a value, then how it is divided, then its parts.

    **Attributes:** `requests`: axis and rows, or `None` for all, and whether with derivatives; `axis`, along which it
    is divided; `parts`, by whether it moves, the rows and how they are computed; `share`, of the cost, that is left;
    `nodes`, the parts in the new graph.
    """

    requests: list[tuple[int | None, Rows, bool]] = field(default_factory=list)
    axis: int | None = None
    parts: dict[bool, tuple[Rows, Op]] = field(default_factory=dict)
    share: float = 0.0
    nodes: dict[bool, Any] = field(default_factory=dict)


def _wanted(graph: Graph, moves: dict[Node, Moving]) -> dict[Node, _Value]:
    """What is wanted of each value, from the output on."""
    assert isinstance(graph.output, Node)
    values = {node: _Value() for node in graph.nodes}
    values[graph.output].requests.append((None, (), True))
    for node in reversed(graph.nodes):
        value = values[node]
        for live, rows in _divide(node, value, moves[node]).items() if value.requests else ():
            op = _op(node, value.axis, rows)
            value.parts[live] = rows, op
            for leaf in leaves((op.args, op.kwargs)):
                if isinstance(leaf, Node):
                    values[leaf].requests.append((None, (), live))
                elif isinstance(leaf, Part) and isinstance(leaf.whole, Node):
                    values[leaf.whole].requests.append((leaf.axis, leaf.rows, live))
    return values


def _divide(node: Node, value: _Value, moves: Moving) -> dict[bool, Rows]:
    """The rows of a value that are wanted with derivatives, and those without, along the axis where that is least."""
    live = any(asked for *_, asked in value.requests) and all(moves)
    parts: dict[bool, Rows] = {live: ()}
    value.share = 1.0 if live else _STILL
    for axis, size in enumerate(node.shape):
        if isinstance(size, int) and size > 1 and (node.target is None or along(node, axis, (0,)) is not None):
            found = _along(value, axis, size, moves[axis])
            share = (len(found.get(True, ())) + _STILL * len(found.get(False, ()))) / size
            if share < value.share:
                value.share, value.axis, parts = share, axis, found
    return parts


def _along(value: _Value, axis: int, size: int, moves: frozenset[int]) -> dict[bool, Rows]:
    read, live = set[int](), set[int]()
    for at, rows, asked in value.requests:
        these = rows if at == axis else range(size)
        read.update(these)
        live.update(moves.intersection(these) if asked else ())
    return {which: tuple(sorted(rows)) for which, rows in ((True, live), (False, read - live)) if rows}


def _op(node: Node, axis: int | None, rows: Rows) -> Op:
    """How those rows of a value are computed."""
    if node.target is None:
        return Op(None, (), {})
    op = whole(node) if axis is None or len(rows) == node.shape[axis] else along(node, axis, rows)
    assert op is not None  # it can be divided along its axis
    return op


class _Building:
    """The new graph, of what is wanted of each value."""

    def __init__(self, values: dict[Node, _Value], device: torch.device) -> None:
        self._values, self._device = values, device
        self._nodes: list[Node] = []
        #: what was put together, by what it is of, axis, rows, and whether with derivatives; and that, to be kept alive
        self._made: dict[tuple[int, int | None, Rows, bool], tuple[Any, Any]] = {}
        self._stopped: dict[Node, Node] = {}

    def graph(self, graph: Graph) -> Graph:
        for node in graph.nodes:
            value = self._values[node]
            given = self._put(node) if node is graph.input else None
            for live, (rows, op) in value.parts.items():
                if given is None:
                    value.nodes[live] = self._done(node, value, op, live)
                else:
                    part = given if value.axis is None else self._taken(given, value.axis, rows)
                    value.nodes[live] = part if live else self._still(part)
        output = self._fetched(graph.output, None, (), True)
        return Graph(self._nodes, output, graph.names, watch=graph.watch)

    def _put(self, node: Node, **changes: Any) -> Node:
        self._nodes.append(replace(node, **changes))
        return self._nodes[-1]

    def _done(self, node: Node, value: _Value, op: Op, live: bool) -> Any:
        """A part of a value."""
        shape = list(node.shape)
        if value.axis is not None:
            shape[value.axis] = len(value.parts[live][0])

        def filled(leaf: Any) -> Any:
            if isinstance(leaf, Part):
                return self._fetched(leaf.whole, leaf.axis, leaf.rows, live)
            return self._fetched(leaf, None, (), live) if isinstance(leaf, Node) else leaf

        if live and node.packet in (aten.mm, aten.bmm) and isinstance(op.args[1], Node):
            b = self._values[op.args[1]]
            if len(b.nodes) == 2 and b.axis in (len(shape) - 2, len(shape) - 1):
                return self._product(node, filled(op.args[0]), b, tuple(shape))
        args, kwargs = mapped_leaves(filled, op.args), mapped_leaves(filled, op.kwargs)
        if op.target is None:
            return args[0]
        return self._put(node, target=op.target, args=args, kwargs=kwargs, shape=tuple(shape))

    def _product(self, node: Node, a: Node | Tensor, b: _Value, shape: tuple[int, ...]) -> Node:
        """A product with a matrix that is divided: part by part of its columns, or a sum over the parts of its rows."""
        columns, products = b.axis == len(shape) - 1, dict[bool, Any]()
        for live, (rows, _) in b.parts.items():
            left = a if columns else self._taken(a, len(shape) - 1, rows)
            size = (*shape[:-1], len(rows)) if columns else shape
            products[live] = self._put(node, args=(left, b.nodes[live]), shape=size)
        if columns:
            return self._joined(node, b, products, shape)
        return self._put(node, target=aten.add.Tensor, args=tuple(products.values()), kwargs={}, shape=shape)

    def _fetched(self, leaf: Any, axis: int | None, rows: Rows, live: bool) -> Any:
        """Rows of a value or a constant, or all of it; without derivatives where these are not wanted."""
        key = id(leaf), axis, rows, live
        if key not in self._made:
            self._made[key] = self._assembled(leaf, axis, rows, live), leaf
        return self._made[key][0]

    def _assembled(self, leaf: Node | Tensor, axis: int | None, rows: Rows, live: bool) -> Any:
        value = self._values[leaf] if isinstance(leaf, Node) else None
        if value is None or isinstance(leaf, Tensor):
            return leaf if axis is None else self._taken(leaf, axis, rows)
        nodes = {which: one if live or not which else self._still(one) for which, one in value.nodes.items()}
        if value.axis is None or axis != value.axis:
            (found,) = nodes.values() if len(nodes) == 1 else [self._joined(leaf, value, nodes, leaf.shape)]
            return found if axis is None else self._taken(found, axis, rows)
        shape = tuple(len(rows) if at == axis else size for at, size in enumerate(leaf.shape))
        return self._joined(leaf, value, nodes, shape, rows)

    def _joined(
        self, node: Node, value: _Value, nodes: dict[bool, Any], shape: tuple[int, ...], wanted: Rows | None = None
    ) -> Any:
        """Rows from the parts that have them, in their order, as a node of that shape."""
        axis = value.axis
        assert axis is not None
        places = {row: (live, at) for live, (rows, _) in value.parts.items() for at, row in enumerate(rows)}
        runs: list[tuple[bool, list[int]]] = []
        for row in sorted(places) if wanted is None else wanted:
            live, at = places[row]
            if not runs or runs[-1][0] != live:
                runs.append((live, []))
            runs[-1][1].append(at)
        parts = [self._taken(nodes[live], axis, tuple(at)) for live, at in runs]
        if len(parts) == 1:
            return parts[0]
        return self._put(node, target=aten.cat.default, args=(parts, axis), kwargs={}, shape=tuple(shape))

    def _taken(self, x: Any, axis: int, rows: Rows) -> Any:
        """Rows of a node or a constant."""
        if rows == tuple(range(x.shape[axis])):
            return x
        index = torch.tensor(rows, device=self._device)
        if isinstance(x, Tensor):
            return x.index_select(axis, index.to(x.device))
        shape = tuple(len(rows) if at == axis else size for at, size in enumerate(x.shape))
        if rows == tuple(range(rows[0], rows[0] + len(rows))):
            args: tuple[Any, ...] = (x, axis, rows[0], rows[0] + len(rows))
            return self._put(x, target=aten.slice.Tensor, args=args, kwargs={}, shape=shape)
        return self._put(x, target=aten.index_select.default, args=(x, axis, index), kwargs={}, shape=shape)

    def _still(self, node: Node) -> Node:
        """The same without derivatives."""
        if node not in self._stopped:
            self._stopped[node] = self._put(node, target=aten.detach.default, args=(node,), kwargs={})
        return self._stopped[node]
