"""Curvature in training: penalties that push it, callbacks that watch it, and inputs that have the most of it."""

from __future__ import annotations

from fisherflat.training._attribution import attributed
from fisherflat.training._callback import CurvatureCallback
from fisherflat.training._penalty import PENALTIES, CurvaturePenalty
from fisherflat.training._search import Found, find_curvature
from fisherflat.training._watch import Watch

__all__ = ["PENALTIES", "CurvatureCallback", "CurvaturePenalty", "Found", "Watch", "attributed", "find_curvature"]
