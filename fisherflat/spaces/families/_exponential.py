"""Any exponential family, by its log-partition function."""

from __future__ import annotations

from collections.abc import Callable

import torch

from fisherflat._arrays import some
from fisherflat._typing import Tensor
from fisherflat.errors import InputError, MapError
from fisherflat.spaces.families._parametric import Ambient, Framed, ParametricFamily, joined, last, leading, places
from fisherflat.spaces.jets import Jet, pair_index


class ExponentialFamily(ParametricFamily):
    """An exponential family in its natural parameters, given by its log-partition function.

    With `psi` that function, the metric is its Hessian, the Christoffel symbols of the first kind are half its third
    derivatives, and the curvature is made of those (Amari 2016, section 2.1; Shima, *The Geometry of Hessian
    Structures*, 2007, section 2.2).

    **Args:** `log_partition`, a torch function of the natural parameters, a tensor of the outputs' shape at one point,
    to the log-partition: one number, or several that are added, such as one for each of independent variables. Three
    derivatives of it are taken, by reverse mode alone.

    **Raises:** `InputError` where it is no callable; `MapError` where it is not strictly convex at a point.

    >>> import torch, fisherflat as ff
    >>> family = ff.families.ExponentialFamily(lambda t: -(-t).log())  # exponential distributions of rate -t
    >>> M = ff.StatisticalManifold(lambda t: t, ff.charts.affine([-2.0], torch.eye(1)), family)
    >>> M.metric([0.0]).tolist()
    [[0.25]]
    """

    def __init__(self, log_partition: Callable[[Tensor], Tensor]) -> None:
        if not callable(log_partition):
            raise InputError(
                f"log_partition must be a function of the natural parameters, got {type(log_partition).__name__}"
            )
        self.log_partition = log_partition

    @property
    def several(self) -> tuple[str, Callable[[list[int]], bool]]:
        """Any number."""
        return "several that are alike but for their last axis", lambda _: True

    def ambient_dim(self, shape: tuple[int, ...]) -> int:
        """As many as there are outputs."""
        return leading(shape) * last(shape, self, 1, "natural parameters")

    def framed(self, jet: Jet, shape: tuple[int, ...]) -> Framed:
        """`L^T z_i` and `L^T z_ij + L^-1 psi'''(z_i, z_j) / 2`, with `psi'' = L L^T`."""
        theta = jet.value
        hessian = self._hessian(theta, shape)
        factor, failed = torch.linalg.cholesky_ex(hessian)
        if some(failed):
            at = theta[failed.nonzero()[0, 0]]
            raise MapError(
                "the log-partition function is not strictly convex at the natural parameters "
                f"[{', '.join(f'{x:.6g}' for x in at[:8].tolist())}{', ...' if len(at) > 8 else ''}]; they are outside "
                "of the family"
            )

        def lowered(vectors: Tensor) -> Tensor:
            return torch.linalg.solve_triangular(factor, vectors.mT, upper=False).mT

        def raised(vectors: Tensor) -> Tensor:
            return torch.linalg.solve_triangular(factor.mT, vectors.mT, upper=True).mT

        i, j = places(jet.k)
        third = lowered(self._third(theta, shape, jet.jacobian[:, i], jet.jacobian[:, j]))
        seconds = jet.second @ factor + third / 2

        def curvature(x: Tensor) -> Tensor:
            (a, b), v = places(x.shape[1]), raised(x)
            c = lowered(self._third(theta, shape, v[:, a], v[:, b]))[:, pair_index(x.shape[1], x.device)]
            return (torch.einsum("pacn,pbdn->pabcd", c, c) - torch.einsum("padn,pbcn->pabcd", c, c)) / 4

        def cubic(x: Tensor, y: Tensor) -> Tensor:
            x, y = raised(x[:, None]), raised(y[:, None])
            return lowered(self._third(theta, shape, x, y))[:, 0]

        return Framed(joined(jet.jacobian @ factor, seconds), Ambient(self.ambient_dim(shape), curvature, cubic))

    def _slope(self, theta: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The natural parameters `[P, D]` with a tape, and the gradient there."""
        theta = theta.clone() if theta.requires_grad else theta.clone().requires_grad_()
        total = torch.stack([self.log_partition(point.reshape(shape)).sum() for point in theta]).sum()
        (slope,) = torch.autograd.grad(total, theta, create_graph=True)
        return theta, slope

    def _hessian(self, theta: Tensor, shape: tuple[int, ...]) -> Tensor:
        tape = torch.is_grad_enabled()
        with torch.enable_grad():
            theta, slope = self._slope(theta if tape else theta.detach(), shape)
            found = torch.stack([_derivative(slope[:, n].sum(), theta) for n in range(theta.shape[1])], 1)
            return found if tape else found.detach()

    def _third(self, theta: Tensor, shape: tuple[int, ...], x: Tensor, y: Tensor) -> Tensor:
        """`psi'''(x_m, y_m)` `[P, m, D]` of vectors `[P, m, D]`."""
        tape = torch.is_grad_enabled()
        with torch.enable_grad():
            theta, slope = self._slope(theta if tape else theta.detach(), shape)
            found = []
            for m in range(x.shape[1]):
                once = _derivative((slope * x[:, m]).sum(), theta)
                twice = _derivative((once * y[:, m]).sum(), theta)
                found.append(twice if tape else twice.detach())
            return torch.stack(found, 1)

    def __repr__(self) -> str:
        return f"ExponentialFamily({getattr(self.log_partition, '__name__', type(self.log_partition).__name__)})"


def _derivative(total: Tensor, at: Tensor) -> Tensor:
    """The gradient, zero where nothing depends on `at`."""
    if not total.requires_grad:
        return torch.zeros_like(at)
    (found,) = torch.autograd.grad(total, at, create_graph=True, allow_unused=True)
    return torch.zeros_like(at) if found is None else found
