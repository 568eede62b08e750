"""How curvature grows with depth, and which part of the layers pays for it."""

from fisherflat.depth.budget import CurvatureBudget, Part, curvature_budget
from fisherflat.depth.growth import Growth, growth
from fisherflat.depth.maps import curvature_fields
from fisherflat.depth.profile import DepthProfile, depth_profile
from fisherflat.depth.stack import Stack, freeze_stack
from fisherflat.depth.study import DepthStudy, study

__all__ = [
    "CurvatureBudget",
    "DepthProfile",
    "DepthStudy",
    "Growth",
    "Part",
    "Stack",
    "curvature_budget",
    "curvature_fields",
    "depth_profile",
    "freeze_stack",
    "growth",
    "study",
]
