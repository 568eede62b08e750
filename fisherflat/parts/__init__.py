"""Parts of a layer: which node of a graph plays which role, and what is held."""

from __future__ import annotations

from fisherflat.parts._activations import activation_name, activation_names
from fisherflat.parts._flow import entries, moving
from fisherflat.parts._halves import halves
from fisherflat.parts._routing import choices, rerouted
from fisherflat.parts._tracing import freeze, trace, traced

__all__ = [
    "activation_name",
    "activation_names",
    "choices",
    "entries",
    "freeze",
    "halves",
    "moving",
    "rerouted",
    "trace",
    "traced",
]
