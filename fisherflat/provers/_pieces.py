"""Flat off kinks, by structure: which nodes are affine piece by piece.

Between its kinks a node is a *choice* (one of finitely many constants, by the signs of what is affine by pieces) or
*affine by pieces*: affine on each of finitely many polyhedra. A choice may pick, place or mask entries and be a factor
of them. Added to them it would be a jump that is no choice of pieces, and nothing is claimed then.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fisherflat.jets.graph import Graph, Node, getitem, leaves
from fisherflat.jets.ops import LINEAR, STRUCTURAL, is_affine
from fisherflat.parts.structure import Structure

aten = torch.ops.aten

CONSTANT, CHOICE, AFFINE, PIECES, NONLINEAR = "constant", "choice", "affine", "affine by pieces", "nonlinear"


def _packets(*names: str) -> frozenset:
    return frozenset(getattr(aten, name) for name in names if hasattr(aten, name))


_KINKED = _packets("relu", "abs", "leaky_relu", "clamp", "clamp_min", "clamp_max")
_COMPARISONS = _packets("lt", "le", "gt", "ge", "eq", "ne", "heaviside", "sign", "sgn")
_RANKS = _packets("argmax", "argmin", "argsort")
_RANKED = _RANKS | _packets("amax", "amin", "max", "min", "topk", "sort", "median", "kthvalue", "cummax", "cummin")
_LOGIC = _packets(
    "logical_and", "logical_or", "logical_not", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_not", "bitwise_xor"
)
_SIMPLE = (
    _LOGIC
    | _packets("mul", "neg", "_to_copy")
    | frozenset(_packets("reshape", "permute", "expand", "select", "slice", "cat", "stack", "flip", "roll", "repeat"))
)
_SUMS = _packets("add", "sub", "rsub")
_PRODUCTS = _packets("mul", "mm", "bmm", "matmul")
_QUOTIENTS = _packets("div", "addmm", "convolution", "linalg_solve_triangular")
#: the argument that says where entries go
_PLACES = {
    packet: place
    for name, place in {
        "where": 0, "masked_fill": 1, "gather": 2, "index": 1, "index_select": 2, "scatter": 2, "index_put": 1,
        "embedding": 1, "scatter_add": 2, "index_add": 2,
    }.items()
    for packet in _packets(name)
}  # fmt: skip


def read(graph: Graph, structure: Structure) -> dict[Node, str]:
    """What each node is, in one of five words; as `structure` says where that is constant or affine."""
    orders: dict[Node, str] = {}
    for node in graph.nodes:
        order = structure.orders.get(node, 2)
        orders[node] = (CONSTANT, AFFINE)[order] if order < 2 else _order(node, orders)
    return orders


def order(graph: Graph, orders: dict[Node, str]) -> str:
    """What the output is."""
    return CONSTANT if isinstance(graph.output, Tensor) else orders[graph.output]


def kinks(graph: Graph, orders: dict[Node, str]) -> list[Node]:
    """The nodes that make pieces out of what is affine."""
    makers = _KINKED | _COMPARISONS | _RANKED
    return [
        node
        for node in graph.nodes
        if orders[node] in (CHOICE, PIECES)
        and node.packet in makers
        and any(orders[source] in (AFFINE, PIECES) for source in node.inputs)
    ]


def _order(node: Node, orders: dict[Node, str]) -> str:
    moving = [source for source in node.inputs if orders[source] != CONSTANT]
    kinds = {orders[source] for source in moving}
    if NONLINEAR in kinds:
        return NONLINEAR
    dtype = node.kwargs.get("dtype")
    if dtype is not None and not dtype.is_floating_point:
        return CHOICE if node.packet is aten._to_copy and kinds == {CHOICE} else NONLINEAR
    if node.target is getitem:
        index = node.args[0].packet in _RANKED and node.args[1] > 0
        return CHOICE if index or kinds == {CHOICE} else PIECES
    if node.packet in (aten.amax, aten.amin) and math.prod(node.shape) == math.prod(moving[0].shape):
        return orders[moving[0]]  # the largest of one
    if node.packet in _RANKED:
        return CHOICE if node.packet in _RANKS or kinds == {CHOICE} else PIECES
    if node.packet in _COMPARISONS:
        return CHOICE
    if kinds == {CHOICE} and (node.packet in _SIMPLE or (node.packet in _SUMS and len(moving) == 1)):
        return CHOICE
    if node.packet in _KINKED:
        return PIECES if len(moving) == 1 else NONLINEAR
    if node.packet in _PLACES and "reduce" not in str(node.target):
        return _placed(node, orders, moving)
    if node.packet in _PRODUCTS and len(moving) == 2:
        return PIECES if sorted(orders[source] == CHOICE for source in moving) == [False, True] else NONLINEAR
    linear = node.packet in LINEAR | STRUCTURAL | _SUMS | {aten._to_copy}
    linear |= node.packet in _PRODUCTS | _QUOTIENTS and len(moving) == 1 and is_affine(node)
    linear &= node.packet is not aten.convolution or node.args[0] in moving
    linear &= node.kwargs.get("rounding_mode") is None and "reduce" not in str(node.target)
    if not linear or not kinds <= {AFFINE, PIECES}:
        return NONLINEAR
    return PIECES if PIECES in kinds else AFFINE


def _placed(node: Node, orders: dict[Node, str], moving: list[Node]) -> str:
    where = {leaf for leaf in leaves(node.args[_PLACES[node.packet]]) if isinstance(leaf, Node)}
    if any(orders[source] != CHOICE for source in moving if source in where):
        return NONLINEAR
    entries = {orders[source] for source in moving if source not in where}
    if entries <= {CHOICE}:
        return CHOICE
    return NONLINEAR if CHOICE in entries else PIECES
