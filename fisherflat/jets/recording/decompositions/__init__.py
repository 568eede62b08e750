"""Ops that are read as several simpler ones, so that one rule a primitive is enough and roles show.

A decomposition takes the arguments of the op and runs in the recorder, so that the ops it calls become nodes. It may
return `NotImplemented`, and the op is recorded as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fisherflat.jets.recording.decompositions import _complex as complex_numbers
from fisherflat.jets.recording.decompositions import _entries as entries
from fisherflat.jets.recording.decompositions import _functions as functions
from fisherflat.jets.recording.decompositions import _grids as grids
from fisherflat.jets.recording.decompositions import _losses as losses
from fisherflat.jets.recording.decompositions import _matrices as matrices
from fisherflat.jets.recording.decompositions import _norms as norms
from fisherflat.jets.recording.decompositions import _products as products
from fisherflat.jets.recording.decompositions import _reductions as reductions
from fisherflat.jets.recording.decompositions import _segments as segments
from fisherflat.jets.recording.decompositions._table import TABLE

__all__ = [
    "TABLE",
    "complex_numbers",
    "decomposition",
    "entries",
    "functions",
    "grids",
    "losses",
    "matrices",
    "norms",
    "products",
    "reductions",
    "segments",
]


def decomposition(op: Any) -> Callable[..., Any] | None:
    """How an ATen overload is written in simpler ops, or `None` where it is simple itself."""
    return TABLE.get(op) or TABLE.get(op.overloadpacket)
