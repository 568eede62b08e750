"""Rows of a graph: which of them move, which are read, and the same map that computes no more than that."""

from __future__ import annotations

from fisherflat.jets.rows._divided import Divided, divided, moved_by

__all__ = ["Divided", "divided", "moved_by"]
