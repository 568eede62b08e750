"""The symmetries of gated MLPs: which hold, which an activation breaks, and how strongly."""

from fisherflat.symmetry.charges import Charges, conserved_charges
from fisherflat.symmetry.defects import exchange_defect, inverse_scaling_defect
from fisherflat.symmetry.experts import Expert, experts
from fisherflat.symmetry.from_weights import weight_geometry, weight_jet
from fisherflat.symmetry.generators import BrokenScaling, broken_scaling, generator_metric, generators
from fisherflat.symmetry.homogeneity import Homogeneity, homogeneity, homogeneity_evidence
from fisherflat.symmetry.interaction import Eigenfeatures, eigenfeatures, interaction_matrix
from fisherflat.symmetry.null import NullDirections, null_directions
from fisherflat.symmetry.proof import certify
from fisherflat.symmetry.study import study
from fisherflat.symmetry.study_result import SymmetryStudy
from fisherflat.symmetry.surrogate import Surrogate, bilinear_surrogate
from fisherflat.symmetry.table import symmetries
from fisherflat.symmetry.units import GatedUnits, gated_units

__all__ = [
    "BrokenScaling",
    "Charges",
    "Eigenfeatures",
    "Expert",
    "GatedUnits",
    "Homogeneity",
    "NullDirections",
    "Surrogate",
    "SymmetryStudy",
    "bilinear_surrogate",
    "broken_scaling",
    "certify",
    "conserved_charges",
    "eigenfeatures",
    "exchange_defect",
    "experts",
    "gated_units",
    "generator_metric",
    "generators",
    "homogeneity",
    "homogeneity_evidence",
    "interaction_matrix",
    "inverse_scaling_defect",
    "null_directions",
    "study",
    "symmetries",
    "weight_geometry",
    "weight_jet",
]
