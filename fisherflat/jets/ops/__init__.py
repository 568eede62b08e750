"""What is known of the ops of a graph: one table, from which the readings of a graph are derived."""

from __future__ import annotations

from fisherflat.jets.ops._evaluate import apply, at_points, degrees, evaluate, evaluated, exponent, is_affine
from fisherflat.jets.ops._op import Op
from fisherflat.jets.ops._standing import Standing, at_all, evaluate_once, needed
from fisherflat.jets.ops._table import (
    CLAMPS,
    IN_PLACE,
    INDEXED,
    LINEAR,
    MATRIX_PRODUCTS,
    MIXING,
    OPS,
    PIECEWISE_CONSTANT,
    PROJECTIONS,
    RANKING,
    REDUCTIONS,
    SCALING,
    SELECTIONS,
    STRUCTURAL,
    SUMS,
    UNARY,
    having,
)

__all__ = [
    "CLAMPS",
    "INDEXED",
    "IN_PLACE",
    "LINEAR",
    "MATRIX_PRODUCTS",
    "MIXING",
    "OPS",
    "PIECEWISE_CONSTANT",
    "PROJECTIONS",
    "RANKING",
    "REDUCTIONS",
    "SCALING",
    "SELECTIONS",
    "STRUCTURAL",
    "SUMS",
    "UNARY",
    "Op",
    "Standing",
    "apply",
    "at_all",
    "at_points",
    "degrees",
    "evaluate",
    "evaluate_once",
    "evaluated",
    "exponent",
    "having",
    "is_affine",
    "needed",
]
