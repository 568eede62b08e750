"""The sections of a reproduction."""

from __future__ import annotations

from types import ModuleType

from fisherflat.lab.reproduce import certificates, claims, depth, language, ring, symmetry

#: name -> module with `Settings`, their short version `QUICK`, and `measure(settings, folder)`. A section of many parts
#: has `left(settings, folder)`, the names of those that are not there, and `part(settings, folder, name)` as well; what
#: it measures then joins them in its folder.
SECTIONS: dict[str, ModuleType] = {
    "ring": ring,
    "certificates": certificates,
    "language": language,
    "depth": depth,
    "symmetry": symmetry,
    "claims": claims,
}
