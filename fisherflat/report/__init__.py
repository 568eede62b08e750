"""What people read and keep of a study: sentences, tables, figures and files.

`fisherflat.studies` measures and `fisherflat.plot` draws; only here the two meet. All results follow one protocol,
`Result`.
"""

from __future__ import annotations

from fisherflat.report._analysis import Analysis
from fisherflat.report._analyze import analyze
from fisherflat.report._compare import compare, is_saved
from fisherflat.report._comparison import Comparison
from fisherflat.report._depth_study import DepthStudy, study_depth
from fisherflat.report._large import LargeAnalysis
from fisherflat.report._load import each, load, renew
from fisherflat.report._page import CURVATURE, PAGE, cell, command, listed, number
from fisherflat.report._plan import plan
from fisherflat.report._proofs import Proofs
from fisherflat.report._result import Result, read_json, reading, room_for
from fisherflat.report._symmetry_study import SymmetryStudy, study_symmetry
from fisherflat.report._track import to_measure, track
from fisherflat.report._tracked import Stage, Track
from fisherflat.report._writer import FORMATS, Figure, blank, checked_formats, write

__all__ = [
    "CURVATURE",
    "FORMATS",
    "PAGE",
    "Analysis",
    "Comparison",
    "DepthStudy",
    "Figure",
    "LargeAnalysis",
    "Proofs",
    "Result",
    "Stage",
    "SymmetryStudy",
    "Track",
    "analyze",
    "blank",
    "cell",
    "checked_formats",
    "command",
    "compare",
    "each",
    "is_saved",
    "listed",
    "load",
    "number",
    "plan",
    "read_json",
    "reading",
    "renew",
    "room_for",
    "study_depth",
    "study_symmetry",
    "to_measure",
    "track",
    "write",
]
