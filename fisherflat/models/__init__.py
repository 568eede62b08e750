"""Trained checkpoints: load a model, run it on a prompt, take its blocks apart."""

from __future__ import annotations

from fisherflat.models._blocks import Block, Blocks
from fisherflat.models._inspection import Inspection, inspect
from fisherflat.models._loading import load
from fisherflat.models._model import Model
from fisherflat.models._operator import Operator
from fisherflat.models._prompts import Encoded
from fisherflat.models._recorded_calls import first_tensor
from fisherflat.models._sections import Anatomy

__all__ = [
    "Anatomy",
    "Block",
    "Blocks",
    "Encoded",
    "Inspection",
    "Model",
    "Operator",
    "first_tensor",
    "inspect",
    "load",
]
