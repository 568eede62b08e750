"""The statistical manifold of a map on a chart, its quantities, and fields of curvature over a plane."""

from __future__ import annotations

from fisherflat.geometry._engines import ENGINES
from fisherflat.geometry._field import CurvatureField, curvature_field, grid
from fisherflat.geometry._manifold import PRECISIONS, StatisticalManifold
from fisherflat.geometry._more_bits import in_more_bits, poor
from fisherflat.geometry._planes import drawn
from fisherflat.geometry._quantities import Geometry
from fisherflat.geometry._recharted import Jets, refined
from fisherflat.geometry._sampled import Bounded, SampledCurvature
from fisherflat.geometry._sampling import sampled_at
from fisherflat.geometry._tangents import Tangents
from fisherflat.geometry._words import (
    ERRORS,
    FLAT_WORDS,
    JUDGED,
    Verdict,
    carried,
    decided,
    exceptional,
    filled,
    sample,
    turn,
    warn_of_stuck,
    words,
)

__all__ = [
    "ENGINES",
    "ERRORS",
    "FLAT_WORDS",
    "JUDGED",
    "PRECISIONS",
    "Bounded",
    "CurvatureField",
    "Geometry",
    "Jets",
    "SampledCurvature",
    "StatisticalManifold",
    "Tangents",
    "Verdict",
    "carried",
    "curvature_field",
    "decided",
    "drawn",
    "exceptional",
    "filled",
    "grid",
    "in_more_bits",
    "poor",
    "refined",
    "sample",
    "sampled_at",
    "turn",
    "warn_of_stuck",
    "words",
]
