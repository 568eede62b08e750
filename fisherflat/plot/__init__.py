"""Figures: each draws into matplotlib axes and returns them; none shows a window or changes global settings."""

from __future__ import annotations

from fisherflat.plot._budget import budget, budget_by_layer, transport
from fisherflat.plot._comparison import compared
from fisherflat.plot._depth import depth_maps, few, profiles, strip_axes
from fisherflat.plot._layers import gaps, heads, heads_by_reading, layers, layers_by_part
from fisherflat.plot._maps import curvature_map, fields
from fisherflat.plot._patterns import patterns
from fisherflat.plot._style import COLUMN, MARKERS, OKABE_ITO, Look, caption, of_part, of_reading, of_role, profile_axis
from fisherflat.plot._surrogate import surrogate_curvature
from fisherflat.plot._symmetry import broken_strength, null_spectrum, unit_forms
from fisherflat.plot._tracks import tracks

__all__ = [
    "COLUMN",
    "MARKERS",
    "OKABE_ITO",
    "Look",
    "broken_strength",
    "budget",
    "budget_by_layer",
    "caption",
    "compared",
    "curvature_map",
    "depth_maps",
    "few",
    "fields",
    "gaps",
    "heads",
    "heads_by_reading",
    "layers",
    "layers_by_part",
    "null_spectrum",
    "of_part",
    "of_reading",
    "of_role",
    "patterns",
    "profile_axis",
    "profiles",
    "strip_axes",
    "surrogate_curvature",
    "tracks",
    "transport",
    "unit_forms",
]
