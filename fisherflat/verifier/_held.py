"""What a frozen graph holds, found anew: a frozen graph is compared with the live one, node by node.

A node of the live graph is *fixed* where it is held or reads fixed nodes alone. The frozen graph has to do to its input
what the live graph does, with constants in the place of fixed nodes, and with tangents in the place of activations that
are held. What those constants are to be worth is then computed from the live graph, in balls.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flint import arb
from torch import Tensor

from fisherflat.jets.graph import Graph, Node, leaves
from fisherflat.verifier._affinity import words
from fisherflat.verifier._evaluator import node_values, result
from fisherflat.verifier._polynomials import Array, Polynomial, exact, monomials

_ENTRYWISE = words(
    "abs acos acosh add asin asinh atan atanh clamp clamp_max clamp_min cos cosh div elu erf erfc erfinv exp expm1 "
    "gelu leaky_relu log log1p log_sigmoid mul neg pow reciprocal relu rsqrt rsub sigmoid silu sin sinh softplus sqrt "
    "sub tan tanh"
)


class HeldError(Exception):
    """A frozen graph that is not what it says."""


@dataclass(frozen=True)
class Worth:
    """What a constant stands for: the value of a node, or the `slope` or `intercept` of its tangent."""

    node: Node
    form: str = "value"


class Comparison:
    """A frozen graph beside the live graph that it comes from.

    **Attributes:** `held`: index of a held node -> role; `worth`: `id` of a constant of the frozen graph -> what it
    stands for; constants that the live graph has too are not in it.

    **Raises:** `HeldError` where the frozen graph is not the live one with these nodes held.
    """

    def __init__(self, frozen: Graph) -> None:
        if frozen.live is None:
            raise HeldError("the graph says that parts of it are held, and does not say of what")
        cpu = torch.device("cpu")
        self.frozen, self.graph = frozen, frozen.live.graph.to(torch.float64, cpu)
        self.at = frozen.live.at.to(torch.float64).to(cpu)
        if self.graph.holdings:
            raise HeldError("parts of the map are held at one input, and others at another; freeze it once")
        self.held: dict[int, str] = {}
        for holding in frozen.holdings:
            if not 0 < holding.node < len(self.graph.nodes) or holding.node in self.held:
                raise HeldError(f"there is no node %{holding.node} to hold, or it is held twice")
            self.held[holding.node] = holding.role
        self.tangents = {i for i, role in self.held.items() if role == "activation"}
        self.roots = roots(self.graph)
        self.fixed: set[Node] = set()
        for node in self.graph.nodes[1:]:
            is_held = node.index in self.held and node.index not in self.tangents
            if is_held or all(source in self.fixed for source in node.inputs):
                self.fixed.add(node)
        self.worth: dict[int, Worth] = {}
        self._compare()

    def nodes(self, role: str) -> list[Node]:
        """The held nodes of a role."""
        return [self.graph.nodes[index] for index, held in self.held.items() if held == role]

    def _compare(self) -> None:
        pending: list[tuple[Any, Any]] = [(self.frozen.output, self.graph.output)]
        seen: set[tuple[int, int]] = set()
        while pending:
            mine, live = pending.pop()
            if (id(mine), id(live)) in seen:
                continue
            seen.add((id(mine), id(live)))
            if isinstance(mine, Tensor):
                self._constant(mine, live)
            elif not isinstance(mine, Node):
                self._require(type(mine) is type(live) and (mine == live or mine != mine), live)
            else:
                self._require(isinstance(live, Node) and live not in self.fixed, live)
                pending += self._tangent(mine, live) if live.index in self.tangents else self._node(mine, live)

    def _constant(self, mine: Tensor, live: Any) -> None:
        if isinstance(live, Tensor):
            same = mine.shape == live.shape and torch.equal(torch.nan_to_num(mine), torch.nan_to_num(live.to(mine)))
            self._require(same, live)
        else:
            self._require(isinstance(live, Node) and live in self.fixed and tuple(mine.shape) == live.shape, live)
            self.worth[id(mine)] = Worth(live)

    def _node(self, mine: Node, live: Node) -> Iterator[tuple[Any, Any]]:
        self._require((mine.target, mine.shape) == (live.target, live.shape), live)
        here, there = (list(leaves((node.args, node.kwargs))) for node in (mine, live))
        self._require(len(here) == len(there) and mine.kwargs.keys() == live.kwargs.keys(), live)
        return zip(here, there, strict=True)

    def _tangent(self, total: Node, live: Node) -> list[tuple[Any, Any]]:
        """`x * slope + intercept`, x what the activation is a function of."""
        x, product = self.roots[live], total.args[0] if total.args else None
        written = (
            x is not live
            and (total.op, total.kwargs) == ("aten.add", {})
            and isinstance(product, Node)
            and (product.op, product.kwargs) == ("aten.mul", {})
            and len(total.args) == len(product.args) == 2
            and all(isinstance(number, Tensor) for number in (product.args[1], total.args[1]))
        )
        self._require(written, live)
        assert isinstance(product, Node)
        self.worth[id(product.args[1])] = Worth(live, "slope")
        self.worth[id(total.args[1])] = Worth(live, "intercept")
        return [(product.args[0], x)]

    def _require(self, condition: bool, live: Any) -> None:
        if not condition:
            raise HeldError(f"the frozen graph differs from the live one, held as stated, at {live}")

    # -- numbers -------------------------------------------------------------------------------------------------------

    def values(self) -> dict[int, Array]:
        """`id` of a constant -> what it is to be worth at the base point, in balls.

        **Raises:** as `evaluate`.
        """
        wanted = {w.node for w in self.worth.values()} | {self.roots[w.node] for w in self.worth.values()}
        base = Polynomial([exact(self.at)], 0)
        found = node_values(self.graph, base, [node for node in wanted if node.target is not None])
        found[self.graph.input] = base
        return {key: self._value(worth, found) for key, worth in self.worth.items()}

    def _value(self, worth: Worth, found: dict[Node, Polynomial]) -> Array:
        node = worth.node
        if worth.form == "value":
            return found[node].value
        x = found[self.roots[node]].value
        moving = Polynomial([x, np.full(x.shape, arb(1), dtype=object), *[None] * (len(monomials(1)) - 2)], 1)
        y = result(self.graph, node, {self.roots[node]: moving}, found, 1)
        slope = np.full(x.shape, arb(0), dtype=object) if y.parts[1] is None else y.parts[1]
        return slope if worth.form == "slope" else y.value - slope * x


def roots(graph: Graph) -> dict[Node, Node]:
    """Node -> what it is a function of entry by entry, as far back as that goes; mostly itself."""
    moving = {graph.input}
    found = {graph.input: graph.input}
    for node in graph.nodes[1:]:
        sources = [source for source in node.inputs if source in moving]
        if sources:
            moving.add(node)
        alike = {found[source] for source in sources if source.shape == node.shape}
        whole = len(alike) == 1 and all(source.shape == node.shape for source in sources)
        found[node] = alike.pop() if whole and node.op.removeprefix("aten.") in _ENTRYWISE else node
    return found
