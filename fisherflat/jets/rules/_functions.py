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


def unary(xp: Algebra, node: Node, x: Series, function: Callable[[Any], Triple]) -> Series:
    """`f' d_ij x + f'' d_i x d_j x`."""
    k = x.k
    value, rows = xp.parted(x.data)
    triple = function(value)
    if x.order == 0:
        return Series(triple[0][None], k)

    def forward(*arrays: Any) -> Any:
        return _chained(xp, node, k, *arrays)

    return Series(xp.recorded(forward, chained_adjoint(k, xp.sources(node, k)), rows, *triple), k)


def _chained(xp: Algebra, node: Node, k: int, rows: Any, value: Any, slope: Any, bend: Any) -> Any:
    out, count = xp.empty(xp.count(2, k), rows, tuple(rows.shape[2:])), 1 + rows.shape[0]
    out[0].copy_(value)
    xp.mul(rows, slope, out[1:count])
    result = Series(out, k)
    blank, first = xp.blank(result, count), rows[:k]
    bent = first * bend
    for i in range(k):
        if blank:
            xp.mul(bent[i], first[i:], xp.row(node, result, i))
        else:
            xp.fma(xp.row(node, result, i), bent[i], first[i:])
    return out


def elementwise(function: Callable[..., Triple]) -> Rule:
    """The rule of a function that stands in `fisherflat.jets.rules.FUNCTIONS`."""

    def rule(xp: Algebra, node: Node, x: Any, *args: Any, **kwargs: Any) -> Series:
        if not isinstance(x, Series) or any(isinstance(a, (Series, Tensor)) for a in (*args, *kwargs.values())):
            return xp.fallback(node, (x, *args), kwargs, order_of((x, *args))[1])
        return unary(xp, node, x, lambda data: function(data, *args, **kwargs))

    return rule
