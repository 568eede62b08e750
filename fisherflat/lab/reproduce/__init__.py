"""The project's statements about gates, curvature and symmetry, measured again: `fisherflat reproduce --out DIR`."""

from fisherflat.lab.reproduce._run import SECTIONS, reproduce
from fisherflat.lab.reproduce._section import Claim, Section

__all__ = ["SECTIONS", "Claim", "Section", "reproduce"]
