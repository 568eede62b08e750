"""The verifier's own reading of a graph's structure: from a list of op names, not from the rules of the engines."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fisherflat.certificates import Analytic
from fisherflat.jets.graph import Graph, Node


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: affine in all their moving arguments together, as long as nothing that is read off the input decides what goes where
_AFFINE = _words(
    "add sub rsub neg sum mean cumsum trace reshape permute expand select slice cat stack index index_select gather "
    "flip roll repeat tril triu diagonal diag_embed constant_pad_nd slice_scatter select_scatter diagonal_scatter "
    "index_put index_copy index_fill index_add scatter scatter_add where masked_fill unfold rot90 reflection_pad1d "
    "reflection_pad2d replication_pad1d replication_pad2d pixel_shuffle pixel_unshuffle channel_shuffle im2col col2im "
    "embedding avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d upsample_linear1d upsample_bilinear2d "
    "getitem"
)
#: affine in one argument while the others are constant
_PRODUCTS = _words("mul mm bmm matmul")
_CONSTANT = _words("zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty new_empty_strided")

#: real-analytic for all arguments
_ENTIRE = _words(
    "exp expm1 sin cos sinh cosh tanh atan asinh sigmoid silu gelu erf erfc log_sigmoid log_sigmoid_forward _softmax "
    "logsumexp mul div mm bmm matmul addmm convolution"
)
_ROOTS = _words("log sqrt rsqrt reciprocal")
_OTHERS = _words("log1p tan acos acosh asin atanh erfinv")


class Affinity:
    """Which nodes of a graph are constant, affine or nonlinear in its input.

    **Attributes:** `orders`: node -> `"constant"`, `"affine"` or `"nonlinear"`; `order` of the output.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.orders: dict[Node, str] = {}
        for node in graph.nodes:
            self.orders[node] = self._order(node)
        self.order = "constant" if isinstance(graph.output, Tensor) else self.orders[graph.output]

    def _order(self, node: Node) -> str:
        name = _name(node)
        if node.target is None:
            return "affine"
        moving = [source for source in node.inputs if self.orders[source] != "constant"]
        if not moving or name in _CONSTANT:
            return "constant"
        if any(self.orders[source] == "nonlinear" for source in moving):
            return "nonlinear"
        return "affine" if self._is_affine(name, node, moving) else "nonlinear"

    def _is_affine(self, name: str, node: Node, moving: list[Node]) -> bool:
        if name == "scatter" and "reduce" in str(node.target):
            return False
        if name == "_to_copy":
            return bool(node.kwargs["dtype"].is_floating_point)
        if name in _PRODUCTS:
            return len(moving) == 1
        if name == "addmm":
            return len([a for a in node.args[1:3] if isinstance(a, Node) and a in moving]) < 2
        if name == "div":
            return len(moving) == 1 and node.args[0] is moving[0] and node.kwargs.get("rounding_mode") is None
        if name == "convolution":
            return len(moving) == 1 and node.args[0] is moving[0]
        return name in _AFFINE

    def analytic(self) -> Analytic | None:
        """Whether every op on the way is real-analytic, and which of them might not be defined for some input."""
        ops: list[str] = []
        restricted: list[str] = []
        self.positive: dict[Node, bool] = {}
        self.nonnegative: dict[Node, bool] = {}
        for node in self.graph.nodes:
            self._note_sign(node)
            if self.orders[node] == "constant" or node.target is None:
                continue
            name, where = _name(node), f"{node.op} at {node.source}"
            if (
                name not in _AFFINE | _ENTIRE | _ROOTS | _OTHERS | {"pow"}
                or node.kwargs.get("rounding_mode") is not None
            ):
                return None
            if name == "pow" and not isinstance(node.args[1], (int, float)):
                return None
            divisor = node.args[1] if name == "div" else node.args[0] if name in _ROOTS or self._is_root(node) else None
            limited = isinstance(divisor, Node) and self.orders[divisor] != "constant" and not self.positive[divisor]
            if (limited or name in _OTHERS) and where not in restricted:
                restricted.append(where)
            if node.op not in ops:
                ops.append(node.op)
        return Analytic(tuple(ops), tuple(restricted))

    @staticmethod
    def _is_root(node: Node) -> bool:
        """A power with an exponent that is no natural number."""
        if _name(node) != "pow" or not isinstance(node.args[1], (int, float)):
            return False
        return node.args[1] < 0 or node.args[1] % 1 != 0

    def _note_sign(self, node: Node) -> None:
        """Whether a node is positive, or at least not negative, whatever the input is."""
        name = _name(node)
        first, second = ([*node.args, None, None])[:2]
        squared = name == "mul" and first is second
        even = name == "pow" and isinstance(second, (int, float)) and second >= 0 and second % 2 == 0
        plus = [self._at_least_zero(a) for a in (first, second)]
        above = [self._above_zero(a) for a in (first, second)]
        plain = len(node.args) == 2 and not node.kwargs
        if squared or even:
            self.positive[node], self.nonnegative[node] = above[0], True
        elif name in ("exp", "sigmoid", "_softmax"):
            self.positive[node], self.nonnegative[node] = False, True
        elif name in _words("mean sum sqrt rsqrt reciprocal reshape expand permute select slice"):
            self.positive[node], self.nonnegative[node] = above[0], plus[0]
        elif name == "add" and plain:
            self.positive[node], self.nonnegative[node] = all(plus) and any(above), all(plus)
        elif name in ("mul", "div"):
            self.positive[node], self.nonnegative[node] = all(above), all(plus)
        else:
            self.positive[node] = self.nonnegative[node] = False

    def _at_least_zero(self, argument: Any) -> bool:
        if isinstance(argument, Node):
            return self.nonnegative[argument]
        return bool((argument >= 0).all()) if isinstance(argument, Tensor) else _is_number(argument) and argument >= 0

    def _above_zero(self, argument: Any) -> bool:
        if isinstance(argument, Node):
            return self.positive[argument]
        return bool((argument > 0).all()) if isinstance(argument, Tensor) else _is_number(argument) and argument > 0


def _is_number(argument: Any) -> bool:
    return isinstance(argument, (int, float))


def _name(node: Node) -> str:
    return node.op.removeprefix("aten.")
