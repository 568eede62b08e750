"""Readings: which parts are held at the base point while the rest of a layer moves."""

from fisherflat.parts.readings import *
from fisherflat.parts.readings import __all__ as __all__
