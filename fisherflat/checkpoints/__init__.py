"""Trained checkpoints: load a model, run it on a prompt, take its blocks apart."""

from __future__ import annotations

from fisherflat.checkpoints.anatomy import Anatomy
from fisherflat.checkpoints.blocks import Block, Blocks
from fisherflat.checkpoints.loading import load
from fisherflat.checkpoints.model import Model
from fisherflat.checkpoints.operator import Operator
from fisherflat.checkpoints.prompts import Encoded

__all__ = ["Anatomy", "Block", "Blocks", "Encoded", "Model", "Operator", "load"]
