"""How curvature grows with depth, and to which parts of which layers it is attributed."""

from __future__ import annotations

from fisherflat.studies.depth._apart import READOUT
from fisherflat.studies.depth._attribution import budget, curvature_budget
from fisherflat.studies.depth._budget import EXTRAS, CurvatureBudget, Part
from fisherflat.studies.depth._growth import Growth, growth
from fisherflat.studies.depth._maps import curvature_fields
from fisherflat.studies.depth._over_prompts import attribution
from fisherflat.studies.depth._profile import QUANTITIES, DepthProfile, depth_profile, profile
from fisherflat.studies.depth._stack import Map, Stack, freeze_stack
from fisherflat.studies.depth._study import Curve, Depth, Settings, study

__all__ = [
    "EXTRAS",
    "QUANTITIES",
    "READOUT",
    "CurvatureBudget",
    "Curve",
    "Depth",
    "DepthProfile",
    "Growth",
    "Map",
    "Part",
    "Settings",
    "Stack",
    "attribution",
    "budget",
    "curvature_budget",
    "curvature_fields",
    "depth_profile",
    "freeze_stack",
    "growth",
    "profile",
    "study",
]
