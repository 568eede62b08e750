"""The statistical manifold of a map on a chart, its quantities, and fields of curvature over a plane."""

from __future__ import annotations

from fisherflat.geometry._field import CurvatureField, curvature_field
from fisherflat.geometry._manifold import ENGINES, StatisticalManifold
from fisherflat.geometry._quantities import Geometry
from fisherflat.geometry._recharted import Jets, refined
from fisherflat.geometry._words import FLAT_WORDS, Verdict, carried, decided, turn, words

__all__ = [
    "ENGINES",
    "FLAT_WORDS",
    "CurvatureField",
    "Geometry",
    "Jets",
    "StatisticalManifold",
    "Verdict",
    "carried",
    "curvature_field",
    "decided",
    "refined",
    "turn",
    "words",
]
