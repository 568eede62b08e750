"""The symmetries of gated MLPs: which hold, which an activation breaks, and how strongly."""

from fisherflat.symmetry.defects import exchange_defect, inverse_scaling_defect
from fisherflat.symmetry.homogeneity import Homogeneity, homogeneity, homogeneity_evidence
from fisherflat.symmetry.units import GatedUnits, gated_units

__all__ = [
    "GatedUnits",
    "Homogeneity",
    "exchange_defect",
    "gated_units",
    "homogeneity",
    "homogeneity_evidence",
    "inverse_scaling_defect",
]
