"""The rule of powers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Node
from fisherflat.jets.rules._elementary import Triple, exp, log
from fisherflat.jets.rules._functions import unary
from fisherflat.jets.rules._numbers import Logarithm
from fisherflat.jets.rules._products import mul, scaled, widened
from fisherflat.jets.rules._series import Algebra, Series


def power(xp: Algebra, node: Node, base: Any, exponent: Any) -> Series:
    """`exp(y log x)` where both move, else a function of the one that does, entry by entry."""
    given = base, exponent
    # a number, unless there is a gradient by it
    base, exponent = (
        a.item() if isinstance(a, Tensor) and a.dim() == 0 and not a.requires_grad else a for a in (base, exponent)
    )
    if isinstance(exponent, (int, float)):
        return mul(xp, node, base, base) if exponent == 2 else unary(xp, node, base, lambda x: raised(x, exponent))
    if isinstance(exponent, Tensor):
        exponent = exponent.expand(node.shape)
        return unary(xp, node, widened(xp, node, base), raised, exponent)
    if isinstance(base, (int, float)) and base > 0:
        return unary(xp, node, scaled(xp, node, exponent, Logarithm(base)), exp)
    if isinstance(base, Tensor) and bool((base > 0).all()):
        logarithm = xp.constant(base.expand(node.shape)).log()
        return unary(xp, node, widened(xp, node, exponent), _of_exponent, logarithm)
    if not isinstance(base, Series):
        return xp.fallback(node, given, {}, exponent.k)
    return unary(xp, node, mul(xp, node, exponent, unary(xp, node, base, log)), exp)


def _of_exponent(y: Any, logarithm: Any) -> Triple:
    value = (y * logarithm).exp()
    first = value * logarithm
    return value, first, first * logarithm


def raised(x: Any, exponent: float | Tensor) -> Triple:
    """`x ** exponent`, one exponent or one for each entry; factors that vanish are exact zeros also at x = 0."""
    if isinstance(exponent, Tensor):
        exponent = exponent.double()
        first, second = (exponent != 0), (exponent != 0) & (exponent != 1)
        if not all(_is_exact(number) for number in exponent.unique().tolist()):
            return _rounded_power(x, exponent)
        lower, lowest = torch.where(first, exponent - 1, 0.0), torch.where(second, exponent - 2, 0.0)
        return x.pow(exponent), x.pow(lower) * exponent, x.pow(lowest) * exponent * (exponent - 1)
    if exponent == 0:
        return x * 0 + 1, x * 0, x * 0
    if not _is_exact(exponent):
        return _rounded_power(x, exponent)

    def term(factor: float, p: float) -> Any:
        return x.pow(p) * factor if factor and p else x * 0 + factor

    return x.pow(exponent), term(exponent, exponent - 1), term(exponent - 1, exponent - 2) * exponent


def _is_exact(exponent: float) -> bool:
    """Whether one and two can be taken away without rounding."""
    return all(Fraction(exponent) - n == Fraction(exponent - n) for n in (1, 2))


def _rounded_power(x: Any, exponent: Any) -> Triple:
    value, r = x.pow(exponent), x.reciprocal()
    first = value * r * exponent
    return value, first, first * r * exponent - first * r
