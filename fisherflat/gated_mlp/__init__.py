"""Gated MLPs as symmetry-broken rank-1 bilinear attention: units, symmetries, null directions, surrogates."""

from __future__ import annotations

from fisherflat.gated_mlp._charges import Charges, conserved_charges
from fisherflat.gated_mlp._defects import exchange_defect, inverse_scaling_defect
from fisherflat.gated_mlp._experts import Expert, experts
from fisherflat.gated_mlp._extraction import gated_units, units_of_graph
from fisherflat.gated_mlp._from_weights import weight_geometry, weight_jet
from fisherflat.gated_mlp._generators import BrokenScaling, broken_scaling, generator_metric, generators
from fisherflat.gated_mlp._homogeneity import PROOFS, Homogeneity, homogeneity, homogeneity_evidence, is_named
from fisherflat.gated_mlp._interaction import Eigenfeatures, eigenfeatures, interaction_matrix
from fisherflat.gated_mlp._null import NullDirections, null_directions
from fisherflat.gated_mlp._surrogate import Surrogate, bilinear_surrogate
from fisherflat.gated_mlp._units import GatedUnits

__all__ = [
    "PROOFS",
    "BrokenScaling",
    "Charges",
    "Eigenfeatures",
    "Expert",
    "GatedUnits",
    "Homogeneity",
    "NullDirections",
    "Surrogate",
    "bilinear_surrogate",
    "broken_scaling",
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
    "is_named",
    "null_directions",
    "units_of_graph",
    "weight_geometry",
    "weight_jet",
]
