"""The rule of powers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fisherflat.jets.graph import Node
from fisherflat.jets.rules._elementary import Logarithm, exp
from fisherflat.jets.rules._elementary import power as raised
from fisherflat.jets.rules._functions import unary
from fisherflat.jets.rules._linear import order_of
from fisherflat.jets.rules._products import mul, scaled
from fisherflat.jets.rules._series import Algebra, Series


def power(xp: Algebra, node: Node, base: Any, exponent: Any) -> Series:
    base, exponent = (a.item() if isinstance(a, Tensor) and a.dim() == 0 else a for a in (base, exponent))
    if isinstance(exponent, (int, float)):
        return mul(xp, node, base, base) if exponent == 2 else unary(xp, node, base, lambda x: raised(x, exponent))
    if isinstance(base, (int, float)) and base > 0:
        return unary(xp, node, scaled(xp, node, exponent, Logarithm(base)), exp)
    return xp.fallback(node, (base, exponent), {}, order_of((base, exponent))[1])
