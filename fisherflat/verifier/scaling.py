"""How the graph of an activation responds to scaling and to the sign of its argument, from the names of its ops.

For the verifier of symmetries, which does not believe a name. Of each node it is known, or not, that
`node(λz) = λ^p node(z)` for all λ > 0 and all z, and that `node(-z) = ± node(z)`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from torch import Tensor

from fisherflat.jets.graph import Graph, Node

#: ops that keep their argument or a multiple of it, depending on its sign alone
_SAME = {"relu", "leaky_relu", "abs", "neg", "clone", "alias", "detach", "view", "_to_copy", "expand"}
_ODD = {"tanh", "sin", "sinh", "asinh", "atan", "erf", "neg", "sign", "clone", "alias", "detach", "view", "_to_copy"}
_EVEN = {"abs", "cos", "cosh"}


def degree(graph: Graph) -> Fraction | None:
    """The p for which the graph is homogeneous, as far as its ops show it; `None` where they do not."""
    return _read(graph, _degree, Fraction(1))


def parity(graph: Graph) -> int | None:
    """1 for an even function, -1 for an odd one, `None` where the ops show neither."""
    return _read(graph, _parity, -1)


def is_identity(graph: Graph) -> bool:
    """Whether the graph returns its input."""
    return graph.output is graph.input


def _read(graph: Graph, rule: Callable[[str, list[Any], list[Any]], Any], start: Any) -> Any:
    """The property of the output, from that of the input; constants are numbers among the arguments."""
    if isinstance(graph.output, Tensor):
        return None
    known: dict[Node, Any] = {graph.input: start}
    for node in graph.nodes:
        if node.target is None:
            continue
        plain = not node.kwargs or set(node.kwargs) <= {"dtype"}
        values = [known.get(a) for a in node.args if isinstance(a, Node)]
        constants = [_number(a) for a in node.args if not isinstance(a, Node)]
        lead = bool(node.args) and isinstance(node.args[0], Node)
        if plain and None not in values and (lead or node.op == "aten.mul"):
            known[node] = rule(node.op.removeprefix("aten."), values, constants)
    return known.get(graph.output)


def _number(argument: Any) -> Any:
    return argument.item() if isinstance(argument, Tensor) and argument.numel() == 1 else argument


def _degree(op: str, degrees: list[Fraction], constants: list[Any]) -> Fraction | None:
    if op in _SAME:
        return degrees[0]
    if op == "mul":
        return sum(degrees, Fraction(0))
    if op == "div":
        return degrees[0] - degrees[1] if len(degrees) == 2 else degrees[0]
    if op in ("add", "sub", "maximum", "minimum") and len(degrees) == 2:
        return degrees[0] if degrees[0] == degrees[1] else None
    if op == "square":
        return 2 * degrees[0]
    if op == "pow" and len(degrees) == 1 and constants and isinstance(constants[0], int):
        return constants[0] * degrees[0]
    return None


def _parity(op: str, signs: list[int], constants: list[Any]) -> int | None:
    if op in ("mul", "div"):
        return signs[0] * (signs[1] if len(signs) == 2 else 1)
    if op in ("add", "sub") and len(signs) == 2:
        return signs[0] if signs[0] == signs[1] else None
    if op == "square" or op in _EVEN:
        return 1
    if op == "pow" and len(signs) == 1 and constants and isinstance(constants[0], int):
        return signs[0] ** constants[0]
    return signs[0] if op in _ODD else None
