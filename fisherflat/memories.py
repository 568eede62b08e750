"""Feed-forward layers of checkpoints as key-value memories."""

from fisherflat.gated_mlp.memories import *
from fisherflat.gated_mlp.memories import __all__ as __all__
