"""The ring task, the classifiers trained on it, and the trained pair that ships with the package."""

from fisherflat.experiments.classifier import PointClassifier, PointEncoder
from fisherflat.experiments.pretrained import ring_pair, ring_provenance
from fisherflat.experiments.ring import ring_data

__all__ = ["PointClassifier", "PointEncoder", "ring_data", "ring_pair", "ring_provenance"]
