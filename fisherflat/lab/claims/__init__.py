"""The papers' empirical claims, settled by a protocol written first: `python -m fisherflat.lab.claims --out DIR`."""

from __future__ import annotations
