"""What a graph shows of itself in a notebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fisherflat._display import Card, displayed

if TYPE_CHECKING:
    from fisherflat.jets.graph._graph import Node


@displayed
class Shown:
    """A graph as how many operations of each role it has, and what is held."""

    nodes: Sequence[Node]
    frozen: tuple[str, ...]

    def _card(self) -> Card:
        counts = Counter(node.role for node in self.nodes)
        about = {"operations": len(self.nodes), "held": self.frozen or "nothing"}
        return Card("Graph", about, ("role", "operations"), list(counts.items()))
