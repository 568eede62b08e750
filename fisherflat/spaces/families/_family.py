"""What a manifold needs of a statistical family."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from fisherflat._typing import Float, Tensor


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
