"""Statistical families: what the outputs of a map are the parameters of."""

from fisherflat.spaces.families import *
from fisherflat.spaces.families import __all__ as __all__
