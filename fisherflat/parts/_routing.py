"""Which experts a mixture chooses, and whether a chart leaves the region where it chooses the same ones.

A router picks the k largest of its scores. Which ones is constant on regions, so it has no derivative: jets at a point
are those of the map with the routing *at that point* held, exact inside the region, and say nothing of the jump at its
edge. A chart whose points are routed differently draws pieces of several smooth surfaces.
"""

from __future__ import annotations

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import RoutingWarning, warn
from fisherflat.jets.graph import Graph, Node, getitem, run
from fisherflat.jets.ops import INDEXED, RANKING
from fisherflat.spaces.charts import Chart


def choices(graph: Graph) -> list[Node]:
    """The nodes that say which entries were chosen as the largest, and are looked up by: none without routing."""
    users = graph.users()

    def chosen(node: Node) -> bool:
        if node.target is getitem:
            return node.args[1] == 1 and node.args[0].packet in RANKING
        return node.packet in RANKING - INDEXED

    return [node for node in graph.nodes if chosen(node) and users[node]]


def rerouted(graph: Graph, chart: Chart, u: Float[Tensor, "*batch k"]) -> Tensor:
    """Whether a map is routed differently at `u` than at the chart's origin: booleans `[*batch]`.

    The order of what is chosen is no matter.

    All false, at no cost, for a map without routing. For one with it this takes a forward pass a point.

    **Args:** `graph`, from `fisherflat.trace` or `fisherflat.freeze`; `chart`, at whose points it is measured.

    For analyses: measure the points of a chart, call this with the same graph, chart and points, and mark the points
    where it is true; `warn_where_rerouted` does so with a warning.
    """
    nodes = choices(graph)
    found = torch.zeros(u.shape[:-1], dtype=torch.bool)
    if not nodes:
        return found
    base = _routing(graph, nodes, chart.point.reshape(graph.input.shape))
    for place, point in enumerate(u.reshape(-1, u.shape[-1])):
        routing = _routing(graph, nodes, chart(point.to(chart.point)).reshape(graph.input.shape))
        found.view(-1)[place] = any(not torch.equal(a, b) for a, b in zip(base, routing, strict=True))
    return found


def warn_where_rerouted(graph: Graph, chart: Chart, u: Float[Tensor, "*batch k"], what: str = "the map") -> Tensor:
    """As `rerouted`. **Warns:** `RoutingWarning`, once, with the number of points; `what` names the map."""
    found = rerouted(graph, chart, u)
    if count := int(found.sum()):
        warn(
            f"{what} chooses other experts at {count} of {found.numel()} points than at the chart's origin: each point "
            "has the geometry of its own routing, and the surface jumps in between; take a smaller chart to stay in "
            "one region",
            RoutingWarning,
        )
    return found


@torch.no_grad()
def _routing(graph: Graph, nodes: list[Node], x: Tensor) -> list[Tensor]:
    values: dict[Node, object] = {}
    last = max(node.index for node in nodes)
    users = graph.last_use()
    wanted = set(nodes)
    for node in graph.nodes[: last + 1]:
        values[node] = x if node.target is None else run(node, values.__getitem__)
        for dead in users.get(node, ()):
            if dead not in wanted:
                del values[dead]
    found = [values[node] for node in nodes]
    return [value.sort(-1).values if value.dim() else value for value in found if isinstance(value, Tensor)]
