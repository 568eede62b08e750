"""Whether a graph is a real-analytic function, and for which inputs it is defined.

A real-analytic function on a connected domain that is not zero at one point is nonzero almost everywhere there
(Mityagin, *The zero set of a real analytic function*, 2015). So one point of proved curvature tells about almost all
points, unless a kink, a jump or a choice lies on the way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fisherflat.certificates import Analytic
from fisherflat.jets.graph import Graph, Node, getitem
from fisherflat.jets.ops import OPS, exponent
from fisherflat.parts.structure import Structure

aten = torch.ops.aten


def analytic(graph: Graph, structure: Structure) -> Analytic | None:
    """The ops that make the graph real-analytic, or `None` where one of them is not (or not known to be)."""
    ops: dict[str, None] = {}
    restricted: dict[str, None] = {}
    signs: dict[Node, bool | None] = {}
    for node in graph.nodes:
        signs[node] = _sign(node, signs)
        if structure.orders[node] == 0 or node.target is None:
            continue
        if not _is_analytic(node):
            return None
        argument = _argument(node)
        if argument is not None and structure.orders[argument]:
            if not signs[argument]:
                restricted[f"{node.op} at {node.source}"] = None
        elif _domain(node) == "other":
            restricted[f"{node.op} at {node.source}"] = None
        ops[node.op] = None
    return Analytic(tuple(ops), tuple(restricted))


def _is_analytic(node: Node) -> bool:
    if node.target is getitem or _is_power(node):
        return True
    if node.packet is aten.pow:
        return isinstance(node.args[0], Node)
    return node.packet in OPS and OPS[node.packet].analytic and node.kwargs.get("rounding_mode") is None


def _domain(node: Node) -> str:
    """The arguments for which the op is defined; a power of no natural exponent is taken of positive numbers."""
    if node.packet is aten.pow:
        return "all" if _is_power(node) else "positive"
    return OPS[node.packet].domain if node.packet in OPS else "all"


def _argument(node: Node) -> Node | None:
    """What has to be positive (or at least not zero) for the op to be defined."""
    if _domain(node) in ("positive", "nonzero"):
        argument = node.args[1 if node.packet is aten.div else 0]
        return argument if isinstance(argument, Node) else None
    return None


def _is_power(node: Node) -> bool:
    """A natural power, a polynomial."""
    number = exponent(node)
    return number is not None and number >= 0 and number.is_integer()


def _sign(node: Node, signs: dict[Node, bool | None]) -> bool | None:
    """`True` for a node that is positive for every input, `False` for one that is nonnegative, `None` if unknown."""
    if node.target is None:
        return None
    values = [signs[a] if isinstance(a, Node) else _constant_sign(a) for a in node.args[:2]]
    first, second = (*values, None, None)[:2]
    if node.packet is aten.mul and len(node.inputs) == 2 and node.inputs[0] is node.inputs[1]:
        return bool(first)
    if _is_power(node) and exponent(node) % 2 == 0:  # type: ignore[operator]
        return bool(first)
    sign = OPS[node.packet].sign if node.packet in OPS else "any"
    if sign == "nonnegative":
        return False  # zero where a mask has put minus infinity
    if sign == "same":
        return first
    if node.packet is aten.add and None not in (first, second) and len(node.args) == 2 and not node.kwargs:
        return bool(first or second)
    if node.packet in (aten.mul, aten.div) and None not in (first, second):
        return bool(first and second)
    return None


def _constant_sign(value: object) -> bool | None:
    if isinstance(value, Tensor) and value.numel():
        value = value.min().item()
    if isinstance(value, (int, float)):
        return True if value > 0 else False if value == 0 else None
    return None
