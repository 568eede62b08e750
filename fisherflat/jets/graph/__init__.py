"""The graph of a map: nodes, values, and cutting it in two."""

from __future__ import annotations

from fisherflat.jets.graph._cut import before, behind, followed, halves
from fisherflat.jets.graph._graph import ROLES, Graph, Held, Holding, Node, Origin, Tangent, fold, getitem, leaves, mapped_leaves, run

__all__ = [
    "ROLES",
    "Graph",
    "Held",
    "Holding",
    "Node",
    "Origin",
    "Tangent",
    "before",
    "behind",
    "fold",
    "followed",
    "getitem",
    "halves",
    "leaves",
    "mapped_leaves",
    "run",
]
