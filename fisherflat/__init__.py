"""fisherflat: the Fisher-Rao geometry of transformer layers, measured and proved.

The public names are re-exported here and imported when first used, so that `import fisherflat` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from fisherflat._version import __version__

if TYPE_CHECKING:  # for type checkers, which know no lazy imports; a test holds it to the tables below
    from fisherflat import charts as charts
    from fisherflat import errors as errors
    from fisherflat import families as families
    from fisherflat import layers as layers
    from fisherflat import memories as memories
    from fisherflat import moves as moves
    from fisherflat import plot as plot
    from fisherflat import readings as readings
    from fisherflat import runners as runners
    from fisherflat import scale as scale
    from fisherflat import statistics as statistics
    from fisherflat import symmetry as symmetry
    from fisherflat import training as training
    from fisherflat import zoo as zoo
    from fisherflat.certificates import Certificate as Certificate
    from fisherflat.geometry import CurvatureField as CurvatureField
    from fisherflat.geometry import Geometry as Geometry
    from fisherflat.geometry import StatisticalManifold as StatisticalManifold
    from fisherflat.geometry import curvature_field as curvature_field
    from fisherflat.jets import Jet as Jet
    from fisherflat.jets.graph import Graph as Graph
    from fisherflat.models import Block as Block
    from fisherflat.models import Inspection as Inspection
    from fisherflat.models import Model as Model
    from fisherflat.models import control as control
    from fisherflat.models import inspect as inspect
    from fisherflat.models import load as load
    from fisherflat.parts import freeze as freeze
    from fisherflat.parts import trace as trace
    from fisherflat.provers import certify as certify
    from fisherflat.provers import certify_layer as certify_layer
    from fisherflat.report import Analysis as Analysis
    from fisherflat.report import Comparison as Comparison
    from fisherflat.report import DepthStudy as DepthStudy
    from fisherflat.report import Track as Track
    from fisherflat.report import analyze as analyze
    from fisherflat.report import compare as compare
    from fisherflat.report import plan as plan
    from fisherflat.report import study_depth as study_depth
    from fisherflat.report import track as track
    from fisherflat.spaces.families import Gaussian as Gaussian
    from fisherflat.studies import geometry_between as geometry_between
    from fisherflat.studies.depth import CurvatureBudget as CurvatureBudget
    from fisherflat.studies.depth import DepthProfile as DepthProfile
    from fisherflat.studies.depth import attribution as attribution
    from fisherflat.studies.depth import curvature_budget as curvature_budget
    from fisherflat.studies.depth import curvature_fields as curvature_fields
    from fisherflat.studies.depth import depth_profile as depth_profile
    from fisherflat.studies.depth import freeze_stack as freeze_stack
    from fisherflat.studies.depth import growth as growth
    from fisherflat.verifier import Verification as Verification
    from fisherflat.verifier import verify as verify
    from fisherflat.verifier import verify_layer as verify_layer

#: the modules of the table of contents
_MODULES = (
    "charts",
    "errors",
    "families",
    "layers",
    "memories",
    "moves",
    "plot",
    "readings",
    "runners",
    "scale",
    "statistics",
    "symmetry",
    "training",
    "zoo",
)
#: its classes and functions -> the room that each is from
_NAMES = {
    "Analysis": "report",
    "Block": "models",
    "Certificate": "certificates",
    "Comparison": "report",
    "CurvatureBudget": "studies.depth",
    "CurvatureField": "geometry",
    "DepthProfile": "studies.depth",
    "DepthStudy": "report",
    "Gaussian": "spaces.families",
    "Geometry": "geometry",
    "Graph": "jets.graph",
    "Inspection": "models",
    "Jet": "jets",
    "Model": "models",
    "StatisticalManifold": "geometry",
    "Track": "report",
    "Verification": "verifier",
    "analyze": "report",
    "certify": "provers",
    "certify_layer": "provers",
    "compare": "report",
    "control": "models",
    "attribution": "studies.depth",
    "curvature_budget": "studies.depth",
    "curvature_field": "geometry",
    "curvature_fields": "studies.depth",
    "depth_profile": "studies.depth",
    "freeze": "parts",
    "freeze_stack": "studies.depth",
    "geometry_between": "studies",
    "growth": "studies.depth",
    "inspect": "models",
    "load": "models",
    "plan": "report",
    "study_depth": "report",
    "trace": "parts",
    "track": "report",
    "verify": "verifier",
    "verify_layer": "verifier",
}

__all__ = ["__version__", *_MODULES, *_NAMES]

if not TYPE_CHECKING:  # else a checker would let every misspelt name pass

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            value = getattr(import_module(f"fisherflat.{_NAMES[name]}"), name)
        elif name in _MODULES or (not name.startswith("_") and find_spec(f"fisherflat.{name}")):
            value = import_module(f"fisherflat.{name}")  # rooms as well, whether or not something has loaded them
        else:
            raise AttributeError(f"module 'fisherflat' has no attribute {name!r}; see dir(fisherflat)")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
