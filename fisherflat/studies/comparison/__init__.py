"""Analyses against each other: which rows belong together, how they differ, and how well they agree."""

from __future__ import annotations

from fisherflat.studies.comparison._differences import AGREEMENT, DIFFERENCES, agreements, differences, word
from fisherflat.studies.comparison._pairs import PAIRED, Pairing, Pairs, chosen, paired

__all__ = [
    "AGREEMENT",
    "DIFFERENCES",
    "PAIRED",
    "Pairing",
    "Pairs",
    "agreements",
    "chosen",
    "differences",
    "paired",
    "word",
]
