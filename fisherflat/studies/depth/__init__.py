"""How curvature grows with depth, and which part of the layers pays for it."""

from __future__ import annotations

from fisherflat.studies.depth._budget import CurvatureBudget, Part, budget, curvature_budget
from fisherflat.studies.depth._growth import Growth, growth
from fisherflat.studies.depth._maps import curvature_fields
from fisherflat.studies.depth._profile import QUANTITIES, DepthProfile, depth_profile, profile
from fisherflat.studies.depth._result import DepthStudy
from fisherflat.studies.depth._stack import Map, Stack, freeze_stack
from fisherflat.studies.depth._study import study

__all__ = [
    "QUANTITIES",
    "CurvatureBudget",
    "DepthProfile",
    "DepthStudy",
    "Growth",
    "Map",
    "Part",
    "Stack",
    "budget",
    "curvature_budget",
    "curvature_fields",
    "depth_profile",
    "freeze_stack",
    "growth",
    "profile",
    "study",
]
