"""The symmetries of every gated MLP of a model."""

from __future__ import annotations

from fisherflat.studies.symmetry._study import Symmetries, place, study

__all__ = ["Symmetries", "place", "study"]
