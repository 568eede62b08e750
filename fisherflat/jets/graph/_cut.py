"""Cutting a graph in two where everything passes through one node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from fisherflat.jets.graph._graph import Graph, Node, mapped_leaves

aten = torch.ops.aten

_PRODUCTS = {aten.mm, aten.bmm, aten.matmul, aten.addmm, aten.baddbmm, aten.convolution}


def halves(graph: Graph) -> tuple[Graph, Graph] | None:
    """Two graphs whose composition is `graph`, of a block that adds one part to its input and then another.

    The nodes that all of the input's influence passes through, such as residual sums, divide a graph into stretches.
    The second half begins with the second stretch that holds matrix products: behind the first residual sum, and
    behind its norm, where that comes after the sum. `None` where there is no such stretch, as in a block whose
    attention and MLP run side by side, or where the hidden states change their size in the middle.
    """
    if not isinstance(graph.output, Node):
        return None
    start, found = graph.input, 0
    for stop in _bottlenecks(graph):
        if any(node.packet in _PRODUCTS for node in graph.nodes[start.index + 1 : stop.index + 1]):
            found += 1
        if found == 2:
            sizes = [torch.Size(node.shape).numel() for node in (graph.input, start)]
            if sizes[0] != sizes[1]:
                return None
            return before(graph, start, graph.input.shape), behind(graph, start, graph.input.shape)
        start = stop
    return None


def _bottlenecks(graph: Graph) -> Iterator[Node]:
    """The nodes after the input behind which nothing but their own value is needed, in order."""
    last = {node: node.index for node in graph.nodes}
    for node in graph.nodes:
        for source in node.inputs:
            last[source] = node.index
    reach = graph.input.index
    for node in graph.nodes:
        if node is not graph.input and reach <= node.index:
            yield node
        reach = max(reach, last[node])


def before(graph: Graph, cut: Node, shape: tuple[int, ...]) -> Graph:
    """The map from the graph's input to the value of a node, given in `shape`."""
    copies: dict[Node, Node] = {}
    for node in graph.nodes[: cut.index + 1]:
        copies[node] = _copy(node, copies)
    return viewed(Graph([*copies.values()], copies[cut], graph.names, graph.holdings), shape)


def behind(graph: Graph, cut: Node, shape: tuple[int, ...]) -> Graph:
    """The map from the value of a node, given in `shape`, to the graph's output, where all that moves passes there."""
    input_ = replace(graph.input, shape=tuple(shape))
    copies = {cut: _view(input_, cut.shape)}
    for node in graph.nodes[cut.index + 1 :]:
        copies[node] = _copy(node, copies)
    assert isinstance(graph.output, Node)
    return Graph([input_, *copies.values()], copies[graph.output], graph.names, graph.holdings)


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
    return Graph([*copies.values(), op], op, graph.names, graph.holdings)


def _view(node: Node, shape: tuple[int, ...]) -> Node:
    """`node` in another shape, such as hidden states with the batch axis, or without it."""
    return Node(node.index + 1, aten.reshape.default, (node, list(shape)), {}, tuple(shape), source=node.source)


def _copy(node: Node, copies: dict[Node, Node]) -> Node:
    def mapped(leaf: object) -> object:
        return copies[leaf] if isinstance(leaf, Node) else leaf

    return replace(node, args=mapped_leaves(mapped, node.args), kwargs=mapped_leaves(mapped, node.kwargs))
