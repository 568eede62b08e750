"""What a graph shows of itself in a notebook."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fisherflat._display import Card, displayed

__all__ = ["Shown", "displayed"]


@displayed
class Shown:
    """A graph as how many operations of each role it has, and what is held."""

    def _card(self: Any) -> Card:
        counts = Counter(node.role for node in self.nodes)
        about = {"operations": len(self.nodes), "held": self.frozen or "nothing"}
        return Card("Graph", about, ("role", "operations"), list(counts.items()))
