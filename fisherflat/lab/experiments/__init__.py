"""Tasks, training and the experiments behind the pages of the documentation."""

from fisherflat.lab.experiments.ring import ring_data

__all__ = ["ring_data"]
