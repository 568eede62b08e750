"""Analyse a trained model: the curvature of its layers on real prompts, as a table."""

from __future__ import annotations

from fisherflat.studies.layers._analyze import analyze
from fisherflat.studies.layers._result import Analysis

__all__ = ["Analysis", "analyze"]
