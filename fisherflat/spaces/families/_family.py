"""What a manifold needs of a statistical family."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from fisherflat._typing import Float, Tensor
from fisherflat.spaces.families._parametric import Ambient, Framed, ParametricFamily
from fisherflat.spaces.jets import Jet


@runtime_checkable
class Family(Protocol):
    """A family whose Fisher metric is that of Euclidean space after one linear change of the map's output.

    So it is for location families with a fixed scale: the Fisher information of the location is the same everywhere,
    `L^-T L^-1` for some matrix L, and the manifold of a map μ is the surface `f = L^-1 μ`. `Gaussian` is one; another
    class with these two methods may be given to `StatisticalManifold` in its place.
    """

    def check(self, ambient_dim: int) -> None:
        """**Raises:** `CovarianceError` where the family does not fit outputs of `ambient_dim` numbers."""

    def whiten(self, vectors: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """`L^-1 v` for each vector, with one L for all of them."""


def framed(family: Family | ParametricFamily, jet: Jet, shape: tuple[int, ...]) -> Framed:
    """The surface that the 2-jet `[P, S, D]` of a map with outputs of a shape is in a family."""
    if isinstance(family, ParametricFamily):
        return family.framed(jet, shape)
    return Framed(family.whiten(jet.coefficients), Ambient(jet.coefficients.shape[-1]))


def check(family: Family | ParametricFamily, shape: tuple[int, ...]) -> int:
    """The dimension of the family's manifold for outputs of a shape.

    **Raises:** `CovarianceError` or `InputError` where the family does not fit them.
    """
    if isinstance(family, ParametricFamily):
        return family.ambient_dim(shape)
    count = math.prod(shape)
    family.check(count)
    return count
