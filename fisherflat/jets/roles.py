"""Which part of a layer each node belongs to, found from the structure of the graph and never from class names.

- `norm`: an inverse root of a mean square, and the product that scales by it.
- `pattern`: a softmax (or another function of query-key products) that weighs values in a matrix product, and all that
  feeds nothing else.
- `attention_gate`: a moving factor that multiplies values or attention output, and all that feeds nothing else.
- `mlp_gate`: the same where no attention is involved: the multiplied activation of a gated MLP, or the first factor of
  a bilinear one.
- `activation`: any other function of single entries.

A node is a *factor* of its role when freezing the role holds it; the product that the factor enters bears the role too,
because that is where its second-order term is born, but stays live in its other operand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from fisherflat.jets.elementary import FUNCTIONS
from fisherflat.jets.graph import Graph, Node, getitem
from fisherflat.jets.rules import STRUCTURAL

aten = torch.ops.aten

_PRODUCTS = {aten.mm, aten.bmm, aten.matmul}
_UNARY = {getattr(aten, name) for name in FUNCTIONS} | {aten.log_sigmoid_forward}
_ROOTS = {aten.rsqrt, aten.sqrt, aten.pow}
_SELECTION = {aten.gather, aten.topk, aten.index, aten.index_select, aten.sort}


def assign(graph: Graph) -> None:
    """Set `role` and `factor` of every node."""
    _Reader(graph).read()


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.users = graph, graph.users()

    def read(self) -> None:
        joins = self._norms()
        attention = self._patterns()
        self._attention_gates(attention, joins)
        for node in self.graph.nodes:
            if node.role == "other" and _is_moving_product(node):
                self._other_product(node)
        for node in self.graph.nodes:
            if node.role == "other" and _is_nonlinear_unary(node):
                node.role = "activation"

    # -- norms -------------------------------------------------------------------------------------------------------

    def _norms(self) -> set[Node]:
        joins: set[Node] = set()
        for node in self.graph.nodes:
            if node.packet not in _ROOTS or (node.packet is aten.pow and node.args[1] not in (0.5, -0.5)):
                continue
            reduction = _back(node.inputs[0], _passes_constants)
            if reduction.packet not in (aten.mean, aten.sum) or not _is_square(reduction.inputs[0]):
                continue
            statistic = {node}
            frontier = [node]
            while frontier:  # forward to the products that scale by it
                for user in self.users[frontier.pop()]:
                    if user.packet in (aten.mul, aten.div) and len(set(user.inputs)) == 2:
                        user.role = "norm"
                        joins.add(user)
                    elif user not in statistic and (_passes_constants(user) or user.packet is aten.reciprocal):
                        statistic.add(user)
                        frontier.append(user)
            self._mark("norm", statistic)
        return joins

    def _mark(self, role: str, factors: Iterable[Node]) -> None:
        """The factors, and all nodes that feed only them."""
        inside = set(factors)
        for node in reversed(self.graph.nodes[1:]):
            users = self.users[node]
            if node not in inside and users and all(user in inside for user in users) and node is not self.graph.output:
                inside.add(node)
        for node in inside:
            node.role, node.factor = role, True

    # -- attention ---------------------------------------------------------------------------------------------------

    def _patterns(self) -> list[tuple[Node, Node]]:
        """Marks patterns; returns each product of a pattern with values, and its values operand."""
        joins: list[tuple[Node, Node]] = []
        for node in self.graph.nodes:
            weighs = node.packet is aten._softmax or (
                node.packet in _UNARY
                and _is_nonlinear_unary(node)
                and _is_moving_matmul(_back(node.inputs[0], _passes_scores))
            )
            if not weighs or node.role == "pattern":
                continue
            chain, found, frontier = {node}, [], [node]
            while frontier:
                for user in self.users[frontier.pop()]:
                    if user.packet in _PRODUCTS and len(user.inputs) == 2:
                        other = next(source for source in user.inputs if source not in chain)
                        found.append((user, other))
                    elif user.packet in _PRODUCTS:
                        found.append((user, node))  # the values are constant
                    elif user not in chain and _passes_scores(user) and user.packet not in _SELECTION:
                        chain.add(user)
                        frontier.append(user)
            if not found:
                continue
            self._mark("pattern", chain)
            for product, _ in found:
                product.role, product.factor = "pattern", False
            joins += found
        return joins

    def _attention_gates(self, attention: list[tuple[Node, Node]], norm_joins: set[Node]) -> None:
        for join, values in attention:
            output = self._linear_descendants(join, norm_joins)
            for node in [n for n in self.graph.nodes if _is_moving_product(n) and n.role == "other"]:
                inside = [source in output for source in node.inputs]
                if any(inside):
                    self._gate("attention_gate", node, node.inputs[0] if inside == [False, True] else node.inputs[1])
            for node in self._linear_ancestors(values):
                if _is_moving_product(node) and node.role == "other":
                    self._gate("attention_gate", node, self._gate_operand(node, default=1))

    def _linear_descendants(self, start: Node, norm_joins: set[Node]) -> set[Node]:
        """What attention output becomes up to the residual stream: linear maps, norms and gates of it."""
        reached = {start}
        for node in self.graph.nodes[start.index + 1 :]:
            sources = node.inputs
            touched = [source for source in sources if source in reached]
            if not touched or node.factor:
                continue
            merges = node.packet in (aten.add, aten.sub) and len(touched) < len(sources)
            scaled = node in norm_joins or (_is_moving_product(node) and node.role == "other")
            if (_passes_linear(node) and not merges) or scaled:
                reached.add(node)
        return reached

    def _linear_ancestors(self, start: Node) -> list[Node]:
        found, frontier, seen = [], [start], {start}
        while frontier:
            node = frontier.pop()
            found.append(node)
            projection = node.packet in (aten.mm, aten.addmm, aten.matmul, aten.bmm)
            if projection or node.target is None or not (_passes_linear(node) or _is_moving_product(node)):
                continue
            for source in node.inputs:
                if source not in seen:
                    seen.add(source)
                    frontier.append(source)
        return found

    # -- other products ------------------------------------------------------------------------------------------------

    def _gate(self, role: str, product: Node, operand: Node) -> None:
        self._mark(role, {operand})
        product.role, product.factor = role, False

    def _gate_operand(self, product: Node, default: int) -> Node:
        """The operand that ends in an activation; the one at `default` where none or both do."""
        activated = [_is_nonlinear_unary(_back(source, _passes_constants)) for source in product.inputs]
        return product.inputs[activated.index(True) if sum(activated) == 1 else default]

    def _other_product(self, product: Node) -> None:
        a, b = product.inputs
        if _entry(a) is _entry(b):  # x sigmoid(x): one function of single entries, written out
            self._gate("activation", product, self._gate_operand(product, default=1))
            return
        heads = [_back(source, _passes_constants) for source in (a, b)]
        routed = any(_back(source, _passes_scores).packet in (aten._softmax, aten.topk, getitem) for source in (a, b))
        activated = any(_is_nonlinear_unary(head) for head in heads)
        projected = all(
            head.packet in (aten.mm, aten.addmm, aten.bmm, aten.convolution) or head.target is None for head in heads
        )
        if not routed and (activated or projected):
            self._gate("mlp_gate", product, self._gate_operand(product, default=0))


def _back(node: Node, passes: Callable[[Node], bool]) -> Node:
    """Back along single inputs while `passes(node)`."""
    while passes(node) and len(set(node.inputs)) == 1:
        node = node.inputs[0]
    return node


def _passes_constants(node: Node) -> bool:
    """Entries moved, scaled by or added to constants."""
    if node.packet in _SELECTION:
        return False
    if node.packet in STRUCTURAL or node.packet in (aten.neg, aten.clamp, aten.clamp_min, getitem):
        return len(set(node.inputs)) == 1
    return node.packet in (aten.mul, aten.div, aten.add, aten.sub, aten.rsub) and len(node.inputs) == 1


def _passes_scores(node: Node) -> bool:
    """What happens to scores and patterns on their way: also masks and added position terms."""
    return (
        node.packet in STRUCTURAL
        or node.packet in (aten.add, aten.sub, aten.tanh, aten.neg, getitem)
        or _passes_constants(node)
    )


def _passes_linear(node: Node) -> bool:
    """Linear maps with constant weights, and sums."""
    if node.packet in (aten.mm, aten.addmm, aten.bmm, aten.matmul, aten.convolution):
        return len(node.inputs) == 1
    return (
        node.packet in (aten.add, aten.sub, aten.sum, aten.mean) or node.packet in STRUCTURAL or _passes_constants(node)
    )


def _is_nonlinear_unary(node: Node) -> bool:
    if node.packet in (aten.clamp, aten.clamp_min, aten.clamp_max):
        return True
    return node.packet in _UNARY or (node.packet is aten.pow and len(node.inputs) == 1)


def _is_square(node: Node) -> bool:
    if node.packet is aten.mul:
        return len(node.inputs) == 2 and len(set(node.inputs)) == 1
    return node.packet is aten.pow and node.args[1] == 2


def _is_moving_product(node: Node) -> bool:
    return node.packet is aten.mul and len(node.inputs) == 2 and len(set(node.inputs)) == 2


def _is_moving_matmul(node: Node) -> bool:
    return node.packet in _PRODUCTS and len(node.inputs) == 2


def _entry(node: Node) -> Node:
    """Back along functions of single entries, and along products whose operands come from one and the same entry."""
    while True:
        sources = list(dict.fromkeys(node.inputs))
        if len(sources) == 1 and (_is_nonlinear_unary(node) or _passes_constants(node) or _is_square(node)):
            node = sources[0]
        elif len(sources) == 2 and node.packet in (aten.mul, aten.add) and _entry(sources[0]) is _entry(sources[1]):
            node = _entry(sources[0])
        else:
            return node


def held(graph: Graph, role: str) -> list[Node]:
    """The factors of a role that something else reads: what freezing replaces by constants."""
    users = graph.users()
    return [
        node
        for node in graph.nodes
        if node.role == role
        and node.factor
        and (node is graph.output or any(not (user.role == role and user.factor) for user in users[node]))
    ]
