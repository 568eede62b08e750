"""The rule of powers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fisherflat.jets.graph import Node
from fisherflat.jets.rules._elementary import Logarithm, Triple, exp, log
from fisherflat.jets.rules._elementary import power as raised
from fisherflat.jets.rules._functions import unary
from fisherflat.jets.rules._products import mul, scaled
from fisherflat.jets.rules._series import Algebra, Series


def power(xp: Algebra, node: Node, base: Any, exponent: Any) -> Series:
    """`exp(y log x)` where both move, else a function of the one that does, entry by entry."""
    given = base, exponent
    base, exponent = (a.item() if isinstance(a, Tensor) and a.dim() == 0 else a for a in (base, exponent))
    if isinstance(exponent, (int, float)):
        return mul(xp, node, base, base) if exponent == 2 else unary(xp, node, base, lambda x: raised(x, exponent))
    if isinstance(exponent, Tensor):
        exponent = exponent.expand(node.shape)
        return unary(xp, node, scaled(xp, node, base, 1), lambda x: raised(x, exponent))
    if isinstance(base, (int, float)) and base > 0:
        return unary(xp, node, scaled(xp, node, exponent, Logarithm(base)), exp)
    if isinstance(base, Tensor) and bool((base > 0).all()):
        logarithm = xp.constant(base.expand(node.shape)).log()
        return unary(xp, node, scaled(xp, node, exponent, 1), lambda y: _of_exponent(y, logarithm))
    if not isinstance(base, Series):
        return xp.fallback(node, given, {}, exponent.k)
    return unary(xp, node, mul(xp, node, exponent, unary(xp, node, base, log)), exp)


def _of_exponent(y: Any, logarithm: Any) -> Triple:
    value = (y * logarithm).exp()
    first = value * logarithm
    return value, first, first * logarithm
