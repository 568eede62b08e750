"""2-jets: value, Jacobian and Hessian of a map, from a graph of its operations."""

from __future__ import annotations

from fisherflat.spaces.jets import Jet, pair_index, pairs, size

__all__ = ["Jet", "pair_index", "pairs", "size"]
