"""One second-order rule an op, written against an algebra that tensors and balls share.

Second derivatives of a composition have two kinds of terms: what a node passes on linearly, and what it adds of its own
from first derivatives (its *source*). A linear op has no source and acts on all coefficients in one call; a product
has `d_i a d_j b + d_j a d_i b`; an elementwise function `f''(x) d_i x d_j x`.

Which op has which rule stands in `fisherflat.jets.ops`.
"""

from __future__ import annotations

from fisherflat.jets.rules import _choices as choices
from fisherflat.jets.rules import _exponentials as exponentials
from fisherflat.jets.rules import _factors as factors
from fisherflat.jets.rules import _matrices as matrices
from fisherflat.jets.rules import _products as products
from fisherflat.jets.rules._adjoints import Adjoint, Factor, Recorded, leibniz_adjoint
from fisherflat.jets.rules._elementary import FUNCTIONS, Function
from fisherflat.jets.rules._functions import elementwise
from fisherflat.jets.rules._linear import Rule, cast, linear, series_in
from fisherflat.jets.rules._numbers import Irrational, Logarithm
from fisherflat.jets.rules._powers import power
from fisherflat.jets.rules._products import leibniz
from fisherflat.jets.rules._rows import moving_rows
from fisherflat.jets.rules._series import Algebra, Series, Unknown, aligned

__all__ = [
    "FUNCTIONS",
    "Adjoint",
    "Algebra",
    "Factor",
    "Function",
    "Irrational",
    "Logarithm",
    "Recorded",
    "Rule",
    "Series",
    "Unknown",
    "aligned",
    "cast",
    "choices",
    "elementwise",
    "exponentials",
    "factors",
    "leibniz",
    "leibniz_adjoint",
    "linear",
    "matrices",
    "moving_rows",
    "power",
    "products",
    "series_in",
]
