"""Trained checkpoints: load a model, run it on a prompt, take its blocks apart."""

from __future__ import annotations

from fisherflat.checkpoints.anatomy import Anatomy
from fisherflat.checkpoints.blocks import Block
from fisherflat.checkpoints.loading import load
from fisherflat.checkpoints.model import Encoded, Model
from fisherflat.checkpoints.operator import Operator

__all__ = ["Anatomy", "Block", "Encoded", "Model", "Operator", "load"]
