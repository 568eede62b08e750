"""Figures of others, on their own tasks by our own code, and what exact curvature adds to them.

Each module has `measure`, which is deterministic and takes seconds, `draw`, and `said`, its finding in words made of
its numbers. `python -m fisherflat.lab.claims.others --docs docs` makes all of them again.
"""

from __future__ import annotations

from types import ModuleType

from fisherflat.lab.claims.others import bilinear, boundaries, gap, random_depth

#: name -> module
OTHERS: dict[str, ModuleType] = {
    "random_depth": random_depth,
    "boundaries": boundaries,
    "gap": gap,
    "bilinear": bilinear,
}

__all__ = ["OTHERS"]
