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
from fisherflat.jets.rules import FUNCTIONS, KINKED, LINEAR
from fisherflat.parts.structure import Structure

aten = torch.ops.aten

#: defined where their argument is positive, and where it lies in some other set
_POSITIVE = {aten.log, aten.sqrt, aten.rsqrt}
_ELSEWHERE = {aten.log1p, aten.tan, aten.acos, aten.acosh, aten.asin, aten.atanh, aten.erfinv}
_SMOOTH = {getattr(aten, name) for name in FUNCTIONS if name not in KINKED and hasattr(aten, name)}
_SMOOTH |= {
    aten.add,
    aten.sub,
    aten.rsub,
    aten.mul,
    aten.div,
    aten.mm,
    aten.bmm,
    aten.matmul,
    aten.addmm,
    aten.convolution,
}
_SMOOTH |= {aten._softmax, aten.logsumexp, aten.log_sigmoid_forward, getitem}


def analytic(graph: Graph, structure: Structure) -> Analytic | None:
    """The ops that make the graph real-analytic, or `None` where one of them is not (or not known to be)."""
    ops: dict[str, None] = {}
    restricted: dict[str, None] = {}
    signs: dict[Node, bool | None] = {}
    for node in graph.nodes:
        signs[node] = _sign(node, signs)
        if structure.orders[node] == 0 or node.target is None:
            continue
        argument = _argument(node)
        if argument is not None and structure.orders[argument]:
            if not signs[argument]:
                restricted[f"{node.op} at {node.source}"] = None
        elif node.packet in _ELSEWHERE:
            restricted[f"{node.op} at {node.source}"] = None
        elif not (node.packet in LINEAR | _SMOOTH or _is_power(node)) or node.kwargs.get("rounding_mode") is not None:
            return None
        ops[node.op] = None
    return Analytic(tuple(ops), tuple(restricted))


def _argument(node: Node) -> Node | None:
    """What has to be positive (or at least not zero) for the op to be defined."""
    if node.packet in _POSITIVE or node.packet is aten.reciprocal or (node.packet is aten.pow and not _is_power(node)):
        return node.args[0] if isinstance(node.args[0], Node) else None
    divisor = node.args[1] if node.packet is aten.div else None
    return divisor if isinstance(divisor, Node) else None


def _is_power(node: Node) -> bool:
    """A natural power, a polynomial."""
    exponent = node.args[1] if node.packet is aten.pow else None
    return isinstance(exponent, (int, float)) and exponent >= 0 and float(exponent).is_integer()


def _sign(node: Node, signs: dict[Node, bool | None]) -> bool | None:
    """`True` for a node that is positive for every input, `False` for one that is nonnegative, `None` if unknown."""
    if node.target is None:
        return None
    values = [signs[a] if isinstance(a, Node) else _constant_sign(a) for a in node.args[:2]]
    first, second = (*values, None, None)[:2]
    if node.packet is aten.mul and len(node.inputs) == 2 and node.inputs[0] is node.inputs[1]:
        return bool(first)
    if _is_power(node) and node.args[1] % 2 == 0:
        return bool(first)
    if node.packet in (aten.exp, aten.sigmoid, aten._softmax):
        return False  # zero where a mask has put minus infinity
    if node.packet in (
        aten.mean,
        aten.sum,
        aten.sqrt,
        aten.rsqrt,
        aten.reciprocal,
        aten.reshape,
        aten.expand,
        aten.permute,
    ):
        return first
    if node.packet in (aten.select, aten.slice):
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
