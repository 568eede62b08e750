"""The 2-jet and the engines that compute it."""

from fisherflat.jets.autodiff import AutodiffEngine
from fisherflat.jets.graph import Graph, Node
from fisherflat.jets.jet import Jet
from fisherflat.jets.taylor import TaylorEngine
from fisherflat.jets.tracing import freeze, trace

#: name -> engine, as `StatisticalManifold(engine=...)` takes it
ENGINES = {"autodiff": AutodiffEngine, "taylor": TaylorEngine}

__all__ = ["ENGINES", "AutodiffEngine", "Graph", "Jet", "Node", "TaylorEngine", "freeze", "trace"]
