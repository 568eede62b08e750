"""Statistical families: what the outputs of a map are the parameters of."""

from __future__ import annotations

from fisherflat.spaces.families._counts import Bernoulli, Categorical, Poisson
from fisherflat.spaces.families._directions import VonMisesFisher
from fisherflat.spaces.families._exponential import ExponentialFamily
from fisherflat.spaces.families._family import Family
from fisherflat.spaces.families._family import check as check
from fisherflat.spaces.families._family import framed as framed
from fisherflat.spaces.families._family import summed as summed
from fisherflat.spaces.families._full import FullGaussian
from fisherflat.spaces.families._gaussian import Gaussian
from fisherflat.spaces.families._normal import DiagonalGaussian, IsotropicGaussian
from fisherflat.spaces.families._parametric import Ambient, Framed, ParametricFamily
from fisherflat.spaces.families._tokens import NextToken
from fisherflat.spaces.families._units import labelled as labelled
from fisherflat.spaces.families._units import unit as unit

__all__ = [
    "Ambient",
    "Bernoulli",
    "Categorical",
    "DiagonalGaussian",
    "ExponentialFamily",
    "Family",
    "Framed",
    "FullGaussian",
    "Gaussian",
    "IsotropicGaussian",
    "NextToken",
    "ParametricFamily",
    "Poisson",
    "VonMisesFisher",
]
