"""The project's statements about gates, curvature and symmetry, measured again: `fisherflat reproduce --out DIR`."""

from fisherflat.reproduce.run import SECTIONS, reproduce
from fisherflat.reproduce.section import Claim, Section

__all__ = ["SECTIONS", "Claim", "Section", "reproduce"]
