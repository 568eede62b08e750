"""Certificates: flatness proved by structure, curvature proved by enclosure, both checkable by anyone."""

from fisherflat.certificates.certificate import Certificate
from fisherflat.certificates.prove import certify
from fisherflat.certificates.verify import Verification, verify

__all__ = ["Certificate", "Verification", "certify", "verify"]
