"""How curvature grows with depth, and which part of the layers pays for it."""

from fisherflat.depth.budget import CurvatureBudget, curvature_budget
from fisherflat.depth.growth import Growth, growth
from fisherflat.depth.profile import DepthProfile, depth_profile
from fisherflat.depth.stack import Stack, freeze_stack

__all__ = [
    "CurvatureBudget",
    "DepthProfile",
    "Growth",
    "Stack",
    "curvature_budget",
    "depth_profile",
    "freeze_stack",
    "growth",
]
