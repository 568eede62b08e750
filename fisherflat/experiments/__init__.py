"""Tasks, what was trained on them, and the trained models that ship with the package."""

from fisherflat.experiments.classifier import PointClassifier, PointEncoder
from fisherflat.experiments.pretrained import checkpoint, checkpoint_provenance, ring_pair, ring_provenance
from fisherflat.experiments.ring import ring_data

__all__ = [
    "PointClassifier",
    "PointEncoder",
    "checkpoint",
    "checkpoint_provenance",
    "ring_data",
    "ring_pair",
    "ring_provenance",
]
