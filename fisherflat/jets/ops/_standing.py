"""What stands still in a graph by its ops, wherever its input moves: computed once, points share it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fisherflat.jets.graph import Graph, Node, last_uses
from fisherflat.jets.ops._evaluate import degrees, evaluated
from fisherflat.jets.rules import Algebra, Series


def needed(graph: Graph, of: Iterable[Node], ends: Collection[Node]) -> list[Node]:
    """What some nodes are computed from, themselves included, in order; but nothing that is before the `ends`."""
    found: set[Node] = set()
    stack = list(of)
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack.extend(() if node in ends else node.inputs)
    return [node for node in graph.nodes if node in found]


def at_all(still: Any, points: int) -> Any:
    """What stands still, of one point, at so many; shapes have none."""
    return Series(still.data.expand(-1, points, *still.shape), still.k) if isinstance(still, Series) else still


@dataclass(eq=False)
class Standing:
    """What stands still and what does not.

    **Attributes:** `still`, the nodes that do; `kept`, those of them that others read; `first`, all that these are
    computed from; `rest`, the nodes that move.
    """

    still: set[Node]
    kept: set[Node]
    first: list[Node]
    rest: list[Node]

    @classmethod
    def of(cls, graph: Graph) -> Standing:
        """Found once, for a graph does not change."""
        known: Standing | None = vars(graph).get("_standing")
        if known is None:
            still = {node for node, degree in degrees(graph).items() if degree == 0}
            rest = [node for node in graph.nodes if node not in still]
            kept = still & {graph.output, *(source for node in rest for source in node.inputs)}
            known = vars(graph)["_standing"] = cls(still, kept, needed(graph, kept, ()), rest)
        return known


def evaluate_once(graph: Graph, xp: Algebra, x: Series) -> Series | Tensor:
    """As `evaluate`, where what stands still is the same at all points, and computed at the first."""
    if isinstance(graph.output, Tensor):
        return xp.constants.get(id(graph.output), graph.output)
    plan = Standing.of(graph)
    one = Series(x.data[:1, :1], x.k)
    found = evaluated(plan.first, last_uses(plan.first, plan.kept), {graph.input: one}, xp, x.k)
    values = {node: at_all(found[node], x.data.shape[1]) for node in plan.kept}
    del found
    last = last_uses(plan.rest, {graph.output})
    return evaluated(plan.rest, last, {graph.input: x, **values}, xp, x.k)[graph.output]
