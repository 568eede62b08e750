"""Figures: each draws into matplotlib axes and returns them; none shows a window or changes global settings."""

from fisherflat.plot.depth import budget, budget_by_layer, depth_maps, field_strip, profiles, transport
from fisherflat.plot.layers import gaps, heads, layers, layers_by_part
from fisherflat.plot.maps import curvature_map, fields
from fisherflat.plot.surrogate import surrogate_curvature
from fisherflat.plot.symmetry import broken_strength, null_spectrum, unit_forms

__all__ = [
    "broken_strength",
    "budget",
    "budget_by_layer",
    "curvature_map",
    "depth_maps",
    "field_strip",
    "fields",
    "gaps",
    "heads",
    "layers",
    "layers_by_part",
    "null_spectrum",
    "profiles",
    "surrogate_curvature",
    "transport",
    "unit_forms",
]
