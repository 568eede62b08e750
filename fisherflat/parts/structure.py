"""Flatness by structure: which nodes of a graph are constant, affine or nonlinear in its input.

The rules of `fisherflat.jets.rules` already know how far derivatives of an op reach; here they run on arrays that have
a shape and nothing else. What they find holds for every input and every weight: no numbers are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fisherflat.errors import UnsupportedOpError
from fisherflat.jets.engines import TensorAlgebra
from fisherflat.jets.graph import Graph, Node, getitem
from fisherflat.jets.ops import OPS, apply, is_affine
from fisherflat.jets.rules import Series, series_in

#: by the order of a series
NAMES = ("constant", "affine", "nonlinear")


#: what a rule may raise for shapes that it was not written for
_FOREIGN = (ArithmeticError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)


class StructureAlgebra(TensorAlgebra):
    """The algebra of `fisherflat.jets.rules` without numbers: tensors on the meta device, of which only C matters."""

    def constant(self, tensor: Tensor) -> Tensor:
        return tensor.to("meta")

    def linear(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], order: int, k: int) -> Series:
        # all series count, also indices and masks: entries chosen by the input are no affine function of it
        return self._blank(node.shape, max(series.order for series in series_in(args, kwargs)), k)

    def values(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        # what is constant piece by piece is not affine, except where the input's numbers are not read at all
        moving = any(series.order for series in series_in(args, kwargs)) and not OPS[node.packet].shape_only
        return self.outputs(node, 2 if moving else 0, k)

    def fallback(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        return self.outputs(node, 2, k)

    def convolve(self, node: Node, a: Tensor, b: Tensor, options: tuple[Any, ...]) -> Tensor:
        lead = torch.broadcast_shapes(*(x.shape[: x.dim() - len(node.shape)] for x in (a, b)))
        return torch.empty(*lead, *node.shape, dtype=torch.float64, device="meta")

    def outputs(self, node: Node, order: int, k: int) -> Any:
        """The output of a node, or all of them."""
        if node.shape and isinstance(node.shape[0], tuple):
            return tuple(self._blank(shape, order, k) for shape in node.shape)
        return self._blank(node.shape, order, k)

    def _blank(self, shape: tuple[int, ...], order: int, k: int) -> Series:
        return Series(torch.empty(self.count(order, k), 1, *shape, dtype=torch.float64, device="meta"), k)


@dataclass(frozen=True)
class Structure:
    """What a graph is as a function of its input.

    **Attributes:** `orders`: node -> 0 (constant), 1 (affine) or 2 (nonlinear); `order` of the output; `witness`: the
    first nonlinear node that the output needs, or `None` where it is affine.
    """

    orders: dict[Node, int]
    order: int
    witness: Node | None


def read(graph: Graph, start: Node | None = None) -> Structure:
    """The structure of a graph, node by node: as a function of its input, or of the value of a node `start`."""
    if isinstance(graph.output, Tensor):
        return Structure({graph.input: 1}, 0, None)
    xp, k = StructureAlgebra(), 1
    start = start or graph.input
    values: dict[Node, Any] = {graph.input: xp._blank(graph.input.shape, int(start is graph.input), k)}
    for node in graph.nodes[1:]:
        if node is start:
            values[node] = xp._blank(node.shape, 1, k)
            continue
        reached = max((_order(values[source]) for source in node.inputs), default=0)
        op = OPS.get(node.packet)
        if node.target is not getitem and (op is None or op.kind in ("smooth", "choice")):  # whose rules need numbers
            values[node] = xp.outputs(node, 2 if reached and not is_affine(node) else reached, k)
            continue
        try:
            values[node] = apply(xp, node, values.__getitem__, k)
        except (UnsupportedOpError, *_FOREIGN):  # more than the engines can do, and not known to be affine
            values[node] = xp.fallback(node, (), {}, k)
    orders = {node: _order(value) for node, value in values.items()}
    order = orders[graph.output]
    return Structure(orders, order, next(n for n in graph.nodes if orders[n] == 2) if order == 2 else None)


def affine(graph: Graph) -> bool:
    """Whether a graph is constant or affine in its input, by structure alone."""
    if graph not in _AFFINE:
        _AFFINE[graph] = read(graph).order < 2
    return _AFFINE[graph]


#: what was read of graphs that are still in use
_AFFINE: WeakKeyDictionary[Graph, bool] = WeakKeyDictionary()


def _order(value: Any) -> int:
    """The order of a series, or the largest of several."""
    return max(series.order for series in series_in(value))
