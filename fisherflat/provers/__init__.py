"""Provers: flat by structure, curved by enclosure, and symmetries of gated MLPs."""

from __future__ import annotations

from fisherflat.provers._curvature import certify
from fisherflat.provers._layer import certify_layer
from fisherflat.provers._symmetry import certify_symmetry
from fisherflat.provers._symmetry_table import symmetries

__all__ = ["certify", "certify_layer", "certify_symmetry", "symmetries"]
