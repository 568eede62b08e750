"""The heads of an attention part, each as a map to what it gives to the output projection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import overload

import torch

from fisherflat._display import Card, displayed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import CheckpointError
from fisherflat.jets.graph import Graph, Node, Traced, before, behind, followed, run
from fisherflat.jets.ops import MATRIX_PRODUCTS, PROJECTIONS, STRUCTURAL, SUMS
from fisherflat.parts import moving

aten = torch.ops.aten


class Head(Traced):
    """One head of an attention part, as a map `[n, d] -> [n, width]` to what it gives to the output projection.

    It is a part like others: it fits `fisherflat.trace`, `freeze`, `StatisticalManifold` and `certify`.

    **Attributes:**

    - `index`: which head, from 0; `width`: of its outputs.
    - `input`: what entered the attention, `[n, d]`.
    - `graph`: the map; `nodes`, those of it.

    `Heads` makes one.

    >>> import torch, fisherflat as ff
    >>> head = ff.load("python-llama").blocks("def mean(values):")[0].heads[2]
    >>> head.index, head.pattern.shape, torch.allclose(head.pattern.sum(1), torch.ones(8).double())
    (2, torch.Size([8, 8]), True)
    """

    def __init__(self, index: int, graph: Graph, at: Float[Tensor, "n d"], pattern: Graph | None) -> None:
        self.index, self.graph, self.input, self._pattern = index, graph, at, pattern
        self.width = graph.shape[-1]

    @property
    def nodes(self) -> list[Node]:
        """Those of the graph."""
        return self.graph.nodes

    @property
    def pattern(self) -> Float[Tensor, "n n"]:
        """The attention weights, a row for each token that attends, as they were on the prompt.

        **Raises:** `CheckpointError` where a head weighs values more than once.
        """
        return _run(self._pattern, self.input)[self.index]

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n width"]:
        """What the head puts out at `x`."""
        return self.graph(x)


def _run(patterns: Graph | None, at: Float[Tensor, "n d"]) -> Float[Tensor, "heads n n"]:
    if patterns is None:
        raise CheckpointError(
            "this head weighs values in several products, so that it has no single pattern; `ff.trace` of the part "
            "lists them"
        )
    return patterns(at)


@displayed
class Heads(Sequence):  # of Head, as its methods say
    """What an attention part computes before its output projection, head by head.

    Head i is a map `[n, d] -> [n, width]`, a `Head`: values weighed by its pattern, with what gates and
    norms do to them before the projection. The part is the sum over heads of `head @ projection(i)`, and a bias:
    `attention(x) == sum(heads[i](x) @ heads.projection(i) for i in range(len(heads))) + heads.bias`.

    Heads are those of the queries, also where several share keys and values.

    **Args:**

    - `graph`: of the attention part, `[n, d] -> [n, D]`, with its roles.
    - `at`: what entered it, `[n, d]`.

    **Attributes:**

    - `input`: what entered; `width`: that of one head.
    - `together`: the graph `[n, d] -> [n, heads · width]` of all heads side by side, in order, for the price of one.
    - `projected`: the node of the projection in the graph.

    **Raises:** `CheckpointError` where no softmax pattern, or no output projection behind it, is found.

    >>> import fisherflat as ff
    >>> heads = ff.load("python-llama").blocks("def mean(values):")[0].heads
    >>> len(heads), heads.projection(0).shape
    (4, torch.Size([24, 96]))
    """

    def __init__(self, graph: Graph, at: Float[Tensor, "n d"]) -> None:
        self.input, self._graph = at, graph
        self._sources = moving(graph)
        self._weights: list[tuple[Node, bool]] = []  # of the products with values, and whether these stand first
        self.projected = self._projection(graph)
        labels = self._labels(graph)
        if labels is None:
            raise CheckpointError(
                "the heads of this attention cannot be told apart: what enters its output projection "
                f"({self.projected.source}) is not made of the products of a softmax pattern with values; analyse the "
                "part as a whole"
            )
        counts = torch.bincount(labels)
        if counts.min() != counts.max():
            raise CheckpointError("the heads of this attention have different widths; analyse the part as a whole")
        self._count, self.width = len(counts), int(counts[0])
        self._order = torch.argsort(labels, stable=True).to(at.device)
        rows = (at.shape[0], len(labels))
        self.together = before(graph, self._entered, rows)
        if not torch.equal(self._order.cpu(), torch.arange(len(labels))):
            self.together = followed(self.together, aten.index_select.default, 1, self._order, shape=rows)
        self._tail = behind(graph, self._entered, rows)

    def __reduce__(self) -> tuple[type[Heads], tuple[Graph, Tensor]]:
        """Found anew, for what is kept points into the graph."""
        return Heads, (self._graph, self.input)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Head]:
        return (self[head] for head in range(len(self)))

    @overload
    def __getitem__(self, head: int) -> Head: ...

    @overload
    def __getitem__(self, head: slice) -> list[Head]: ...

    def __getitem__(self, head: int | slice) -> Head | list[Head]:
        if isinstance(head, slice):
            return [self[i] for i in range(len(self))[head]]
        columns = self.columns(head)
        shape = (self.input.shape[0], self.width)
        graph = followed(self.together, aten.slice.Tensor, 1, columns.start, columns.stop, shape=shape)
        return Head(range(len(self))[head], graph, self.input, self._patterns)

    @property
    def patterns(self) -> Float[Tensor, "heads n n"]:
        """The attention weights of all heads, a row for each token that attends, as they were on the prompt.

        **Raises:** `CheckpointError` where a head weighs values more than once.
        """
        return _run(self._patterns, self.input)

    @cached_property
    def _patterns(self) -> Graph | None:
        """The map to the patterns of all heads, `[heads, n, n]`; `None` where there are others than one product's."""
        if len(self._weights) != 1:
            return None
        ((weight, turned),) = self._weights
        graph = before(self._graph, weight, (self._count, *weight.shape[-2:]))
        rows, columns = weight.shape[-2:]
        return followed(graph, aten.transpose.int, 1, 2, shape=(self._count, columns, rows)) if turned else graph

    def columns(self, head: int) -> slice:
        """Which of the outputs of `together` are those of a head."""
        head = range(len(self))[head]
        return slice(head * self.width, (head + 1) * self.width)

    def projection(self, head: int) -> Float[Tensor, "width D"]:
        """The rows of the output projection that a head enters by."""
        return self._matrix[self.columns(head)]

    @property
    def bias(self) -> Float[Tensor, " D"]:
        """What the output projection adds."""
        return self._affine[1]

    @property
    def _matrix(self) -> Tensor:
        return self._affine[0]

    @cached_property
    def _affine(self) -> tuple[Tensor, Tensor]:
        """The projection as a matrix `[heads · width, D]`, in the order of heads, and a bias."""
        n, inner = self.input.shape[0], self._count * self.width
        zero = self.input.new_zeros(n, inner)
        bias = self._tail(zero).reshape(n, -1)[0]
        rows = []
        for unit in torch.eye(inner, dtype=zero.dtype, device=zero.device).split(n):
            padded = torch.cat([unit, zero[len(unit) :]])
            rows.append(self._tail(padded).reshape(n, -1)[: len(unit)] - bias)
        return torch.cat(rows)[self._order], bias

    # -- reading the graph ---------------------------------------------------------------------------------------------

    def _projection(self, graph: Graph) -> Node:
        """The last linear map with constant weights, behind which only biases and constant factors come."""
        node = graph.output
        while isinstance(node, Node):
            sources = self._sources[node]
            if len(sources) != 1:
                break
            if node.packet in PROJECTIONS:
                return node
            scales = node.packet in (aten.mul, aten.div) and node.args[0] is sources[0]
            if not (node.packet in STRUCTURAL | SUMS or scales):
                break
            node = sources[0]
        raise CheckpointError(
            "no output projection was found at the end of this attention, so that what its heads give to it cannot be "
            f"told ({node.source if isinstance(node, Node) else 'its output is constant'}); analyse the part as a whole"
        )

    @property
    def _entered(self) -> Node:
        return self._sources[self.projected][0]

    @staticmethod
    def _weight(product: Node) -> list[tuple[Node, bool]]:
        """What weighs the values in a product with them, and whether these stand first."""
        left, right = product.args[-2:]
        weighs = [isinstance(side, Node) and side.role in ("pattern", "attention_gate") for side in (left, right)]
        if weighs[0] == weighs[1]:
            return []
        return [(left, False)] if weighs[0] else [(right, True)]

    def _labels(self, graph: Graph) -> Tensor | None:
        """For each column of what enters the projection, the head that it comes from; `None` where that is unclear."""
        labels: dict[Node, Tensor] = {}
        for node in graph.nodes:
            sources = self._sources[node]
            known = [source for source in sources if source in labels]
            if node.role == "pattern" and not node.factor and node.packet in MATRIX_PRODUCTS and not known:
                heads = torch.Size(node.shape[:-2]).numel()
                self._weights += self._weight(node)
                labels[node] = torch.arange(heads).reshape(*node.shape[:-2], 1, 1).expand(node.shape)
            elif not known or node.packet in PROJECTIONS:
                continue
            elif node.packet in STRUCTURAL:
                labels[node] = run(node, lambda n: labels[n] if n in labels else torch.full(n.shape, -1))
            elif tuple(known[0].shape) == tuple(node.shape):  # scaled, gated, normed, added to another such
                labels[node] = labels[known[0]]
        found = labels.get(self._entered)
        if found is None:
            return None
        found = found.reshape(self.input.shape[0], -1)
        return found[0] if bool((found == found[0]).all() and (found >= 0).all()) else None

    def _card(self) -> Card:
        return Card(f"{len(self)} heads")
