"""The algebra of the rules in ball arithmetic, in which curvature is proved; needs python-flint."""

from __future__ import annotations

from fisherflat.jets.balls._algebra import BallAlgebra
from fisherflat.jets.balls._array import BallArray, balls, matrix
from fisherflat.jets.balls._series import applied, chart_in_balls, through

__all__ = ["BallAlgebra", "BallArray", "applied", "balls", "chart_in_balls", "matrix", "through"]
