"""A graph on series, by the rules of its ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Graph, Node, getitem, mapped_leaves
from fisherflat.jets.ops._table import OPS, STANDING
from fisherflat.jets.rules import Algebra, Series

aten = torch.ops.aten


def evaluate(graph: Graph, xp: Algebra, x: Series) -> Series | Tensor:
    """The graph on a series; intermediate values are dropped after their last use."""
    if isinstance(graph.output, Tensor):
        return xp.constants.get(id(graph.output), graph.output)
    return evaluated(graph.nodes, graph.last_use(), {graph.input: x}, xp, x.k)[graph.output]


def evaluated(
    nodes: Sequence[Node], last: Mapping[Node, Sequence[Node]], values: dict[Node, Any], xp: Algebra, k: int
) -> dict[Node, Any]:
    """The nodes in their order, on what is in `values`; in it is left what is not dropped after its `last` use."""
    for node in nodes:
        if node not in values:
            values[node] = apply(xp, node, values.__getitem__, k)
            if xp.spilling(values[node]):
                values[node] = apply(xp, node, lambda source: xp.shielded(values[source]), k)
        for dead in last.get(node, ()):
            del values[dead]
    return values


def apply(xp: Algebra, node: Node, value: Callable[[Node], Any], k: int) -> Any:
    """The rule of `node` on the series of its inputs."""
    args, kwargs = _filled(xp, node, value)
    if node.target is getitem:
        return args[0][args[1]]
    op = OPS.get(node.packet)
    rule = op.rule if op is not None else None
    given = [value(leaf) for leaf in node.inputs]
    if given and all(isinstance(leaf, Tensor) for leaf in given):  # of shapes alone
        return node.target(*args, **kwargs)
    if not any(isinstance(leaf, Series) and leaf.order > 0 for leaf in given):
        return xp.still(node, rule, args, kwargs, k)
    if op is not None and op.kind == "constant":
        return xp.values(node, args, kwargs, k)
    if rule is None:
        return xp.fallback(node, args, kwargs, k)
    return rule(xp, node, *args, **kwargs)


def at_points(xp: Algebra, node: Node, value: Callable[[Node], Any]) -> Any:
    """The rule of a node of known degree, see `degrees`, on values alone: series of order 0."""
    args, kwargs = _filled(xp, node, value)
    if not any(isinstance(value(leaf), Series) for leaf in node.inputs):
        return node.target(*args, **kwargs)
    rule = OPS[node.packet].rule
    assert rule is not None  # what has a degree has a rule
    return rule(xp, node, *args, **kwargs)


def _filled(xp: Algebra, node: Node, value: Callable[[Node], Any]) -> tuple[Any, Any]:
    """The arguments of a node, with the values of others, and with live weights where there are such."""
    live = xp.constants
    if not live and not node.kwargs and sum(isinstance(leaf, Node) for leaf in node.args) == len(node.inputs):
        return tuple([value(leaf) if isinstance(leaf, Node) else leaf for leaf in node.args]), {}  # no nests, as most

    # not by a function that calls itself: such a closure is a cycle, and would keep all values and weights alive
    def filled(leaf: Any) -> Any:
        return value(leaf) if isinstance(leaf, Node) else live.get(id(leaf), leaf) if live else leaf

    return mapped_leaves(filled, (node.args, node.kwargs))


def exponent(node: Node) -> float | None:
    """The exponent of a power, where it is one number."""
    number = node.args[1] if node.packet is aten.pow else None
    if isinstance(number, Tensor) and number.numel() == 1:
        number = number.item()
    return float(number) if isinstance(number, (int, float)) else None


def is_affine(node: Node) -> bool:
    """Whether the op is affine in its moving inputs together, so that it adds no second-order term of its own."""
    if node.target is None or node.target is getitem:
        return True
    op = OPS.get(node.packet)
    if op is None:
        return False
    if op.kind in ("structural", "linear", "constant", "sum"):
        return True
    if op.factors or op.divisors:
        moving = [position for position, argument in enumerate(node.args) if isinstance(argument, Node)]
        return len({*moving} & {*op.factors}) < 2 and not {*moving} & {*op.divisors}
    return False


def degrees(graph: Graph) -> dict[Node, int]:
    """The nodes that are polynomials in the graph's input, of degree 2 or less, whatever the numbers; with the degree.

    Nodes that only read shapes, or stand still, have degree 0.
    """
    found: dict[Node, int] = {graph.input: 1}
    for node in graph.nodes[1:]:
        if node.packet in STANDING:
            found[node] = 0
        elif all(source in found for source in node.inputs):
            degree = _degree(node, found)
            if degree is not None and degree <= 2:
                found[node] = degree
    return found


def _degree(node: Node, known: Mapping[Node, int]) -> int | None:
    op = OPS.get(node.packet)
    if (op is not None and op.shape_only) or not any(known[source] for source in node.inputs):
        return 0
    if op is None or op.rule is None or node.kwargs.get("rounding_mode") is not None:
        return None
    if node.packet is aten.pow:
        return 2 * known[node.args[0]] if isinstance(node.args[0], Node) and exponent(node) == 2 else None
    if is_affine(node):
        return max(known[source] for source in node.inputs)
    if op.kind != "product":
        return None
    of = [known[argument] if isinstance(argument, Node) else 0 for argument in node.args]
    return max(sum(of[position] for position in op.factors), *of)
