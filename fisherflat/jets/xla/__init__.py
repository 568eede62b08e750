"""Recorded operations of torch, compiled by XLA. Imported only where that is asked for, since it needs jax."""

from __future__ import annotations

from fisherflat.jets.xla._program import Program

__all__ = ["Program"]
