"""The 2-jet and the engines that compute it."""

from fisherflat.jets.autodiff import AutodiffEngine
from fisherflat.jets.jet import Jet

#: name -> engine, as `StatisticalManifold(engine=...)` takes it
ENGINES = {"autodiff": AutodiffEngine, "taylor": AutodiffEngine}

__all__ = ["ENGINES", "AutodiffEngine", "Jet"]
