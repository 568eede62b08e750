"""The sections of a reproduction."""

from __future__ import annotations

from types import ModuleType

from fisherflat.lab.reproduce import certificates, depth, language, ring, symmetry

#: name -> module with `Settings`, their short version `QUICK`, and `measure(settings, folder)`
SECTIONS: dict[str, ModuleType] = {
    "ring": ring,
    "certificates": certificates,
    "language": language,
    "depth": depth,
    "symmetry": symmetry,
}
