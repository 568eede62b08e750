"""Gates: moving factors of what attention carries, and of the units of an MLP."""

from __future__ import annotations

import torch

from fisherflat.jets.graph import Node
from fisherflat.jets.ops import MIXING, PROJECTIONS, SELECTIONS, SUMS
from fisherflat.parts._flow import Flow
from fisherflat.parts._patterns import Patterns
from fisherflat.parts._tokens import Tokens, reduced

aten = torch.ops.aten

#: how the tokens of a recurrence come together
_JOINS = {aten.cat, aten.stack, aten.select_scatter, aten.slice_scatter, aten.index_put}


class Gates:
    """Finds gates, once norms and patterns are marked; `norms` are the products that scale by an inverse root."""

    def __init__(self, flow: Flow, tokens: Tokens, patterns: Patterns, norms: set[Node]) -> None:
        self._flow, self._tokens, self._patterns, self._norms = flow, tokens, patterns, norms

    # -- of attention --------------------------------------------------------------------------------------------------

    def mark_attention(self) -> None:
        """Gives the role `attention_gate`."""
        flow = self._flow
        for product, values in self._patterns.joins.items():
            self._output_gates({product})
            if values not in self._patterns.stages:
                self._value_gates(values)
        for node in flow.graph.nodes:
            if node.role == "other" and self._is_linear_attention(node):
                self._output_gates({node})  # linear attention has no pattern, but may have gates
                for operand in flow.sources[node]:
                    self._value_gates(operand)
        steps = [node for node in flow.graph.nodes if self._is_step(node)]
        if steps:
            self._recurrence(steps)

    def _is_linear_attention(self, node: Node) -> bool:
        """Whether two moving things meet in a product that is summed over an axis, or in a weighted mean of tokens."""
        flow = self._flow
        if len(set(flow.sources[node])) != 2:
            return False
        if node.packet in MIXING or self._is_form(node) or self._is_weighing(node):
            return True
        mean = node.packet is aten.div and flow.entry[node] is node
        return mean and all(map(self._tokens.mixed, flow.sources[node]))

    def _is_form(self, node: Node) -> bool:
        """A product of entries, one factor a sum over tokens, that is summed over features: a matrix product."""
        users = self._flow.users[node]
        if not self._flow.is_product(node) or not users or not any(map(self._tokens.mixed, self._flow.sources[node])):
            return False
        rows = [n.dims for n in self._tokens.own(node)]
        return bool(rows) and all(
            user.packet is aten.sum and reduced(user) and not any(dims & reduced(user) for dims in rows)
            for user in users
        )

    def _is_weighing(self, node: Node) -> bool:
        """A product of entries, one factor a weight that is normalised over tokens, that is summed over them."""
        flow = self._flow
        users = flow.users[node]
        if not flow.is_product(node) or not users:
            return False
        rows = [n.dims for n in self._tokens.own(node)]
        summed = bool(rows) and all(
            user.packet is aten.sum and any(dims & reduced(user) for dims in rows) for user in users
        )
        weights = [flow.back(source, flow.is_scaling) for source in flow.sources[node]]
        return summed and any(weight.packet is aten._softmax for weight in weights)

    def _is_step(self, node: Node) -> bool:
        """Whether two tokens meet in a product entry by entry, as in a recurrence over tokens."""
        if node.role != "other" or not self._flow.is_product(node) or node in self._patterns.stages:
            return False
        one, two = (self._tokens.own(source) for source in dict.fromkeys(self._flow.sources[node]))
        if not one or not two:
            return False
        found = self._tokens.own(node)
        return not all(
            len(side) == len(found) and all(any(_equal(n.rows.expand(node.shape), m.rows) for m in found) for n in side)
            for side in (one, two)
        )

    def _recurrence(self, steps: list[Node]) -> None:
        """State spaces and their kin: each step carries a state of earlier tokens on, times a factor of its own."""
        flow = self._flow
        carried = flow.descendants(steps)
        states_of = {
            node: [s for s in dict.fromkeys(flow.sources[node]) if s in carried and s not in steps] for node in steps
        }
        if all(len(states) != 1 for states in states_of.values()):
            return  # nothing is carried on: a shift of tokens
        for node in steps:
            sources, states = list(dict.fromkeys(flow.sources[node])), states_of[node]
            latest = self._tokens.own(node)
            later = [s for s in sources if any(_equal(n.rows.expand(node.shape), latest[0].rows)
                                               for n in self._tokens.own(s))]  # fmt: skip
            factors = [source for source in sources if source not in states] if len(states) == 1 else later
            factor = factors[0] if factors else sources[0]
            state = next(source for source in sources if source is not factor)
            self._value_gates(state)
            for user in flow.users[node]:
                if user.packet in SUMS:
                    for source in flow.sources[user]:
                        if source is not node:
                            self._value_gates(source)
            if node.role == "other":
                flow.gate("attention_gate", node, factor)
        for node in flow.graph.nodes:
            if node in carried and node.packet in _JOINS:  # beside the first token, which has no state before it
                for source in flow.sources[node]:
                    if source not in carried:
                        self._value_gates(source)
        self._output_gates(set(steps))

    def _output_gates(self, attention: set[Node]) -> None:
        """Factors of what attention output becomes by linear maps and norms, up to a sum after the projection.

        A factor that is made of the same scores as the pattern, as a sink is, is part of it.
        """
        flow = self._flow
        downstream = flow.descendants(attention)
        reached = dict.fromkeys(attention, 0)  # the number of projections on the way
        for node in flow.graph.nodes[min(node.index for node in attention) + 1 :]:
            sources = flow.sources[node]
            carrying = [source for source in sources if source in reached]
            if not carrying or node.factor:
                continue
            depth = max(reached[source] for source in carrying)
            if node.role == "other" and flow.is_product(node):
                factor = next((source for source in sources if source not in reached), sources[1])
                # what comes after the output projection and depends on it is no gate of attention but the next layer
                if depth == 0 or factor not in downstream:
                    scored = factor in self._patterns.own and factor not in downstream
                    flow.gate("pattern" if scored else "attention_gate", node, factor)
                    reached[node] = depth
            elif node.packet is aten.div and node.args[0] in reached and node.args[1] in reached:
                reached[node] = depth  # a weighted mean
            elif node in self._norms or (flow.is_linear(node) and (depth == 0 or len(carrying) == len(sources))):
                reached[node] = reached.get(node, depth + (node.packet in PROJECTIONS))

    def _value_gates(self, values: Node) -> None:
        """Factors of the values (of linear attention: also of queries and keys), back to their projection."""
        flow = self._flow
        frontier, seen = [values], {values}
        while frontier:
            node = frontier.pop()
            if node.role == "other" and flow.is_product(node):
                flow.gate("attention_gate", node, self._gating(node, default=1))
            mean = node.packet is aten.div and len(set(flow.sources[node])) == 2
            if node.packet not in PROJECTIONS and (mean or flow.is_linear(node) or flow.is_product(node)):
                fresh = [source for source in flow.sources[node] if source not in seen]
                seen.update(fresh)
                frontier += fresh

    # -- of MLPs -------------------------------------------------------------------------------------------------------

    def mark_mlp(self) -> None:
        """Gives the role `mlp_gate`, once activations are marked."""
        for node in self._flow.graph.nodes:
            if node.role == "other" and self._flow.is_product(node) and not self._is_form(node):
                self._mlp_gate(node)

    def _mlp_gate(self, product: Node) -> None:
        flow = self._flow
        heads = [flow.back(source, flow.is_scaling) for source in flow.sources[product]]
        shared = next((head for head in heads if head.factor), None)
        activated = any(map(flow.is_pointwise, heads))
        projected = all(head.packet in PROJECTIONS or head is flow.graph.input for head in heads)
        if shared is not None:  # such as 1 - g where g is a gate already
            product.role = shared.role
        elif _is_outer(product, flow.sources[product]):
            return  # of linear attention
        elif (activated or projected) and not any(map(self._is_routed, flow.sources[product])):
            flow.gate("mlp_gate", product, self._gating(product, default=0))

    def _gating(self, product: Node, default: int) -> Node:
        """The operand that ends in an activation; the one at `default` where none or both do."""
        flow = self._flow
        sources = flow.sources[product]
        scored = [source in self._patterns.stages for source in sources]
        if sum(scored) == 1:  # a decay of products of queries and keys
            return sources[scored.index(False)]
        activated = [flow.is_pointwise(flow.back(source, flow.is_scaling)) for source in sources]
        return sources[activated.index(True) if sum(activated) == 1 else default]

    def _is_routed(self, node: Node) -> bool:
        """Whether a weight comes from a router: by way of a softmax or of a selection of the largest."""
        flow = self._flow
        while len(set(flow.sources[node])) == 1 and node.packet not in PROJECTIONS:
            if node.packet in SELECTIONS or node.packet is aten._softmax:
                return True
            node = flow.sources[node][0]
        return False


def _is_outer(product: Node, sources: list[Node]) -> bool:
    """Whether each factor is repeated along an axis of the other one."""
    shapes = [(1,) * (len(product.shape) - len(source.shape)) + tuple(source.shape) for source in sources]
    return all(any(n == 1 < m for n, m in zip(shape, product.shape, strict=True)) for shape in shapes)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a, b)
