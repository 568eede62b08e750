"""fisherflat: the Fisher-Rao geometry of transformer layers, measured and proved.

The public names are re-exported here and imported when first used, so that `import fisherflat` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fisherflat._version import __version__

# name -> where it lives; the name of a module stands for the module
_PUBLIC = {
    "Analysis": "report",
    "Certificate": "certificates",
    "CurvatureBudget": "studies.depth",
    "CurvatureField": "geometry",
    "DepthProfile": "studies.depth",
    "DepthStudy": "report",
    "Gaussian": "spaces.families",
    "Geometry": "geometry",
    "Graph": "jets.graph",
    "Jet": "jets",
    "StatisticalManifold": "geometry",
    "Verification": "verifier",
    "analyze": "report",
    "certify": "provers",
    "certify_layer": "provers",
    "curvature_budget": "studies.depth",
    "curvature_field": "geometry",
    "curvature_fields": "studies.depth",
    "depth_profile": "studies.depth",
    "freeze": "parts",
    "freeze_stack": "studies.depth",
    "growth": "studies.depth",
    "inspect": "models",
    "load": "models",
    "study_depth": "report",
    "trace": "parts",
    "verify": "verifier",
    "verify_layer": "verifier",
}
# module of the table of contents -> where it lives
_MODULES = {
    "charts": "spaces.charts",
    "errors": "errors",
    "families": "spaces.families",
    "layers": "layers",
    "memories": "gated_mlp.memories",
    "moves": "models.moves",
    "plot": "plot",
    "readings": "parts.readings",
    "statistics": "statistics",
    "symmetry": "symmetry",
    "zoo": "zoo",
}

__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value: Any = import_module(f"fisherflat.{_MODULES[name]}")
    elif name in _PUBLIC:
        value = getattr(import_module(f"fisherflat.{_PUBLIC[name]}"), name)
    else:
        raise AttributeError(f"module 'fisherflat' has no attribute {name!r}; see dir(fisherflat)")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
