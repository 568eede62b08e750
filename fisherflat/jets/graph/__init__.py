"""The graph of a map: nodes, values, and what lies before and behind a node."""

from __future__ import annotations

from fisherflat.jets.graph._cut import before, behind, followed, of_rows
from fisherflat.jets.graph._graph import (
    ROLES,
    Graph,
    Live,
    Node,
    Tangent,
    Traced,
    fold,
    getitem,
    last_uses,
    most_alive,
    run,
    unwrapped,
)
from fisherflat.jets.graph._held import Held, Holding, Origin
from fisherflat.jets.graph._nests import leaves, mapped_leaves
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
    "Traced",
    "Watch",
    "before",
    "behind",
    "fold",
    "followed",
    "getitem",
    "last_uses",
    "leaves",
    "mapped_leaves",
    "most_alive",
    "of_rows",
    "run",
    "unwrapped",
]
