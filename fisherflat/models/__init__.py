"""Trained checkpoints: load a model, run it on a prompt, take its blocks apart."""

from __future__ import annotations

from fisherflat.models._blocks import Block, Blocks
from fisherflat.models._controls import CONTROLS, control
from fisherflat.models._description import GateDescription, LayerDescription, NormDescription
from fisherflat.models._heads import Head, Heads
from fisherflat.models._inspection import Inspection, inspect
from fisherflat.models._loading import as_model, load
from fisherflat.models._model import Model
from fisherflat.models._part import PARTS, Part
from fisherflat.models._prompts import Encoded
from fisherflat.models._readout import READOUTS, Readout
from fisherflat.models._recorded_calls import first_tensor
from fisherflat.models._sections import Sections
from fisherflat.models._several import as_prompts
from fisherflat.models._task import class_names
from fisherflat.models._training_run import Architecture, Checkpoint, architecture, checkpoints, common, fingerprint

__all__ = [
    "CONTROLS",
    "PARTS",
    "READOUTS",
    "Architecture",
    "Block",
    "Blocks",
    "Checkpoint",
    "Encoded",
    "GateDescription",
    "Head",
    "Heads",
    "Inspection",
    "LayerDescription",
    "Model",
    "NormDescription",
    "Part",
    "Readout",
    "Sections",
    "architecture",
    "as_model",
    "as_prompts",
    "checkpoints",
    "class_names",
    "common",
    "control",
    "fingerprint",
    "first_tensor",
    "inspect",
    "load",
]
