"""What turns a map on a chart into 2-jets in torch tensors."""

from __future__ import annotations

from fisherflat.jets.engines._autodiff import AutodiffEngine
from fisherflat.jets.engines._chunks import in_chunks, memory_budget
from fisherflat.jets.engines._cudagraphs import CudaGraphsEngine
from fisherflat.jets.engines._fallback import warn_again
from fisherflat.jets.engines._noise import Noise, exactly, noisy, spread
from fisherflat.jets.engines._taylor import CACHED, TaylorEngine, evaluated, footprint, packed, start
from fisherflat.jets.engines._tensors import TensorAlgebra
from fisherflat.jets.engines._xla import XlaEngine

__all__ = [
    "CACHED",
    "AutodiffEngine",
    "CudaGraphsEngine",
    "Noise",
    "TaylorEngine",
    "TensorAlgebra",
    "XlaEngine",
    "evaluated",
    "exactly",
    "footprint",
    "in_chunks",
    "memory_budget",
    "noisy",
    "packed",
    "spread",
    "start",
    "warn_again",
]
