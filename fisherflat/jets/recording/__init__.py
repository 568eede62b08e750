"""From a user's map to its tape, checked against the map, and to its graph."""

from __future__ import annotations

from fisherflat.jets.recording._copies import alone, own
from fisherflat.jets.recording._mapping import Mapping
from fisherflat.jets.recording._modes import evaluating, in_double
from fisherflat.jets.recording._program import Program
from fisherflat.jets.recording._replay import graphed, recorded
from fisherflat.jets.recording._tape import Tape, plainly

__all__ = ["Mapping", "Program", "Tape", "alone", "evaluating", "graphed", "in_double", "own", "plainly", "recorded"]
