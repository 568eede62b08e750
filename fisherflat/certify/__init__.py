"""Certificates: flatness proved by structure, curvature proved by enclosure, both checkable by anyone."""

from fisherflat.certify.certificate import Certificate
from fisherflat.certify.prove import certify
from fisherflat.certify.verify import Verification, verify

__all__ = ["Certificate", "Verification", "certify", "verify"]
