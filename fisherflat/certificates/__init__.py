"""Certificates: what was proved about a map or a gated MLP, as statements and as files that anyone can check."""

from __future__ import annotations

from fisherflat.certificates._bounds import Bound, bounds
from fisherflat.certificates._certificate import Certificate, Weight, versions
from fisherflat.certificates._curvature import ARGUMENTS, Analytic, CurvatureCertificate, Step
from fisherflat.certificates._symmetry import FACTOR, Counterexample, Finding, SymmetryCertificate

__all__ = [
    "ARGUMENTS",
    "FACTOR",
    "Analytic",
    "Bound",
    "Certificate",
    "Counterexample",
    "CurvatureCertificate",
    "Finding",
    "Step",
    "SymmetryCertificate",
    "Weight",
    "bounds",
    "versions",
]
