"""Which part of a layer each node belongs to, found from the structure of the graph and never from class names.

- `norm`: an inverse root of a mean square, and the product that scales by it.
- `pattern`: a softmax (or another function of query-key products) that weighs values in a matrix product, and all that
  feeds nothing else.
- `attention_gate`: a moving factor that multiplies values or attention output, and all that feeds nothing else.
- `mlp_gate`: the same where no attention is involved: the multiplied activation of a gated MLP, or the first factor of
  a bilinear one.
- `activation`: any other nonlinear function of single entries, also one that is written out in several ops.

A node is a *factor* of its role when freezing the role holds it; the product that the factor enters bears the role too,
because that is where its second-order term is born, but stays live in its other operand.

Paths through the graph follow what *moves*: the chosen experts of a mixture change in jumps, so that a weight that they
pick out is a constant here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from fisherflat.jets.graph import Graph, Node, getitem
from fisherflat.jets.rules import FUNCTIONS, PIECEWISE_CONSTANT, STRUCTURAL

aten = torch.ops.aten

_MATMULS = {aten.mm, aten.bmm, aten.matmul}
_MIXING = _MATMULS | {aten.linalg_solve_triangular}
_PROJECTIONS = _MATMULS | {aten.addmm, aten.convolution}
_SUMS = {aten.add, aten.sub, aten.rsub}
_CLAMPS = {aten.clamp, aten.clamp_min, aten.clamp_max}
_UNARY = {getattr(aten, name) for name in FUNCTIONS}
_ROOTS = {aten.rsqrt, aten.sqrt, aten.pow}
_SELECTIONS = {aten.gather, aten.topk, aten.index, aten.index_select, aten.sort, aten.scatter}
#: ops whose second output says where the first one came from
_WITH_INDEX = {aten.topk, aten.sort, aten.max, aten.min, aten.median, aten.kthvalue, aten.cummax, aten.cummin}


def assign(graph: Graph) -> None:
    """Set `role` and `factor` of every node."""
    _Reader(graph).read()


def held(graph: Graph, roles: Sequence[str]) -> list[Node]:
    """The factors of some roles that something else reads: what freezing replaces by constants."""
    users = graph.users()

    def inside(node: Node) -> bool:
        return node.role in roles and node.factor

    return [
        node
        for node in graph.nodes
        if inside(node) and (node is graph.output or not all(inside(user) for user in users[node]))
    ]


def moving(graph: Graph) -> dict[Node, list[Node]]:
    """Node -> the inputs by which it moves, in order: none for an index, a comparison and what is made of them."""
    sources: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        index = node.target is getitem and node.args[1] > 0 and node.args[0].packet in _WITH_INDEX
        steady = index or node.packet in PIECEWISE_CONSTANT
        sources[node] = [] if steady else [s for s in node.inputs if s is graph.input or sources[s]]
    return sources


def entries(graph: Graph, sources: dict[Node, list[Node]]) -> dict[Node, Node]:
    """Node -> the node of which it is a function entry by entry, as far back as that goes; mostly itself."""
    found: dict[Node, Node] = {}
    for node in graph.nodes:
        roots = {found[source] for source in sources[node] if source.shape == node.shape}
        pointwise = node.packet in _UNARY | _SUMS | _CLAMPS | {aten.mul, aten.div, aten.pow, aten.neg}
        whole = len(roots) == 1 and all(source.shape == node.shape for source in sources[node])
        found[node] = roots.pop() if pointwise and whole else node
    return found


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.sources = graph, moving(graph)
        self.users = graph.users()
        self.entry = entries(graph, self.sources)

    def read(self) -> None:
        norms = self._norms()
        for output, values, scores in self._patterns():
            self._output_gates(output, norms, set() if scores is self.graph.input else self._descendants(scores))
            self._value_gates(values)
        for node in self.graph.nodes:
            if node.role == "other" and node.packet in _MIXING and len(set(self.sources[node])) == 2:
                self._output_gates(node, norms, set())  # linear attention has no pattern, but may have gates
                for operand in self.sources[node]:
                    self._value_gates(operand)
        for node in self.graph.nodes:
            if node.role == "other" and self._is_pointwise(node):
                node.role = "activation"
        for node in self.graph.nodes:
            if node.role == "other" and self._is_product(node):
                self._mlp_gate(node)

    def _mark(self, role: str, factors: Iterable[Node]) -> None:
        """The factors, and all nodes that feed only them and others of this role."""
        inside = {*factors, *(node for node in self.graph.nodes if node.role == role and node.factor)}
        for node in reversed(self.graph.nodes[1:]):
            users = self.users[node]
            if users and node is not self.graph.output and all(user in inside for user in users):
                inside.add(node)
        for node in inside:
            node.role, node.factor = role, True

    def _gate(self, role: str, product: Node, factor: Node) -> None:
        self._mark(role, {factor})
        product.role, product.factor = role, False

    # -- norms ---------------------------------------------------------------------------------------------------------

    def _norms(self) -> set[Node]:
        """Marks norms; returns the products that scale by an inverse root."""
        joins: set[Node] = set()
        for root in self.graph.nodes:
            if root.packet not in _ROOTS or not self.sources[root]:
                continue
            if root.packet is aten.pow and root.args[1] not in (0.5, -0.5):
                continue
            reduction = self._back(self.sources[root][0], self._is_scaling)
            if reduction.packet not in (aten.mean, aten.sum) or not self._is_square(self.sources[reduction][0]):
                continue
            statistic, frontier = {root}, [root]
            while frontier:  # forward to the products that scale by it
                for user in self.users[frontier.pop()]:
                    if user.packet in (aten.mul, aten.div) and len(set(self.sources[user])) == 2:
                        user.role = "norm"
                        joins.add(user)
                    elif user not in statistic and (self._is_scaling(user) or user.packet is aten.reciprocal):
                        statistic.add(user)
                        frontier.append(user)
            self._mark("norm", statistic)
        return joins

    # -- attention -----------------------------------------------------------------------------------------------------

    def _patterns(self) -> list[tuple[Node, Node, Node]]:
        """Marks patterns; returns each product of a pattern with values, its values operand, and the scores."""
        joins: list[tuple[Node, Node, Node]] = []
        for node in self.graph.nodes:
            if node.role == "pattern" or not self._weighs(node):
                continue
            chain, frontier = {node}, [node]
            found: list[tuple[Node, Node]] = []
            while frontier:
                for user in self.users[frontier.pop()]:
                    if user.packet in _MATMULS:
                        others = [source for source in self.sources[user] if source not in chain]
                        found.append((user, others[0] if others else node))  # constant values have no ancestors
                    elif user not in chain and self._is_score(user) and user.packet not in _SELECTIONS:
                        chain.add(user)
                        frontier.append(user)
            if found:
                self._mark("pattern", chain)
                for product, _ in found:
                    product.role, product.factor = "pattern", False
                scores = self._back(self.sources[node][0], self._is_score)
                joins += [(product, values, scores) for product, values in found]
        return joins

    def _weighs(self, node: Node) -> bool:
        """A softmax, or another nonlinear function of products of queries and keys."""
        if node.packet is aten._softmax:
            return True
        if node.packet not in _UNARY or not self.sources[node]:
            return False
        scores = self._back(self.sources[node][0], self._is_score)
        return scores.packet in _MATMULS and len(set(self.sources[scores])) == 2

    def _output_gates(self, attention: Node, norms: set[Node], scored: set[Node]) -> None:
        """Factors of what attention output becomes by linear maps and norms, up to a sum after the projection.

        A factor out of `scored`, made from the same scores as the pattern, is part of it: a sink, for instance.
        """
        downstream, reached = self._descendants(attention), {attention: 0}  # the number of projections on the way
        for node in self.graph.nodes[attention.index + 1 :]:
            sources = self.sources[node]
            carrying = [source for source in sources if source in reached]
            if not carrying or node.factor:
                continue
            depth = max(reached[source] for source in carrying)
            if node.role == "other" and self._is_product(node):
                factor = next((source for source in sources if source not in reached), sources[1])
                # what comes after the output projection and depends on it is no gate of attention but the next layer
                if depth == 0 or factor not in downstream:
                    role = "pattern" if factor in scored - downstream else "attention_gate"
                    self._gate(role, node, factor)
                    reached[node] = depth
            elif node in norms or (self._is_linear(node) and (depth == 0 or len(carrying) == len(sources))):
                reached[node] = depth + (node.packet in _PROJECTIONS)

    def _descendants(self, start: Node) -> set[Node]:
        reached = {start}
        for node in self.graph.nodes[start.index + 1 :]:
            if any(source in reached for source in self.sources[node]):
                reached.add(node)
        return reached

    def _value_gates(self, values: Node) -> None:
        """Factors of the values (of linear attention: also of queries and keys), back to their projection."""
        frontier, seen = [values], {values}
        while frontier:
            node = frontier.pop()
            if node.role == "other" and self._is_product(node):
                self._gate("attention_gate", node, self._gating(node, default=1))
            if node.packet not in _PROJECTIONS and (self._is_linear(node) or self._is_product(node)):
                fresh = [source for source in self.sources[node] if source not in seen]
                seen.update(fresh)
                frontier += fresh

    # -- MLP -----------------------------------------------------------------------------------------------------------

    def _mlp_gate(self, product: Node) -> None:
        heads = [self._back(source, self._is_scaling) for source in self.sources[product]]
        shared = next((head for head in heads if head.factor), None)
        activated = any(map(self._is_pointwise, heads))
        projected = all(head.packet in _PROJECTIONS or head is self.graph.input for head in heads)
        if shared is not None:  # such as 1 - g where g is a gate already
            product.role = shared.role
        elif (activated or projected) and not any(map(self._is_routed, self.sources[product])):
            self._gate("mlp_gate", product, self._gating(product, default=0))

    def _gating(self, product: Node, default: int) -> Node:
        """The operand that ends in an activation; the one at `default` where none or both do."""
        sources = self.sources[product]
        activated = [self._is_pointwise(self._back(source, self._is_scaling)) for source in sources]
        return sources[activated.index(True) if sum(activated) == 1 else default]

    def _is_routed(self, node: Node) -> bool:
        """Whether a weight comes from a router: by way of a softmax or of a selection of the largest."""
        while len(set(self.sources[node])) == 1 and node.packet not in _PROJECTIONS:
            if node.packet in _SELECTIONS or node.packet is aten._softmax:
                return True
            node = self.sources[node][0]
        return False

    # -- what a node does to what moves --------------------------------------------------------------------------------

    def _back(self, node: Node, passes: Callable[[Node], bool]) -> Node:
        """Back along single inputs while `passes(node)`."""
        while passes(node) and len(set(self.sources[node])) == 1:
            node = self.sources[node][0]
        return node

    def _is_scaling(self, node: Node) -> bool:
        """Entries moved, clamped, scaled by or added to constants."""
        if len(set(self.sources[node])) != 1 or node.packet in _SELECTIONS:
            return False
        if node.packet in (aten.mul, aten.div):
            return len(self.sources[node]) == 1 and (node.packet is aten.mul or node.args[0] is self.sources[node][0])
        return node.packet in STRUCTURAL | _SUMS | _CLAMPS | {aten.neg, getitem}

    def _is_score(self, node: Node) -> bool:
        """What happens to scores and patterns on their way: also masks and added position terms."""
        return node.packet in STRUCTURAL | _SUMS | {aten.tanh, getitem} or self._is_scaling(node)

    def _is_linear(self, node: Node) -> bool:
        """Linear maps with constant weights, and sums."""
        if node.packet in _PROJECTIONS:
            return len(self.sources[node]) == 1
        return node.packet in STRUCTURAL | _SUMS | {aten.sum, aten.mean} or self._is_scaling(node)

    def _is_pointwise(self, node: Node) -> bool:
        """A nonlinear function of single entries, in one op or as a product of functions of the same entry."""
        return self.entry[node] is not node and not (self._is_scaling(node) and node.packet not in _CLAMPS)

    def _is_square(self, node: Node) -> bool:
        if node.packet is aten.pow:
            return bool(node.args[1] == 2)
        return node.packet is aten.mul and len(self.sources[node]) == 2 and len(set(self.sources[node])) == 1

    def _is_product(self, node: Node) -> bool:
        """A product of two different things, both of which move."""
        return node.packet is aten.mul and len(set(self.sources[node])) == 2 and self.entry[node] is node
