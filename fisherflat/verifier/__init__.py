"""The verifier: checks certificates by arithmetic of its own; it imports no prover."""

from __future__ import annotations

from fisherflat.verifier._held import Comparison, HeldError
from fisherflat.verifier._identity import CLOSE, NUMERICAL, deviations
from fisherflat.verifier._layer import verify_layer
from fisherflat.verifier._parts import parts_that_are_none
from fisherflat.verifier._surface import Surface
from fisherflat.verifier._verify import Verification, verify

__all__ = [
    "CLOSE",
    "NUMERICAL",
    "Comparison",
    "HeldError",
    "Surface",
    "Verification",
    "deviations",
    "parts_that_are_none",
    "verify",
    "verify_layer",
]
