"""The graph of a map: nodes, values, and what lies before and behind a node."""

from __future__ import annotations

from fisherflat.jets.graph._cut import before, behind, followed
from fisherflat.jets.graph._graph import (
    ROLES,
    Graph,
    Held,
    Holding,
    Live,
    Node,
    Origin,
    Tangent,
    fold,
    getitem,
    leaves,
    mapped_leaves,
    run,
)
from fisherflat.jets.graph._watch import Constants, Watch

__all__ = [
    "ROLES",
    "Constants",
    "Graph",
    "Held",
    "Holding",
    "Live",
    "Node",
    "Origin",
    "Tangent",
    "Watch",
    "before",
    "behind",
    "fold",
    "followed",
    "getitem",
    "leaves",
    "mapped_leaves",
    "run",
]
