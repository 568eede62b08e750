"""The dual connections of information geometry: what a metric alone does not know of a family.

Amari, *Information Geometry and Its Applications*, 2016, chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from fisherflat._modes import lazy, unrounded
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.spaces.families import Ambient
from fisherflat.spaces.jets import Jet, pair_index, pairs


class DualConnections:
    """The part of `Geometry` that takes the third moments of the scores."""

    if TYPE_CHECKING:  # what `Geometry` has
        k: int
        _ambient: Ambient
        working_triangular: Tensor

        @property
        def jet(self) -> Jet: ...
        @lazy
        def metric(self) -> Tensor: ...
        @lazy
        def christoffel(self) -> Tensor: ...
        @lazy
        def scalar_curvature(self) -> Tensor: ...
        @lazy
        def _triangular(self) -> Tensor: ...
        def _project(self, second: Tensor) -> tuple[Tensor, Tensor]: ...

    def _cubic(self) -> Float[Tensor, "*batch m D"] | None:
        """The vectors `c_ij` with `c_ij . d_l f = T_ijl`, for the pairs `i <= j`; `None` where they vanish."""
        if self._ambient.cubic is None:
            return None
        tangents = self.jet.jacobian
        found = [self._ambient.cubic(tangents[..., i, :], tangents[..., j, :]) for i, j in pairs(self.k)]
        return torch.stack(found, -2)

    @lazy
    def amari_chentsov(self) -> Float[Tensor, "*batch k k k"]:
        """`T_ijl = E[d_i l d_j l d_l l]`, l the log-likelihood: how skewed the score is, symmetric in all indices.

        Zero for Gaussians of one covariance (Amari, *Information Geometry and Its Applications*, 2016, section 6.2).
        """
        found, cubic = 0 * self._triangular[..., None], self._cubic()
        if cubic is None:
            return found.expand(*self._triangular.shape, self.k)
        index = pair_index(self.k, cubic.device)
        return (cubic @ self.jet.jacobian.transpose(-1, -2))[..., index, :] + found

    @unrounded
    def alpha_connection(self, alpha: float) -> Float[Tensor, "*batch k k k"]:
        """`[..., m, i, j] = Gamma^m_ij - alpha g^ml T_ijl / 2`.

        Levi-Civita's for 0, the exponential one for 1, the mixture one for -1 (Amari 2016, section 6.3).
        """
        lowered = self.amari_chentsov.movedim(-1, -3).flatten(-2)
        raised = torch.cholesky_solve(lowered, self._triangular, upper=True)
        return self.christoffel - alpha / 2 * raised.unflatten(-1, (self.k, self.k))

    @lazy
    def efron_curvature(self) -> Float[Tensor, "*batch"]:
        """Efron's statistical curvature of a one-parameter family: how far it is from an exponential family.

        The length of the normal part of the second derivative by the exponential connection, over the metric; for
        Gaussians of one covariance `|II|` (Efron, *Annals of Statistics* 3, 1975, 1189).

        **Raises:** `InputError` for k > 1, where there is no single number.
        """
        return self._efron.norm(dim=-1)

    @lazy
    def _efron(self) -> Float[Tensor, "*batch D"]:
        """The vector whose length it is."""
        if self.k != 1:
            raise InputError(f"Efron's curvature is of families with one parameter; this one has k = {self.k}")
        second, cubic = self.jet.second, self._cubic()
        normal = self._project(second if cubic is None else second - cubic / 2)[1]
        return normal[..., 0, :] / self.metric[..., 0, :1]

    @lazy
    def uncertainty(self) -> Float[Tensor, "*batch"]:
        """`1 - p_max`, p_max the probability of the likeliest outcome; NaN in families without finitely many."""
        if self._ambient.uncertainty is None:
            return torch.full_like(self.working_triangular[..., 0, 0], float("nan"))
        return self._ambient.uncertainty + 0 * self.working_triangular[..., 0, 0]

    @lazy
    def relative_curvature(self) -> Float[Tensor, "*batch"]:
        """`4 (1 - p_max) K`, K the mean sectional curvature `scal / (k (k - 1))`; NaN where there is no p_max.

        The curvature of classes grows like `1 / (1 - p_max)` towards a corner of the simplex; this does not.
        """
        planes = self.k * (self.k - 1)
        return 4 * self.uncertainty * self.scalar_curvature / (planes or float("nan"))


class DualMeasures:
    """The part of `StatisticalManifold` that measures these."""

    if TYPE_CHECKING:  # what `StatisticalManifold` has

        def _points(self, u: Any, name: str = "u") -> Tensor: ...
        def _measured(self, function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]: ...
        def measure(self, u: Any, quantities: Sequence[str]) -> dict[str, Tensor]: ...

    def amari_chentsov(self, u: Any) -> Float[Tensor, "*batch k k k"]:
        """`T_ijl = E[d_i l d_j l d_l l]` of the scores along the coordinates, zero for Gaussians of one covariance."""
        return self.measure(u, ["amari_chentsov"])["amari_chentsov"]

    def alpha_connection(self, u: Any, alpha: float) -> Float[Tensor, "*batch k k k"]:
        """`[..., m, i, j]`: the exponential connection for `alpha` 1, the mixture one for -1, `christoffel` for 0."""
        return self._measured(lambda geometry: (geometry.alpha_connection(float(alpha)),), self._points(u))[0]

    def efron_curvature(self, u: Any) -> Float[Tensor, "*batch"]:
        """Efron's statistical curvature, for k = 1: zero for exponential families.

        **Raises:** `InputError` for k > 1.
        """
        return self.measure(u, ["efron_curvature"])["efron_curvature"]
