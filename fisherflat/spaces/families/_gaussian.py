"""The statistical family: Gaussians `N(mu, Sigma)` with fixed covariance.

Their Fisher information is `g_ij = d_i mu . Sigma^-1 d_j mu` (Amari, *Information Geometry and Its Applications*,
2016, section 2.2), so that whitening the mean once, `f = L^-1 mu` with `Sigma = L L^T`, leaves plain Euclidean
geometry of the surface `f`.
"""

from __future__ import annotations

from typing import Any

import torch

from fisherflat._arrays import as_float64, some
from fisherflat._display import displayed
from fisherflat._modes import lasting
from fisherflat._renamed import former
from fisherflat._typing import Float, Tensor
from fisherflat.errors import CovarianceError, InputError
from fisherflat.spaces.families._root import inverse_root


@displayed
class Gaussian:
    """Gaussians with a fixed covariance, in the squared units of the map's output, flattened to D numbers.

    Scaling the covariance by c scales every scalar and sectional curvature by c.

    **Args:**

    - `covariance`: a number c (isotropic, `c I`), a diagonal `[D]` or a symmetric positive definite matrix `[D, D]`.

    **Raises:** `CovarianceError` where it is not positive definite (to rounding, so that a singular matrix is not taken
    for a regular one), not symmetric or not finite.

    >>> import fisherflat as ff
    >>> ff.Gaussian(0.25), ff.Gaussian([1.0, 4.0]).ambient_dim
    (Gaussian(0.25), 2)
    """

    def __init__(self, covariance: Any = 1.0) -> None:
        try:
            given = as_float64(covariance, "covariance", tape=True)
        except InputError as error:
            raise CovarianceError(str(error)) from error
        self.covariance = sigma = given.detach()
        self._taped = given if given.requires_grad else None
        self._moved: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        with lasting():
            self._factorise(sigma)

    def _factorise(self, sigma: Tensor) -> None:
        if sigma.numel() == 0:
            raise CovarianceError("the covariance is empty; pass a number, a diagonal [D] or a matrix [D, D]")
        if sigma.dim() < 2:
            if some(~(sigma > 0)):
                raise CovarianceError(f"a covariance must be positive; the smallest entry is {sigma.min().item():.6g}")
            with lasting():
                self._deviation = sigma.sqrt()
            self._unit = sigma.dim() == 0 and not some(sigma != 1)
            return
        if sigma.dim() != 2 or sigma.shape[0] != sigma.shape[1]:
            raise CovarianceError(
                f"a covariance is a number, a diagonal [D] or a matrix [D, D]; this one has shape {list(sigma.shape)}"
            )
        asymmetry = (sigma - sigma.T).abs().max()
        if some(asymmetry > 1e-12 * sigma.abs().max()):
            raise CovarianceError(
                f"the covariance matrix is not symmetric (largest difference {asymmetry:.3g}); pass (C + C.T) / 2"
            )
        factor, info = torch.linalg.cholesky_ex(sigma)
        # a pivot is the variance that the entries before do not explain; rounding leaves about sqrt(D) eps of a zero
        unexplained = (factor.diagonal().square() / sigma.diagonal()).min()
        if some((info > 0) | (unexplained < 2 * sigma.shape[0] ** 0.5 * torch.finfo(sigma.dtype).eps)):
            raise CovarianceError(
                "the covariance matrix is not positive definite, or singular to rounding (was it estimated from fewer "
                "samples than outputs?); add a small multiple of the identity"
            )
        with lasting():
            self._inverse, self._rest = inverse_root(sigma, factor)

    def __getstate__(self) -> dict[str, Any]:
        """Without a tape, which no copy can have."""
        return {**vars(self), "_taped": None, "_moved": {}}

    @classmethod
    def calibrated(cls, outputs: Any) -> Gaussian:
        """The isotropic family whose variance is the mean variance of some outputs (unbiased).

        This is the dimensionless choice when layers are compared: one unit of length is the spread of the layer's own
        outputs.

        **Args:**

        - `outputs`: `[m, *shape]`, the variance being that over the first axis.

        **Returns:** a `Gaussian`.

        **Raises:** `CovarianceError` for fewer than two outputs or outputs that do not vary.

        >>> import fisherflat as ff
        >>> ff.Gaussian.calibrated([[0.0, 0.0], [2.0, 4.0]])
        Gaussian(5)
        """
        outputs = as_float64(outputs, "outputs", tape=True)
        if outputs.dim() < 1 or outputs.shape[0] < 2:
            raise CovarianceError(
                f"calibration needs at least two outputs on the first axis; got shape {list(outputs.shape)}"
            )
        variance = outputs.reshape(outputs.shape[0], -1).var(0).mean()
        if some(~((variance > 0) & variance.isfinite())):
            raise CovarianceError(
                "the outputs do not vary, so no covariance can be calibrated on them; pass a number instead"
            )
        return cls(variance)

    @property
    def ambient_dim(self) -> int | None:
        """D, the number of outputs that the covariance is made for, or `None` for a number, which fits every D."""
        return None if self.covariance.dim() == 0 else self.covariance.shape[0]

    dim = former("ambient_dim")

    def check(self, ambient_dim: int) -> None:
        """**Raises:** `CovarianceError` where the covariance does not fit outputs of `ambient_dim` numbers."""
        if self.ambient_dim not in (None, ambient_dim):
            raise CovarianceError(f"the map has {ambient_dim} outputs, the covariance is made for {self.ambient_dim}")

    def whiten(self, vectors: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """`L^-1 v` for each vector, with `Sigma = L L^T`: in units of standard deviations."""
        taped = self._taped if torch.is_grad_enabled() else None
        if self.covariance.dim() < 2:
            if taped is not None:
                return vectors / taped.sqrt().to(vectors)
            # without a tape also by one: where arithmetic has noise, that stands for what the map's last op rounds
            return vectors if self._unit and vectors.requires_grad else vectors / self._placed(self._deviation, vectors)
        inverse = self._inverse
        if taped is not None:  # the value that is right to the last place, with the derivatives of a plain one
            plain = torch.linalg.inv(torch.linalg.cholesky((taped + taped.mT) / 2))
            inverse = inverse + (plain - plain.detach())
        return vectors @ (self._placed(inverse, vectors) if taped is None else inverse.to(vectors)).T

    def _placed(self, root: Tensor, like: Tensor) -> Tensor:
        """The root where `like` is and in its precision, moved there once."""
        if (found := self._moved.get((like.device, like.dtype))) is None:
            with lasting():
                found = root.to(like.device, like.dtype)
                found = self._moved[like.device, like.dtype] = found.clone() if found.is_inference() else found
        return found

    def root(self) -> tuple[Float[Tensor, "*D"], Float[Tensor, "*D"]]:
        """`L^-1` of a full covariance in twice the precision, as the sum of two matrices.

        **Raises:** `CovarianceError` for a covariance that is a number or a diagonal, whose root is that of each entry.
        """
        if self.covariance.dim() < 2:
            raise CovarianceError("a number or a diagonal has no factor; take the root of each entry")
        return self._inverse, self._rest

    def __repr__(self) -> str:
        if self.covariance.dim() == 0:
            return f"Gaussian({self.covariance.item():.6g})"
        return f"Gaussian({'diagonal' if self.covariance.dim() == 1 else 'full'}, D={self.ambient_dim})"
