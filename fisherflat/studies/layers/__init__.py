"""The curvature of the layers of a model on prompts, part by part and reading by reading."""

from __future__ import annotations

from fisherflat.studies.layers._full import SAMPLED
from fisherflat.studies.layers._measure import CORNERS, NEGLIGIBLE, QUANTITIES
from fisherflat.studies.layers._plan import Plan, plan
from fisherflat.studies.layers._run import Layers, check, study
from fisherflat.studies.layers._settings import Settings
from fisherflat.studies.layers._table import negligible
from fisherflat.studies.layers._tasks import Task

__all__ = [
    "CORNERS",
    "NEGLIGIBLE",
    "QUANTITIES",
    "SAMPLED",
    "Layers",
    "Plan",
    "Settings",
    "Task",
    "check",
    "negligible",
    "plan",
    "study",
]
