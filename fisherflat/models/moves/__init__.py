"""What moves on real data: from a prompt and a part of a layer to a chart.

A chart is made from two choices. *Which tokens* move, at which `positions`; and *along what*: principal directions of
the layer's own states (`Principal`), random directions (`Random`), given vectors (`vectors`), or between words
(`Words`). `parse` reads the second from one word.
"""

from __future__ import annotations

from fisherflat.models.moves._directions import Principal, Random, Vectors, Whole, median_distances, ordinary, pool
from fisherflat.models.moves._moves import Fitted, Moves
from fisherflat.models.moves._parse import few, parse
from fisherflat.models.moves._positions import (
    Position,
    Where,
    for_each,
    label,
    parsed,
    positions,
    token_columns,
    tokens,
)
from fisherflat.models.moves._vectors import vectors
from fisherflat.models.moves._words import Words

__all__ = [
    "Fitted",
    "Moves",
    "Position",
    "Principal",
    "Random",
    "Vectors",
    "Where",
    "Whole",
    "Words",
    "few",
    "for_each",
    "label",
    "median_distances",
    "ordinary",
    "parse",
    "parsed",
    "pool",
    "positions",
    "token_columns",
    "tokens",
    "vectors",
]
