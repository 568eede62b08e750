"""A graph on a chart in balls, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flint import arb

from fisherflat.errors import EnclosureError, UnsupportedOpError
from fisherflat.jets.balls._algebra import BallAlgebra
from fisherflat.jets.balls._array import BallArray, balls
from fisherflat.jets.graph import Graph, Node
from fisherflat.jets.ops import apply
from fisherflat.jets.rules import Series
from fisherflat.spaces.charts import Chart

#: a point or box: one ball a coordinate
Box = Sequence[arb]


def chart_in_balls(chart: Chart, box: Box) -> Series:
    """The chart itself as a series: its points and its basis, nothing of second order."""
    point, basis = balls(chart.point), balls(chart.basis)
    x = np.empty((1 + chart.k, 1, *point.shape), dtype=object)
    x[0, 0] = point + sum(basis[i] * box[i] for i in range(chart.k))
    x[1:, 0] = basis
    return Series(BallArray(x), chart.k)


def through(graph: Graph, series: Series) -> Series:
    """The graph on a series, as one also where the output is constant.

    Intermediate values are dropped after their last use.
    """
    xp, last, output = BallAlgebra(), graph.last_use(), graph.output
    if not isinstance(output, Node):
        return Series(BallArray(balls(output)[None, None]), series.k)
    values: dict[Node, Any] = {graph.input: series}
    for node in graph.nodes:
        if node.target is not None:
            values[node] = applied(xp, node, values, series.k)
        for dead in last.get(node, ()):
            del values[dead]
    return values[output]


def applied(xp: BallAlgebra, node: Node, values: dict[Node, Any], k: int) -> Any:
    """The rule of a node in balls, where it has one that works there."""
    try:
        return apply(xp, node, values.__getitem__, k)
    except EnclosureError:
        raise
    except Exception as error:  # a rule that balls cannot follow: then nothing is claimed
        unsupported = UnsupportedOpError(f"{node.op} at {node.source} has no rule in ball arithmetic: {error}")
        unsupported.node = node  # type: ignore[attr-defined]
        raise unsupported from error
