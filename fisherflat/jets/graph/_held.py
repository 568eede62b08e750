"""What a graph says of its constants: where they come from, and which nodes they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fisherflat.jets.graph._shown import displayed


@dataclass(frozen=True)
class Origin:
    """What a constant was made of inside the map.

    **Attributes:** `leaves`, which tensors from outside the map: equal numbers for the same; `projected`, whether
    there was a matrix product on the way.
    """

    leaves: frozenset[int]
    projected: bool


@displayed
class Held(NamedTuple):
    """A node that was replaced by its value at the base point, or an activation by its tangent there.

    **Attributes:** `op`, `module_path`, `source` (file and line), as in `Node`, of the op that computes it: moves of
    its entries behind that do not count.
    """

    op: str
    module_path: str
    source: str


@dataclass(frozen=True)
class Holding:
    """One held node, and where its value stands in the frozen graph.

    **Attributes:** `role`; `node`, its index in the graph that was frozen; `what`, op, module path and source line;
    `constants`, the names of the constants that stand for it (`held N`, or `held N slope` and `held N intercept` for a
    tangent), as `Graph.constants` gives them where the graph still reads them.
    """

    role: str
    node: int
    what: Held
    constants: tuple[str, ...]
