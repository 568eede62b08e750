"""Certificates: what was proved about a map or a gated MLP, as statements and as files that anyone can check."""

from __future__ import annotations

from fisherflat.certificates import _curvature_file, _symmetry_file  # noqa: F401  (they enter their forms)
from fisherflat.certificates._bounds import Bound, bounds, rounded
from fisherflat.certificates._certificate import Certificate, versions
from fisherflat.certificates._curvature import CERTIFIED, CurvatureCertificate
from fisherflat.certificates._curvature_words import ARGUMENTS
from fisherflat.certificates._layer import (
    FIELDS,
    PROMPTS,
    SINCE,
    expert,
    gaussian,
    given_prompt,
    movement,
    named_prompt,
    operator,
    outputs,
    placed,
    read_by_head,
)
from fisherflat.certificates._steps import Analytic, HeldNode, Numbers, Step
from fisherflat.certificates._symmetry import FACTOR, UNNAMED, Counterexample, Finding, SymmetryCertificate
from fisherflat.certificates._weight import Weight

__all__ = [
    "ARGUMENTS",
    "CERTIFIED",
    "FACTOR",
    "FIELDS",
    "PROMPTS",
    "SINCE",
    "UNNAMED",
    "Analytic",
    "Bound",
    "Certificate",
    "Counterexample",
    "CurvatureCertificate",
    "Finding",
    "HeldNode",
    "Numbers",
    "Step",
    "SymmetryCertificate",
    "Weight",
    "bounds",
    "expert",
    "gaussian",
    "given_prompt",
    "movement",
    "named_prompt",
    "operator",
    "outputs",
    "placed",
    "read_by_head",
    "rounded",
    "versions",
]
