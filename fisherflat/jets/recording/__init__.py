"""From a user's map to its graph."""

from __future__ import annotations

from fisherflat.jets.recording._mapping import Mapping, Raised, evaluating, in_double
from fisherflat.jets.recording._record import record

__all__ = ["Mapping", "Raised", "evaluating", "in_double", "record"]
