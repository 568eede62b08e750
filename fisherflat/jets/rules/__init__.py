"""One second-order rule an op, against an algebra that tensors and balls share."""

from __future__ import annotations

from fisherflat.jets.rules._elementary import FUNCTIONS, KINKED, Irrational, Logarithm
from fisherflat.jets.rules._rules import (
    LINEAR,
    PIECEWISE_CONSTANT,
    RULES,
    STRUCTURAL,
    apply,
    evaluate,
    is_affine,
    leibniz,
)
from fisherflat.jets.rules._series import Algebra, Series, aligned

__all__ = [
    "FUNCTIONS",
    "KINKED",
    "LINEAR",
    "PIECEWISE_CONSTANT",
    "RULES",
    "STRUCTURAL",
    "Algebra",
    "Irrational",
    "Logarithm",
    "Series",
    "aligned",
    "apply",
    "evaluate",
    "is_affine",
    "leibniz",
]
