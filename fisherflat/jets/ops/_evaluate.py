"""A graph on series, by the rules of its ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Graph, Node, getitem, mapped_leaves
from fisherflat.jets.ops._table import OPS
from fisherflat.jets.rules import Algebra, Series

aten = torch.ops.aten


def evaluate(graph: Graph, xp: Algebra, x: Series) -> Series | Tensor:
    """The graph on a series; intermediate values are dropped after their last use."""
    if isinstance(graph.output, Tensor):
        return xp.constants.get(id(graph.output), graph.output)
    values: dict[Node, Any] = {graph.input: x}
    last = graph.last_use()
    for node in graph.nodes:
        if node.target is not None:
            values[node] = apply(xp, node, values.__getitem__, x.k)
            if xp.spilling(values[node]):
                values[node] = apply(xp, node, lambda source: xp.shielded(values[source]), x.k)
        for dead in last.get(node, ()):
            del values[dead]
    return values[graph.output]


def apply(xp: Algebra, node: Node, value: Callable[[Node], Any], k: int) -> Any:
    """The rule of `node` on the series of its inputs."""
    # not by a function that calls itself: such a closure is a cycle, and would keep all values and weights alive
    live = xp.constants
    args, kwargs = mapped_leaves(
        lambda leaf: value(leaf) if isinstance(leaf, Node) else live.get(id(leaf), leaf) if live else leaf,
        (node.args, node.kwargs),
    )
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
