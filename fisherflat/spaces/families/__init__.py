"""Statistical families: what the outputs of a map are the parameters of."""

from __future__ import annotations

from fisherflat.spaces.families._family import Family
from fisherflat.spaces.families._gaussian import Gaussian

__all__ = ["Family", "Gaussian"]
