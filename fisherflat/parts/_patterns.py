"""Attention patterns: functions of products of queries and keys that weigh values over the token axis.

A **score** is `s_it = ⟨q_i, k_t⟩`, a sum over features of a row `q_i` times a row `k_t`, of the map's own tokens or of
another input's; sums of scores with other terms (masks, position terms) are scores, and so are scores scaled by factors
that depend on `i` alone or on `t` alone, as these scale the query or the key. Whatever is a function of scores and
constants alone is a **weight**: activations, softmaxes along any axis, products of weights with each other, mixtures of
heads. A weight `A_it` is a pattern where `o_i = Σ_t A_it v_t` is formed with values `v_t` that belong to the same
tokens `t`.

Rows of another input are constants that the map itself makes by a matrix product: keys and values are of one input
where they are made of one tensor. A weight matrix alone, as in a projection or a memory `softmax(x K) V`, is neither.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import torch

from fisherflat.jets.graph import Node, getitem
from fisherflat.jets.ops import MATRIX_PRODUCTS, STRUCTURAL, SUMS
from fisherflat.parts._flow import Flow
from fisherflat.parts._tokens import Numbering, Tokens, reduced

aten = torch.ops.aten

_ADDING = SUMS | STRUCTURAL | {aten.maximum, aten.minimum}


class Stage(IntEnum):
    """How far from the products of queries and keys a node is."""

    TERM = 1  # the products of single entries, to be summed over features
    SCORE = 2  # products of queries and keys
    WEIGHT = 3  # any function of them
    GATED = 4  # a weight times a factor of its query or of its key


class Patterns:
    """The patterns of a graph.

    **Attributes:** `stages` of the nodes that are made of products of queries and keys; `joins`: each product of a
    pattern with values -> the values, or the pattern itself where they are constant; `own`: the nodes among `stages`
    whose queries and keys are both of the map's own input.
    """

    def __init__(self, flow: Flow, tokens: Tokens) -> None:
        self._flow, self._tokens = flow, tokens
        self.stages: dict[Node, Stage] = {}
        self.own: set[Node] = set()
        self.joins: dict[Node, Node] = {}
        self._weights: dict[Node, Node] = {}
        for node in flow.graph.nodes[1:]:
            if not flow.sources[node]:
                continue
            if weighed := self._weighed(node):
                self._weights[node], self.joins[node] = weighed
            elif (stage := self._stage(node)) is not None:
                self.stages[node] = stage

    def mark(self) -> None:
        """Gives the role `pattern`, and `attention_gate` to factors of a pattern itself."""
        factors: set[Node] = set()
        gated: list[tuple[Node, Node]] = []
        for weight in self._weights.values():
            frontier, seen = [weight], {weight}
            while frontier:
                node = frontier.pop()
                if self.stages[node] < Stage.GATED:
                    factors.add(node)
                    continue
                carried = [source for source in self._flow.sources[node] if source in self.stages]
                gated += [(node, s) for s in self._flow.sources[node] if s not in self.stages]
                frontier += [source for source in carried if source not in seen]
                seen.update(carried)
        if not self.joins:
            return
        self._flow.mark("pattern", factors)
        for product in self.joins:
            product.role, product.factor = "pattern", False
        for product, factor in gated:
            if product.packet is aten.mul:
                self._flow.gate("attention_gate", product, factor)

    # -- what is made of products of queries and keys ------------------------------------------------------------------

    def _stage(self, node: Node) -> Stage | None:
        sources = self._flow.sources[node]
        stages = [self.stages.get(source) for source in sources]
        known = [stage for stage in stages if stage is not None]
        if node.packet in MATRIX_PRODUCTS:
            stage = self._of_matmul(node, known)
        elif not known:
            stage = Stage.TERM if node.packet is aten.mul and self._pairs(node) else None
        elif Stage.TERM in known:
            stage = self._of_terms(node, known)
        elif node.packet is aten.mul and len(known) < len(stages):
            stage = self._of_factor(node, stages)
        elif node.packet is aten.div and len(known) < len(stages):
            stage = self._of_factor(node, stages) if stages[0] is not None else None
        elif len(known) < len(stages):
            stage = max(known) if node.packet in _ADDING and self._is_pair(node) else None
        elif (
            len(stages) == 1 and (self._flow.is_scaling(node) or node.packet in (getitem, aten.sum, aten.mean))
        ) or node.packet in SUMS:
            stage = max(known)
        else:
            stage = Stage.WEIGHT if max(known) < Stage.GATED else None
        if stage is not None and self._is_own(node):
            self.own.add(node)
        return stage

    def _of_matmul(self, node: Node, known: list[Stage]) -> Stage | None:
        left, right = node.args[-2:]
        moving = [isinstance(side, Node) and bool(self._flow.sources.get(side) or side is self._flow.graph.input)
                  for side in (left, right)]  # fmt: skip
        if len(self._flow.sources[node]) > 2:
            return None  # with a bias that moves
        if all(moving):
            if len(known) == 2:
                return Stage.WEIGHT if max(known) < Stage.GATED and Stage.TERM not in known else None
            return Stage.SCORE if not known and self._pairs(node) and not self._tokens.shared(left, right) else None
        if known:  # mixed by constants: heads may be, tokens may not
            (source,), dim = self._flow.sources[node], -1 if moving[0] else -2
            others = [n for n in self._tokens.other(source) if n.origin is not None and n.origin.projected]
            pair = [*self._tokens.own(source), *others]
            return None if known[0] is Stage.TERM or any(n.along(dim) is not None for n in pair) else known[0]
        constant = right if moving[0] else left
        origin = self._tokens.origin(constant)
        foreign = origin is not None and origin.projected and self._is_pair(node)
        return Stage.SCORE if foreign else None

    def _of_terms(self, node: Node, known: list[Stage]) -> Stage | None:
        """Moved, scaled by constants, and summed over what is no token axis."""
        if len(self._flow.sources[node]) > 1:
            return None
        if self._flow.is_scaling(node):
            return Stage.TERM
        if node.packet is not aten.sum:
            return None
        return Stage.SCORE if self._is_pair(node) else None

    def _of_factor(self, node: Node, stages: list[Stage | None]) -> Stage | None:
        """Times a factor that is not made of scores: of the query or of the key alone, or it is no weight."""
        (weight, stage), *others = [(s, t) for s, t in zip(self._flow.sources[node], stages, strict=True) if t]
        factors = [s for s, t in zip(self._flow.sources[node], stages, strict=True) if not t]
        numberings = [n for factor in factors for n in self._tokens.own(factor)]
        if others or not self._is_pair(node) or len(self._tokens.own(node)) > len(self._tokens.own(weight)):
            return None
        if len(numberings) != 1 or len(factors) != 1 or stage is Stage.GATED:
            return None
        rank, (factor,) = len(node.shape), factors
        wide = {dim + rank - len(factor.shape) for dim, size in enumerate(factor.shape) if size > 1}
        own = [n for n in self._tokens.own(node) if not _same(n, numberings[0], node)]
        if any((n.dims - numberings[0].dims) & wide for n in own):
            return None  # one number for each query and key, made in another way
        return stage if stage is Stage.SCORE else Stage.GATED

    def _pairs(self, node: Node) -> bool:
        """Whether each entry is the product of something of one token and something of another."""
        sources = list(dict.fromkeys(self._flow.sources[node]))
        counts = [len(self._tokens.own(source)) for source in sources]
        return len(sources) == 2 and counts == [1, 1] and len(self._tokens.own(node)) == 2

    def _is_pair(self, node: Node) -> bool:
        """Whether entries belong to a query and to a key, one of which may be another input's."""
        own = self._tokens.own(node)
        return len(own) > 1 or bool(own and any(o.origin and o.origin.projected for o in self._tokens.other(node)))

    def _is_own(self, node: Node) -> bool:
        return len(self._tokens.own(node)) > 1 or any(s in self.own for s in self._flow.sources[node])

    # -- what they weigh -----------------------------------------------------------------------------------------------

    def _weighed(self, node: Node) -> tuple[Node, Node] | None:
        """The weight and the values of a product over the token axis, if that is what a node is."""
        if node.packet in MATRIX_PRODUCTS:
            left, right = node.args[-2:]
            return self._weighs(left, right, (-1, -2)) or self._weighs(right, left, (-2, -1))
        if node.packet is aten.mul and len(node.args) == 2:
            a, b = node.args
            return self._weighs_by_entries(node, a, b) or self._weighs_by_entries(node, b, a)
        return None

    def _weighs(self, weight: Any, values: Any, dims: tuple[int, int]) -> tuple[Node, Node] | None:
        if not isinstance(weight, Node) or self.stages.get(weight, Stage.TERM) is Stage.TERM:
            return None
        if isinstance(values, Node):
            if values in self.stages or not self._tokens.shared(weight, values, dims):
                return None
            return weight, values
        origin = self._tokens.origin(values)
        if origin is None or not origin.leaves:
            return None
        along = [n for n in self._tokens.own(weight) if n.along(dims[0]) is not None]
        if weight in self.own and along:  # keys that move, and values that another input gives
            return (weight, weight) if origin.projected else None
        others = [n.origin for n in self._tokens.other(weight) if n.along(dims[0]) is not None]
        same = any(o is not None and o.leaves & origin.leaves and o.projected for o in others)
        return (weight, weight) if same else None

    def _weighs_by_entries(self, node: Node, weight: Any, values: Any) -> tuple[Node, Node] | None:
        """The same as a product of entries that is then summed over the tokens of the values."""
        if not isinstance(weight, Node) or not isinstance(values, Node) or values in self.stages:
            return None
        if self.stages.get(weight, Stage.TERM) is Stage.TERM or not self._flow.sources[values]:
            return None
        mine, theirs = self._tokens.own(node), self._tokens.own(values)
        shared = [n for n in mine if any(_same(n, other, node) for other in theirs)]
        users = self._flow.users[node]
        if len(theirs) != 1 or len(shared) != 1 or len(mine) < 2 or not users:
            return None
        (over,) = shared
        summed = all(u.packet is aten.sum and over.dims <= reduced(u) for u in users)
        others = [n for n in mine if n is not over]
        kept = all(not n.dims <= reduced(u) for n in others for u in users if u.packet is aten.sum)
        return (weight, values) if summed and kept else None


def _same(a: Numbering, b: Numbering, node: Node) -> bool:
    return torch.equal(a.rows, b.rows.expand(node.shape))
