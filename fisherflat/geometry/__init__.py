"""The statistical manifold of a map on a chart, its quantities, and fields of curvature over a plane."""

from __future__ import annotations

from fisherflat.geometry._field import CurvatureField, curvature_field
from fisherflat.geometry._manifold import ENGINES, StatisticalManifold
from fisherflat.geometry._quantities import Geometry
from fisherflat.geometry._recharted import refined

__all__ = ["ENGINES", "CurvatureField", "Geometry", "StatisticalManifold", "curvature_field", "refined"]
