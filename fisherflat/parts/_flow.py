"""How what moves flows through a graph: the questions that the finders of norms, patterns and gates ask of a node.

Paths follow what *moves*: the chosen experts of a mixture change in jumps, so that a weight that they pick out is a
constant here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from fisherflat.jets.graph import Graph, Node, getitem
from fisherflat.jets.ops import (
    CLAMPS,
    INDEXED,
    PIECEWISE_CONSTANT,
    PROJECTIONS,
    SCALING,
    SELECTIONS,
    STRUCTURAL,
    SUMS,
    UNARY,
    exponent,
)

aten = torch.ops.aten


def moving(graph: Graph) -> dict[Node, list[Node]]:
    """Node -> the inputs by which it moves, in order: none for an index, a comparison and what is made of them."""
    sources: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        index = node.target is getitem and node.args[1] > 0 and node.args[0].packet in INDEXED
        steady = index or node.packet in PIECEWISE_CONSTANT
        sources[node] = [] if steady else [s for s in node.inputs if s is graph.input or sources[s]]
    return sources


def entries(graph: Graph, sources: dict[Node, list[Node]]) -> dict[Node, Node]:
    """Node -> the node of which it is a function entry by entry, as far back as that goes; mostly itself."""
    found: dict[Node, Node] = {}
    for node in graph.nodes:
        roots = {found[source] for source in sources[node] if source.shape == node.shape}
        pointwise = node.packet in UNARY | SCALING | {aten.pow}
        whole = len(roots) == 1 and all(source.shape == node.shape for source in sources[node])
        found[node] = roots.pop() if pointwise and whole else node
    return found


class Flow:
    """What moves in a graph, by which ops, and where to; `mark` gives roles.

    **Attributes:** `graph`; `sources` and `entry`, as `moving` and `entries` say; `users`.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph, self.sources, self.users = graph, moving(graph), graph.users()
        self.entry = entries(graph, self.sources)

    def mark(self, role: str, factors: Iterable[Node]) -> None:
        """The factors, and all nodes that feed only them and others of this role."""
        inside = {*factors, *(node for node in self.graph.nodes if node.role == role and node.factor)}
        for node in reversed(self.graph.nodes[1:]):
            users = self.users[node]
            if users and node is not self.graph.output and all(user in inside for user in users):
                inside.add(node)
        for node in inside:
            node.role, node.factor = role, True

    def gate(self, role: str, product: Node, factor: Node) -> None:
        """`factor` is held with `role`; the product that it enters bears the role, and stays live in the other one.

        Of which it is no part: where it is, as in `x * (x @ w)`, the other is the factor.
        """
        other = next((source for source in self.sources[product] if source is not factor), factor)
        self.mark(role, {other if other in self.descendants({factor}) else factor})
        product.role, product.factor = role, False

    # -- ways through the graph ----------------------------------------------------------------------------------------

    def back(self, node: Node, passes: Callable[[Node], bool]) -> Node:
        """Back along single inputs while `passes(node)`."""
        while passes(node) and len(set(self.sources[node])) == 1:
            node = self.sources[node][0]
        return node

    def descendants(self, starts: Iterable[Node]) -> set[Node]:
        """The nodes that move with one of `starts`, these included."""
        reached = set(starts)
        first = min((node.index for node in reached), default=len(self.graph.nodes))
        for node in self.graph.nodes[first:]:
            if any(source in reached for source in self.sources[node]):
                reached.add(node)
        return reached

    # -- what a node does to what moves --------------------------------------------------------------------------------

    def is_scaling(self, node: Node) -> bool:
        """Entries moved, clamped, scaled by or added to constants."""
        if len(set(self.sources[node])) != 1 or node.packet in SELECTIONS:
            return False
        if node.packet in (aten.mul, aten.div):
            return len(self.sources[node]) == 1 and (node.packet is aten.mul or node.args[0] is self.sources[node][0])
        return node.packet in STRUCTURAL | SUMS | CLAMPS | {aten.neg, getitem}

    def is_linear(self, node: Node) -> bool:
        """Linear maps with constant weights, and sums."""
        if node.packet in PROJECTIONS:
            return len(self.sources[node]) == 1
        return node.packet in STRUCTURAL | SUMS | {aten.sum, aten.mean} or self.is_scaling(node)

    def is_pointwise(self, node: Node) -> bool:
        """A nonlinear function of single entries, in one op or as a product of functions of the same entry."""
        return self.entry[node] is not node and not (self.is_scaling(node) and node.packet not in CLAMPS)

    def is_square(self, node: Node) -> bool:
        """The square of what moves."""
        if node.packet is aten.pow:
            return exponent(node) == 2
        return node.packet is aten.mul and len(self.sources[node]) == 2 and len(set(self.sources[node])) == 1

    def is_product(self, node: Node) -> bool:
        """A product, entry by entry, of two different things, both of which move."""
        return node.packet is aten.mul and len(set(self.sources[node])) == 2 and self.entry[node] is node
