"""The trained models that ship with the package, and where they come from."""

from __future__ import annotations

from fisherflat.zoo._point_classifier import PointClassifier, PointEncoder
from fisherflat.zoo._pretrained import (
    CHECKPOINTS,
    FOLDER,
    NAMES,
    build,
    checkpoint,
    checkpoint_provenance,
    ring_pair,
    ring_provenance,
)

__all__ = [
    "CHECKPOINTS",
    "FOLDER",
    "NAMES",
    "PointClassifier",
    "PointEncoder",
    "build",
    "checkpoint",
    "checkpoint_provenance",
    "ring_pair",
    "ring_provenance",
]
