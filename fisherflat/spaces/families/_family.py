"""What a manifold needs of a statistical family."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.spaces.families._parametric import Ambient, Framed, ParametricFamily
from fisherflat.spaces.jets import Jet, size

#: how far a tangent may be from where it is alone, relative to its length
_ASTRAY = 1e-3


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


def summed(
    family: Family | ParametricFamily, coefficients: Float[Tensor, "P C D"], k: int, shape: tuple[int, ...]
) -> Float[Tensor, "P C F"] | None:
    """The coefficients of `framed` of a jet whose last row, if any, is the sum of `d_i d_i`, and so what is framed.

    Covariant second derivatives are affine in the map's own, and what they are without any is bilinear in tangents: so
    each direction is framed alone. `None` where that costs too much, or frames follow the directions.
    """
    if not isinstance(family, ParametricFamily):
        return family.whiten(coefficients)
    if not family.directions_alone:
        return None
    first = coefficients[:, 1 : 1 + k]
    alone = coefficients.new_zeros(*first.shape[:2], 3, coefficients.shape[-1])
    alone[:, :, 0], alone[:, :, 1] = coefficients[:, :1], first
    alone[:, 0, 2 : coefficients.shape[1] - k + 1] = coefficients[:, 1 + k :]
    some = min(k, 2)
    together = torch.nn.functional.pad(coefficients[:, : 1 + some], (0, 0, 0, size(some) - 1 - some))
    tangents = family.framed(Jet(together, some), shape).coefficients[:, 1 : 1 + some]
    found = family.framed(Jet(alone.flatten(0, 1), 1), shape).coefficients.unflatten(0, first.shape[:2])
    if found.shape[-1] != tangents.shape[-1]:
        return None
    astray = torch.linalg.vector_norm(found[:, :some, 1] - tangents, dim=-1)
    if (astray > _ASTRAY * torch.linalg.vector_norm(tangents, dim=-1)).any():
        return None
    rows = [found[:, :1, 0], found[:, :, 1], found[:, :, 2].sum(1, keepdim=True)]
    return torch.cat(rows, 1)[:, : coefficients.shape[1]]


def check(family: Family | ParametricFamily, shape: tuple[int, ...]) -> int:
    """The dimension of the family's manifold for outputs of a shape.

    **Raises:** `CovarianceError` or `InputError` where the family does not fit them.
    """
    if isinstance(family, ParametricFamily):
        return family.ambient_dim(shape)
    count = math.prod(shape)
    family.check(count)
    return count
