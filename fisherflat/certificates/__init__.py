"""Certificates: what was proved about a map, in files that anyone can check."""

from fisherflat.certificates.certificate import Certificate
from fisherflat.certificates.curvature import CurvatureCertificate
from fisherflat.certificates.prove import certify
from fisherflat.certificates.symmetry import SymmetryCertificate
from fisherflat.certificates.verify import Verification, verify

__all__ = ["Certificate", "CurvatureCertificate", "SymmetryCertificate", "Verification", "certify", "verify"]
