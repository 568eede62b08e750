"""The part of a graph before a node, the part behind it, and a graph followed by an op."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from fisherflat.jets.graph._graph import Graph, Node
from fisherflat.jets.graph._nests import mapped_leaves

aten = torch.ops.aten


def before(graph: Graph, cut: Node, shape: tuple[int, ...]) -> Graph:
    """The map from the graph's input to the value of a node, given in `shape`."""
    copies: dict[Node, Node] = {}
    for node in graph.nodes[: cut.index + 1]:
        copies[node] = _copy(node, copies)
    return viewed(Graph([*copies.values()], copies[cut], graph.names, graph.holdings, watch=graph.watch), shape)


def behind(graph: Graph, cut: Node, shape: tuple[int, ...]) -> Graph:
    """The map from the value of a node, given in `shape`, to the graph's output, where all that moves passes there."""
    input_ = replace(graph.input, shape=tuple(shape))
    copies = {cut: _view(input_, cut.shape)}
    for node in graph.nodes[cut.index + 1 :]:
        copies[node] = _copy(node, copies)
    assert isinstance(graph.output, Node)
    return Graph([input_, *copies.values()], copies[graph.output], graph.names, graph.holdings, watch=graph.watch)


def viewed(graph: Graph, shape: tuple[int, ...]) -> Graph:
    """The same map with its output in another shape of that many entries."""
    assert isinstance(graph.output, Node)
    return followed(graph, aten.reshape.default, list(shape), shape=tuple(shape))


def followed(graph: Graph, target: Any, *args: Any, shape: tuple[int, ...]) -> Graph:
    """The map followed by an op of its output, as the first argument, and constants; to `shape`."""
    copies: dict[Node, Node] = {}
    for node in graph.nodes:
        copies[node] = _copy(node, copies)
    assert isinstance(graph.output, Node)
    last = copies[graph.output]
    op = Node(len(copies), target, (last, *args), {}, shape, module_path=last.module_path, source=last.source)
    return Graph([*copies.values(), op], op, graph.names, graph.holdings, watch=graph.watch)


def of_rows(graph: Graph, rows: Sequence[int], device: torch.device) -> Graph:
    """The map to some rows of its output, along the leading axis; constants are on `device`."""
    places = torch.tensor(rows, device=device)
    return followed(graph, aten.index_select.default, 0, places, shape=(len(places), *graph.shape[1:]))


def _view(node: Node, shape: tuple[int, ...]) -> Node:
    """`node` in another shape, such as hidden states with the batch axis, or without it."""
    return Node(node.index + 1, aten.reshape.default, (node, list(shape)), {}, tuple(shape), source=node.source)


def _copy(node: Node, copies: dict[Node, Node]) -> Node:
    def mapped(leaf: object) -> object:
        return copies[leaf] if isinstance(leaf, Node) else leaf

    return replace(node, args=mapped_leaves(mapped, node.args), kwargs=mapped_leaves(mapped, node.kwargs))
