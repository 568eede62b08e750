"""What moves on real data: from a prompt and a part of a layer to a chart."""

from fisherflat.models.moves import *
from fisherflat.models.moves import __all__ as __all__
