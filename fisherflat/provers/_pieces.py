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
from fisherflat.jets.ops import OPS
from fisherflat.parts.structure import Structure

aten = torch.ops.aten

CONSTANT, CHOICE, AFFINE, PIECES, NONLINEAR = "constant", "choice", "affine", "affine by pieces", "nonlinear"


def _pieces(node: Node) -> str:
    op = OPS.get(node.packet)
    return op.pieces if op is not None else ""


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
    return [
        node
        for node in graph.nodes
        if orders[node] in (CHOICE, PIECES)
        and _pieces(node) in ("affine", "side", "rank")
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
        index = _pieces(node.args[0]) == "rank" and node.args[1] > 0
        return CHOICE if index or kinds == {CHOICE} else PIECES
    op = OPS.get(node.packet)
    if op is None:
        return NONLINEAR
    if op.pieces == "rank" and op.reduces and math.prod(node.shape) == math.prod(moving[0].shape):
        return orders[moving[0]]  # the largest of one
    if op.pieces == "rank":
        return CHOICE if op.kind == "constant" or kinds == {CHOICE} else PIECES
    if op.pieces == "side":
        return CHOICE
    if op.pieces == "affine":
        return PIECES if len(moving) == 1 else NONLINEAR
    moves = op.kind == "structural" and op.places is None
    simple = moves or op.pieces == "logic" or node.packet in (aten.mul, aten.neg, aten._to_copy)
    if kinds == {CHOICE} and (simple or (op.kind == "sum" and len(moving) == 1)):
        return CHOICE
    if op.places is not None and "reduce" not in str(node.target):
        return _placed(node, op.places, orders, moving)
    if op.kind == "product" and len(moving) == 2 and all(source in node.args[:2] for source in moving):
        return PIECES if sorted(orders[source] == CHOICE for source in moving) == [False, True] else NONLINEAR
    at = {position for position, argument in enumerate(node.args) if argument in moving}
    linear = op.kind in ("structural", "linear", "sum") or node.packet is aten._to_copy
    linear |= bool(op.factors or op.divisors) and len(at & {*op.factors}) < 2 and not at & {*op.divisors}
    linear &= node.kwargs.get("rounding_mode") is None and "reduce" not in str(node.target)
    if not linear or not kinds <= {AFFINE, PIECES}:
        return NONLINEAR
    return PIECES if PIECES in kinds else AFFINE


def _placed(node: Node, places: int, orders: dict[Node, str], moving: list[Node]) -> str:
    where = {leaf for leaf in leaves(node.args[places]) if isinstance(leaf, Node)}
    if any(orders[source] != CHOICE for source in moving if source in where):
        return NONLINEAR
    entries = {orders[source] for source in moving if source not in where}
    if entries <= {CHOICE}:
        return CHOICE
    return NONLINEAR if CHOICE in entries else PIECES
