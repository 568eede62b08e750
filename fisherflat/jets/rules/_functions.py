"""The rule of functions of single entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fisherflat.jets.graph import Node
from fisherflat.jets.rules._adjoints import chained_adjoint
from fisherflat.jets.rules._elementary import Triple
from fisherflat.jets.rules._linear import Rule, order_of
from fisherflat.jets.rules._series import Algebra, Series


def unary(xp: Algebra, node: Node, x: Series, function: Callable[..., Triple], *others: Any) -> Series:
    """`f' d_ij x + f'' d_i x d_j x`; the function takes the value, and other arrays that stand still."""
    k = x.k

    def forward(data: Any, *others: Any) -> Any:
        triple = function(data[0], *others)
        return triple[0][None] if data.shape[0] == 1 else _chained(xp, node, k, data, *triple)

    adjoint = chained_adjoint(k, xp.sources(node, k), function)
    return Series(xp.recorded(forward, adjoint, x.data, *others), k)


def _chained(xp: Algebra, node: Node, k: int, data: Any, value: Any, slope: Any, bend: Any) -> Any:
    out = xp.empty(xp.count(2, k), data, tuple(data.shape[2:]))
    out[0].copy_(value)
    xp.mul(data[1:], slope, out[1 : data.shape[0]])
    result = Series(out, k)
    first = data[1 : 1 + k]
    blank, bent = xp.blank(result, data.shape[0]), first * bend
    for i, j in xp.crossings(k):
        if blank:
            xp.mul(bent[i], first[j], xp.row(node, result, i))
        else:
            xp.fma(xp.row(node, result, i), bent[i], first[j])
    return out


def elementwise(function: Callable[..., Triple]) -> Rule:
    """The rule of a function that stands in `fisherflat.jets.rules.FUNCTIONS`."""

    def rule(xp: Algebra, node: Node, x: Any, *args: Any, **kwargs: Any) -> Series:
        if not isinstance(x, Series) or any(isinstance(a, (Series, Tensor)) for a in (*args, *kwargs.values())):
            return xp.fallback(node, (x, *args), kwargs, order_of((x, *args))[1])
        return unary(xp, node, x, lambda data: function(data, *args, **kwargs))

    return rule
