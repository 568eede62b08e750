"""What moves on real data: from a prompt and a part of a layer to a chart.

A chart is made from two choices. *Which tokens* move, at which `positions`; and *along what*: principal directions of
the layer's own states (`Principal`), random directions (`Random`), given vectors (`vectors`), or between words
(`Words`). `parse` reads the second from one word.
"""

from __future__ import annotations

from fisherflat.moves.directions import Principal, Random, Vectors, ordinary, pool
from fisherflat.moves.files import vectors
from fisherflat.moves.moves import Fitted, Moves
from fisherflat.moves.positions import Position, label, positions, tokens
from fisherflat.moves.spec import parse
from fisherflat.moves.words import Words

__all__ = [
    "Fitted",
    "Moves",
    "Position",
    "Principal",
    "Random",
    "Vectors",
    "Words",
    "label",
    "ordinary",
    "parse",
    "pool",
    "positions",
    "tokens",
    "vectors",
]
