"""Norms: the inverse root of a mean square, and the product that scales by it."""

from __future__ import annotations

import torch

from fisherflat.jets.graph import Node
from fisherflat.jets.ops import exponent
from fisherflat.parts._flow import Flow

aten = torch.ops.aten

_ROOTS = {aten.rsqrt, aten.sqrt, aten.pow}


def mark(flow: Flow) -> set[Node]:
    """Gives the role `norm`; returns the products that scale by an inverse root."""
    joins: set[Node] = set()
    for root in flow.graph.nodes:
        if not _is_root_of_squares(flow, root):
            continue
        statistic, frontier = {root}, [root]
        while frontier:  # forward to the products that scale by it
            for user in flow.users[frontier.pop()]:
                if user.packet in (aten.mul, aten.div) and len(set(flow.sources[user])) == 2:
                    user.role = "norm"
                    joins.add(user)
                elif user not in statistic and (flow.is_scaling(user) or user.packet is aten.reciprocal):
                    statistic.add(user)
                    frontier.append(user)
        flow.mark("norm", statistic)
    return joins


def _is_root_of_squares(flow: Flow, root: Node) -> bool:
    if root.packet not in _ROOTS or not flow.sources[root]:
        return False
    if root.packet is aten.pow and exponent(root) not in (0.5, -0.5):
        return False
    reduction = flow.back(flow.sources[root][0], flow.is_scaling)
    return reduction.packet in (aten.mean, aten.sum) and flow.is_square(flow.sources[reduction][0])
