"""Cutting a block in two where everything passes through one node."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fisherflat.jets.graph import Graph, Node, before, behind
from fisherflat.jets.ops import PROJECTIONS


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
        if any(node.packet in PROJECTIONS for node in graph.nodes[start.index + 1 : stop.index + 1]):
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
