"""What does not depend on the point: the polynomial part of a graph on an affine chart, carried once for all points.

On an affine chart `x(u) = x(0) + sum_i u_i b_i` queries, keys, values and the inputs of gates are affine in u, scores
and sums of squares are quadratic. The 2-jet at u = 0 says all of a polynomial of degree 2, so that one pass through the
rules, at one point, serves every other: slopes of what is affine and second derivatives of what is quadratic are the
same everywhere, first derivatives of the latter are `d_i y + sum_j u_j d_ij y`, and the values of a product with
weights are `y + sum_i u_i d_i y`, without the weights.

All other values are computed by their ops at each point, because a polynomial that is evaluated loses what its terms
cancel: a score near zero far from the origin. A product with weights is right to some roundings of
`|W| (|x(0)| + sum_i |u_i b_i|)`, which is what rounding the point `x(u)` may cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Graph, Node, last_uses, most_alive
from fisherflat.jets.ops import PROJECTIONS, at_all, at_points, degrees, evaluated, needed
from fisherflat.jets.rules import Adjoint, Algebra, Series
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.jets import pair_index, pairs, size


@dataclass(frozen=True)
class _Polynomial:
    """A node by its 2-jet at the origin, `[C, 1, *shape]`; `mixed`, its second derivatives as `[k, k, entries]`.

    Gradients go through the series alone, also those of `around`.
    """

    series: Series
    mixed: Tensor | None

    @classmethod
    def of(cls, series: Series) -> _Polynomial:
        if series.order < 2:
            return cls(Series(series.data.contiguous(), series.k), None)
        return cls(series, _mixed(series.data.detach(), series.k))

    def value(self, u: Tensor) -> Series:
        """What is affine, at the points `u` `[P, k]`."""
        data = self.series.data
        rows = data.view(data.shape[0], -1)
        return Series(torch.addmm(rows[:1], u.to(data.dtype), rows[1:]).view(1, -1, *data.shape[2:]), self.series.k)

    def around(self, xp: Algebra, u: Tensor, value: Series) -> Series:
        """The series at the points `u`, where the values are known."""
        k, data, mixed = self.series.k, self.series.data, self.mixed

        def forward(value: Tensor, data: Tensor, u: Tensor) -> Tensor:
            out = value.new_empty(data.shape[0], *value.shape[1:])
            out[0].copy_(value[0])
            out[1:].copy_(data[1:])
            if mixed is not None:
                slopes, rows = data[1 : 1 + k].reshape(k, 1, -1), out[1 : 1 + k].view(k, len(u), -1)
                torch.baddbmm(slopes, u.expand(k, *u.shape), mixed, out=rows)
            return out

        return Series(xp.recorded(forward, _around_adjoint(k), value.data, data, u.to(data.dtype)), k)


def _mixed(data: Tensor, k: int) -> Tensor:
    """`d_ij`, `[k, k, entries]`, of a series of second order at one point."""
    return data[1 + k :][pair_index(k, data.device)].reshape(k, k, -1)


def _around_adjoint(k: int) -> Adjoint:
    """The gradients of a polynomial's series at points by its values there, by its series at the origin and by `u`."""

    def adjoint(gradient: Tensor, arrays: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
        _, data, u = arrays
        rows = gradient[1:].sum(1, keepdim=True)
        if data.shape[0] == 1 + k:
            return gradient[:1], torch.cat([torch.zeros_like(data[:1]), rows]), None
        slopes = gradient[1 : 1 + k].reshape(k, len(u), -1)  # the one by d_i has sum_j u_j d_ij
        i, j = (torch.tensor(places, device=u.device) for places in zip(*pairs(k), strict=True))
        by_pairs = u.T @ slopes  # [i, j, entries], of u_j d_ij
        shared = by_pairs[i, j] + by_pairs[j, i] * (i != j)[:, None].to(u.dtype)
        second = rows[k:] + shared.view_as(rows[k:])
        by_u = torch.einsum("ipx,ijx->pj", slopes, _mixed(data, k)) if u.requires_grad else None
        return gradient[:1], torch.cat([torch.zeros_like(data[:1]), rows[:k], second]), by_u

    return adjoint


class Prefix:
    """The nodes of a graph that are polynomials of degree 2 or less in its input, and those that are left.

    **Args:** `graph`, whose output depends on its input.

    **Attributes:** `saves`, whether there is any work at each point that is not done.
    """

    def __init__(self, graph: Graph) -> None:
        assert isinstance(graph.output, Node)
        self._graph = graph
        self._input, self._output = graph.input, graph.output
        self._degrees = degree = degrees(graph)
        self._rest = [node for node in graph.nodes if node not in degree]
        read = {source for node in self._rest for source in node.inputs} | {graph.output}
        self._read = [node for node in graph.nodes if node in read and node in degree]
        products = {node for node in self._degrees if node.packet in PROJECTIONS and degree[node] == 1}
        still = {node for node in self._degrees if degree[node] == 0}
        self._valued = needed(graph, self._read, products | still)
        self._products, self._still = (ends.intersection(self._valued) for ends in (products, still))
        self._kept = {*self._read, *self._products, *self._still}
        self._first = needed(graph, self._kept, ())
        self._last = last_uses(self._rest, {graph.output})
        self._alive: dict[int, float] = {}  # counting takes as long as some ops
        self.saves = bool(self._products) or any(degree[node] == 2 for node in self._read) or bool(self._still)

    def __reduce__(self) -> tuple[type[Prefix], tuple[Graph]]:
        return Prefix, (self._graph,)  # a copy is of the copied graph's nodes

    def coefficients(self, k: int) -> float:
        """The largest number of coefficients alive at a time at each point, in k coordinates."""
        if k not in self._alive:
            counts = (0, 1 + k, size(k))  # what stands still is there once for all points
            self._alive[k] = most_alive(self._rest, self._last, lambda node: counts[self._degrees.get(node, 2)])
        return self._alive[k]

    def polynomials(self, xp: Algebra, x: Series) -> dict[Node, Any]:
        """What is needed of the polynomials; `x` `[1 + k, 1, *shape]` is the chart at its origin."""
        last = last_uses(self._first, self._kept)
        found = evaluated(self._first, last, {self._input: x}, xp, x.k)
        return {node: found[node] if node in self._still else _Polynomial.of(found[node]) for node in self._kept}

    def evaluated(self, xp: Algebra, known: dict[Node, Any], chart: Chart, u: Tensor) -> Any:
        """The graph at the points with coordinates `u` `[P, k]`: a series, or a tensor where it reads only shapes."""
        values: dict[Node, Any] = {}
        for node in self._valued:
            if node is self._input:
                values[node] = Series(chart(u)[None], chart.k)
            elif node in self._products:
                values[node] = known[node].value(u)
            elif node in self._still:
                values[node] = at_all(known[node], len(u))
            else:
                values[node] = at_points(xp, node, values.__getitem__)
        moving = {
            node: values[node] if node in self._still else known[node].around(xp, u, values[node])
            for node in self._read
        }
        del values
        return evaluated(self._rest, self._last, moving, xp, chart.k)[self._output]
