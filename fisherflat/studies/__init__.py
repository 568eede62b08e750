"""Studies of a model: layer by layer, through its depth, and of its symmetries. They measure, and return numbers.

What people read and keep, with sentences, figures and files, is made of them in `fisherflat.report`.
"""

from __future__ import annotations

from fisherflat.studies._between import Between, geometry_between
from fisherflat.studies._journal import Journal, begun, kept
from fisherflat.studies._lens import in_words
from fisherflat.studies._sampled import BUDGET, ERROR

__all__ = ["BUDGET", "ERROR", "Between", "Journal", "begun", "geometry_between", "in_words", "kept"]
