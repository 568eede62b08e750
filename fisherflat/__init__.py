"""fisherflat: the Fisher-Rao geometry of transformer layers, measured and proved.

The public names are re-exported here and imported when first used, so that `import fisherflat` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# name -> module that defines it; a name that maps to itself is a submodule
_PUBLIC = {
    "Gaussian": "family",
    "StatisticalManifold": "manifold",
    "Jet": "jets",
    "trace": "jets",
    "freeze": "jets",
    "load": "checkpoints",
    "inspect": "inspection",
    "Analysis": "analysis",
    "analyze": "analysis",
    "certify": "certificates",
    "verify": "certificates",
    "Certificate": "certificates",
    "Verification": "certificates",
    "certify_layer": "certificates.layers",
    "verify_layer": "certificates.layers",
    "charts": "charts",
    "errors": "errors",
    "experiments": "experiments",
    "layers": "layers",
    "memories": "memories",
    "moves": "moves",
    "plot": "plot",
    "readings": "readings",
    "symmetry": "symmetry",
    "depth_profile": "depth",
    "freeze_stack": "depth",
    "growth": "depth",
    "CurvatureBudget": "depth",
    "DepthProfile": "depth",
    "curvature_budget": "depth",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fisherflat' has no attribute {name!r}")
    module = import_module(f"fisherflat.{_PUBLIC[name]}")
    value = module if _PUBLIC[name] == name else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_PUBLIC))
