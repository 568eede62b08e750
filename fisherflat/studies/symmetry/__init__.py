"""The symmetries of every gated MLP of a model."""

from __future__ import annotations

from fisherflat.studies.symmetry._result import SymmetryStudy
from fisherflat.studies.symmetry._study import study

__all__ = ["SymmetryStudy", "study"]
