"""The papers' empirical claims, settled by a protocol written first: `python -m fisherflat.lab.claims --out DIR`."""

from __future__ import annotations

from fisherflat.lab.claims._protocol import Protocol
from fisherflat.lab.claims._run import Run, collect, load, train_part, units

__all__ = ["Protocol", "Run", "collect", "load", "train_part", "units"]
