"""The verifier's own reading of a graph's structure: from a list of op names, not from the rules of the engines."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from fisherflat.certificates import Analytic
from fisherflat.jets.graph import Graph, Node, leaves


def words(text: str) -> frozenset[str]:
    """The names in a text."""
    return frozenset(text.split())


#: affine in all their moving arguments together, as long as nothing that is read off the input decides what goes where
_AFFINE = words(
    "add sub rsub neg sum mean cumsum trace reshape permute expand select slice cat stack index index_select gather "
    "flip roll repeat tril triu diagonal diag_embed constant_pad_nd slice_scatter select_scatter diagonal_scatter "
    "index_put index_copy index_fill index_add scatter scatter_add where masked_fill unfold rot90 reflection_pad1d "
    "reflection_pad2d replication_pad1d replication_pad2d pixel_shuffle pixel_unshuffle channel_shuffle im2col col2im "
    "embedding reflection_pad3d replication_pad3d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d "
    "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa "
    "getitem"
)
#: affine in one argument while the others are constant
_PRODUCTS = words("mul mm bmm matmul")
_MOVED = words(
    "reshape permute expand select slice cat stack flip roll repeat rot90 tril triu diagonal diag_embed unfold "
    "constant_pad_nd slice_scatter select_scatter diagonal_scatter im2col pixel_shuffle pixel_unshuffle "
    "channel_shuffle reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d "
    "replication_pad3d"
)
_CONSTANT = words("zeros_like ones_like full_like empty_like new_zeros new_ones new_full new_empty new_empty_strided")

#: affine where nothing is at a kink; what tells on which side of one it is; what picks entries by their size
_KINKED = words("relu abs leaky_relu clamp clamp_min clamp_max")
_COMPARISONS = words("lt le gt ge eq ne heaviside sign sgn")
_RANKED = words("amax amin max min topk sort median kthvalue cummax cummin argmax argmin argsort")
_LOGIC = words("logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor")
#: put entries where an index or a mask says: the places of these among the arguments
_PLACED = {
    "where": (0,), "masked_fill": (1,), "gather": (2,), "index": (1,), "index_select": (2,), "scatter": (2,),
    "index_put": (1,), "embedding": (1,), "scatter_add": (2,), "index_add": (2,), "index_copy": (2,),
    "index_fill": (2,),
}  # fmt: skip

#: real-analytic for all arguments
_ENTIRE = words(
    "exp expm1 sin cos sinh cosh tanh atan asinh sigmoid silu gelu erf erfc log_sigmoid log_sigmoid_forward _softmax "
    "logsumexp mul div mm bmm matmul addmm convolution exp2 mish sinc special_ndtr _log_softmax _linalg_det "
    "linalg_matrix_exp"
)
_ROOTS = words("log log2 log10 sqrt rsqrt reciprocal")
_OTHERS = words(
    "log1p tan acos acosh asin atanh erfinv digamma lgamma _linalg_solve_ex linalg_inv_ex _linalg_slogdet "
    "linalg_cholesky_ex linalg_qr linalg_solve_triangular"
)


#: real-analytic where they are defined, besides what is affine
ANALYTIC = _ENTIRE | _ROOTS | _OTHERS | {"pow"}


class Affinity:
    """What the nodes of a graph are as functions of its input.

    **Attributes:** `orders`: node -> `"constant"`, `"choice"` (one of finitely many constants, by the signs of what is
    affine by pieces), `"affine"`, `"affine by pieces"` (of finitely many polyhedra) or `"nonlinear"`; `order` of the
    output; `kinks`: the nodes that make pieces out of what is affine.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.orders: dict[Node, str] = {}
        for node in graph.nodes:
            self.orders[node] = self._order(node)
        self.order = "constant" if isinstance(graph.output, Tensor) else self.orders[graph.output]
        self.kinks = [
            node
            for node in graph.nodes
            if self.orders[node] in ("choice", "affine by pieces")
            and _name(node) in _KINKED | _COMPARISONS | _RANKED
            and any(self.orders[source].startswith("affine") for source in node.inputs)
        ]

    def _order(self, node: Node) -> str:
        name = _name(node)
        if node.target is None:
            return "affine"
        moving = [source for source in node.inputs if self.orders[source] != "constant"]
        if not moving or name in _CONSTANT:
            return "constant"
        kinds = {self.orders[source] for source in moving}
        if "nonlinear" in kinds or not _is_float(node.kwargs.get("dtype")):
            return "choice" if kinds == {"choice"} and name == "_to_copy" else "nonlinear"
        if kinds == {"affine"} and self._is_affine(name, node, moving):
            return "affine"
        return self._by_pieces(name, node, moving, kinds)

    def _by_pieces(self, name: str, node: Node, moving: list[Node], kinds: set[str]) -> str:
        pieces = "affine by pieces"
        if name == "getitem":
            ranked = _name(node.args[0]) in _RANKED
            return "choice" if kinds == {"choice"} or (ranked and node.args[1] > 0) else pieces
        if name in ("amax", "amin") and math.prod(node.shape) == math.prod(moving[0].shape):
            return self.orders[moving[0]]  # the largest of one
        if name in _RANKED:
            return "choice" if name.startswith("arg") or kinds == {"choice"} else pieces
        if name in _COMPARISONS:
            return "choice"
        if kinds == {"choice"} and (name in _LOGIC or name in ("mul", "neg", "_to_copy")):
            return "choice"
        if kinds == {"choice"} and name in ("add", "sub", "rsub"):
            return "choice" if len(moving) == 1 else "nonlinear"  # to count choices is no choice
        if name in _KINKED:
            return pieces if len(moving) == 1 else "nonlinear"
        if name in _PLACED:
            if "reduce" in str(node.target):
                return "nonlinear"
            chosen = {leaf for place in _PLACED[name] for leaf in leaves(node.args[place])}
            if any(source in chosen and self.orders[source] != "choice" for source in moving):
                return "nonlinear"
            placed = {self.orders[source] for source in moving if source not in chosen}
            if not placed or placed == {"choice"}:
                return "choice"
            return "nonlinear" if "choice" in placed else pieces
        both = name == "convolution" and all(source in node.args[:2] for source in moving)
        if (name in _PRODUCTS or both) and len(moving) == 2:
            return pieces if sum(self.orders[source] == "choice" for source in moving) == 1 else "nonlinear"
        if "choice" in kinds:  # as numbers of their own they would make the map jump by more than a choice of pieces
            return "choice" if kinds == {"choice"} and name in _MOVED else "nonlinear"
        return pieces if self._is_affine(name, node, moving) else "nonlinear"

    def _is_affine(self, name: str, node: Node, moving: list[Node]) -> bool:
        if name == "scatter" and "reduce" in str(node.target):
            return False
        if name == "_to_copy":
            return True
        if name in _PRODUCTS:
            return len(moving) == 1
        if name == "addmm":
            return len([a for a in node.args[1:3] if isinstance(a, Node) and a in moving]) < 2
        if name == "div":
            return len(moving) == 1 and node.args[0] is moving[0] and node.kwargs.get("rounding_mode") is None
        if name == "convolution":
            return len([argument for argument in node.args[:2] if argument in moving]) < 2
        if name in ("linalg_solve_triangular", "_linalg_solve_ex"):
            return node.args[0] not in moving
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
            if name not in _AFFINE | ANALYTIC or node.kwargs.get("rounding_mode") is not None:
                return None
            if name == "pow" and not isinstance(node.args[0], Node):
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
        if _name(node) != "pow":
            return False
        exponent = _as_number(node.args[1])
        return exponent is None or exponent < 0 or exponent % 1 != 0

    def _note_sign(self, node: Node) -> None:
        """Whether a node is positive, or at least not negative, whatever the input is."""
        name = _name(node)
        first, second = ([*node.args, None, None])[:2]
        squared = name == "mul" and first is second
        exponent = _as_number(second) if name == "pow" else None
        even = exponent is not None and exponent >= 0 and exponent % 2 == 0
        plus = [self._at_least_zero(a) for a in (first, second)]
        above = [self._above_zero(a) for a in (first, second)]
        plain = len(node.args) == 2 and not node.kwargs
        if squared or even:
            self.positive[node], self.nonnegative[node] = above[0], True
        elif name in ("exp", "exp2", "sigmoid", "special_ndtr", "_softmax"):
            self.positive[node], self.nonnegative[node] = False, True
        elif name in words("mean sum sqrt rsqrt reciprocal reshape expand permute select slice"):
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


def _is_float(dtype: Any) -> bool:
    return dtype is None or dtype.is_floating_point


def _as_number(argument: Any) -> float | None:
    """A number, also one that stands in a tensor; `None` for anything else."""
    if isinstance(argument, Tensor) and argument.dim() == 0:
        return float(argument)
    return float(argument) if _is_number(argument) else None


def _is_number(argument: Any) -> bool:
    return isinstance(argument, (int, float))


def _name(node: Node) -> str:
    return node.op.removeprefix("aten.")
