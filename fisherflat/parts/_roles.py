"""Which part of a layer each node belongs to, found from the structure of the graph and never from class names.

What each role is, as a sentence of mathematics, stands in docs/readings.md; each has a file: `_norms`, `_patterns`,
`_gates`. Where a node is none of them for sure, its role is `other`, and nothing can be held of it.

A node is a *factor* of its role when freezing the role holds it; the product that the factor enters bears the role too,
because that is where its second-order term is born, but stays live in its other operand.
"""

from __future__ import annotations

from collections.abc import Sequence

from fisherflat.jets.graph import Graph, Node
from fisherflat.parts import _norms
from fisherflat.parts._flow import Flow
from fisherflat.parts._gates import Gates
from fisherflat.parts._patterns import Patterns
from fisherflat.parts._tokens import Tokens


def assign(graph: Graph) -> None:
    """Set `role` and `factor` of every node."""
    flow = Flow(graph)
    tokens = Tokens(graph, flow.sources)
    norms = _norms.mark(flow)
    patterns = Patterns(flow, tokens)
    patterns.mark()
    gates = Gates(flow, tokens, patterns, norms)
    gates.mark_attention()
    for node in graph.nodes:
        if node.role == "other" and flow.is_pointwise(node):
            node.role = "activation"
    gates.mark_mlp()


def held(graph: Graph, roles: Sequence[str]) -> list[Node]:
    """The factors of some roles that something else reads: what freezing replaces by constants."""
    users = graph.users()

    def inside(node: Node) -> bool:
        return node.role in roles and node.factor

    return [
        node
        for node in graph.nodes
        if inside(node) and (node is graph.output or not all(inside(user) for user in users[node]))
    ]
