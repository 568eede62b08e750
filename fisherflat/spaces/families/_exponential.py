"""Any exponential family, by its log-partition function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fisherflat._arrays import some
from fisherflat._typing import Tensor
from fisherflat.errors import InputError, MapError
from fisherflat.spaces.families._parametric import Ambient, Framed, ParametricFamily, Sheet, joined, last, leading, rows
from fisherflat.spaces.jets import Jet, pair_index, pairs

#: its multiples, less what is whole in them, are spread evenly over the unit interval
_GOLDEN = (5**0.5 - 1) / 2
#: what is wrong where there is no metric
_OUTSIDE = "the log-partition function is not finite or not strictly convex, so that they are outside of the family"


class ExponentialFamily(ParametricFamily):
    """An exponential family in its natural parameters, given by its log-partition function.

    With `psi` that function, the metric is its Hessian, the Christoffel symbols of the first kind are half its third
    derivatives, and the curvature is made of those (Amari 2016, section 2.1; Shima, *The Geometry of Hessian
    Structures*, 2007, section 2.2).

    **Args:** `log_partition`, a torch function of the natural parameters, a tensor of the outputs' shape at one point,
    to the log-partition: one number, or several that are added, such as one for each of independent variables. Three
    derivatives of it are taken, by reverse mode alone. Where variables turn out to be independent, single ones or those
    of different leading axes, the metric is never formed as a whole.

    **Raises:** `InputError` where it is no callable; `MapError` where it fails or returns no tensor of real numbers,
    and where it is not finite or not strictly convex at a point, which is NaN under `degenerate="nan"`.

    >>> import torch, fisherflat as ff
    >>> family = ff.families.ExponentialFamily(lambda t: -(-t).log())  # exponential distributions of rate -t
    >>> M = ff.StatisticalManifold(lambda t: t, ff.charts.affine([-2.0], torch.eye(1)), family)
    >>> M.metric([0.0]).tolist()
    [[0.25]]
    """

    directions_alone = False  # each point has a factorisation of its own

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
        theta, k, tape = jet.value, jet.k, torch.is_grad_enabled()
        with torch.enable_grad():
            tape = tape and theta.requires_grad
            start, slope, values = self._slope(theta, shape, tape)
            blocks = _hessian(slope, start, shape[-1] if shape else 1)
            if tape:  # vectors depend on the parameters through blocks, and are constant where slopes are derived again
                start, slope, _ = self._slope(theta, shape, tape)
            else:
                blocks = blocks.detach()
        factor, outside = _cholesky(blocks)
        outside = outside | ~values.isfinite()
        why = _OUTSIDE if some(outside & theta.isfinite().all(-1)) else None
        factor = torch.where(outside[:, None, None, None], float("nan"), factor)
        with torch.enable_grad():
            cubes = _diagonal_third(slope, start) if blocks.shape[-1] == 1 else None
        if cubes is not None:
            return self._independent(jet, shape, factor[..., 0, 0], cubes if tape else cubes.detach(), why)
        frame = _Frame(factor)

        def third(x: Tensor, y: Tensor, at: list[tuple[int, int]]) -> Tensor:
            """`psi'''(x_i, y_j)` `[P, m, D]` for so many pairs of indices, lowered."""
            with torch.enable_grad():
                once = {i: _derivative((slope * x[:, i]).sum(), start) for i in dict.fromkeys(i for i, _ in at)}
                found = torch.stack([_derivative((once[i] * y[:, j]).sum(), start) for i, j in at], 1)
            return frame.lowered(found if tape else found.detach())

        seconds = frame.whitened(jet.second) + third(jet.jacobian, jet.jacobian, list(pairs(k))) / 2

        def curvature(x: Tensor) -> Tensor:
            v, n = frame.raised(x), x.shape[1]
            c = third(v, v, list(pairs(n)))[:, pair_index(n, x.device)]
            return (torch.einsum("pacn,pbdn->pabcd", c, c) - torch.einsum("padn,pbcn->pabcd", c, c)) / 4

        def cubic(x: Tensor, y: Tensor) -> Tensor:
            return third(frame.raised(x[:, None]), frame.raised(y[:, None]), [(0, 0)])[:, 0]

        ambient = Ambient(self.ambient_dim(shape), curvature, cubic, outside=why)
        return Framed(joined(frame.whitened(jet.jacobian), seconds), ambient)

    def _independent(self, jet: Jet, shape: tuple[int, ...], root: Tensor, cubes: Tensor, why: str | None) -> Framed:
        """Of independent variables, whose space is flat, by the roots of their metrics and their third derivatives."""
        _, first, second = rows(jet, (1, root.shape[-1]))
        slope, sheet = root[:, None, None], Sheet(jet, 1, root.shape[-1])
        tangents = torch.mul(slope, first, out=sheet.first[0])
        tilt = cubes[:, None, None] / (slope * slope)
        seconds = sheet.plus(torch.mul(slope, second, out=sheet.second[0]), tilt * tangents, first, 0.5)

        def cubic(x: Tensor, y: Tensor) -> Tensor:
            return cubes / root**3 * x * y

        return Framed(sheet.joined([tangents], [seconds]), Ambient(self.ambient_dim(shape), None, cubic, outside=why))

    def _slope(self, theta: Tensor, shape: tuple[int, ...], tape: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Parameters `[P, D]` by which to derive, the gradient there, and the log-partitions `[P]`."""
        start = theta.clone() if tape else theta.detach().clone().requires_grad_()
        values = self._values(start, shape)
        return start, _derivative(values.sum(), start), values

    def _values(self, theta: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The log-partition at natural parameters `[P, D]`, `[P]`: of all points at a time where that goes."""
        try:
            found = torch.func.vmap(lambda point: self.log_partition(point.reshape(shape)).sum())(theta)
        except Exception:  # of a function that looks at its numbers, and of one that fails in any case
            return torch.stack([self._value(point, shape) for point in theta])
        with torch.no_grad():
            some_points = [*dict.fromkeys((0, len(theta) // 2, len(theta) - 1))]
            alone = torch.stack([self._value(theta[at], shape) for at in some_points])
        same = torch.isclose(
            found[some_points], alone, rtol=2**-40 if theta.dtype == torch.float64 else 2**-16, equal_nan=True
        )
        return found if not some(~same) else torch.stack([self._value(point, shape) for point in theta])

    def _value(self, point: Tensor, shape: tuple[int, ...]) -> Tensor:
        try:
            value = self.log_partition(point.reshape(shape))
        except Exception as error:
            raise MapError(
                f"the log-partition function failed on natural parameters of shape {list(shape)} and "
                f"{point.dtype}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(value, Tensor) or not value.is_floating_point():
            what = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
            raise MapError(
                "the log-partition function must return a tensor of real numbers, computed by torch from its "
                f"argument; it returned {what}"
            )
        return value.sum()

    def __repr__(self) -> str:
        return f"ExponentialFamily({getattr(self.log_partition, '__name__', type(self.log_partition).__name__)})"


@dataclass(frozen=True)
class _Frame:
    """The Cholesky factor `L` of the metric, in blocks `[P, B, n, n]` along its diagonal; vectors are `[P, m, D]`."""

    factor: Tensor

    def _apart(self, vectors: Tensor) -> Tensor:
        return vectors.unflatten(-1, self.factor.shape[1:3])

    def whitened(self, vectors: Tensor) -> Tensor:
        """`L^T v`."""
        if self.factor.shape[-1] == 1:
            return vectors * self.factor[:, None, :, 0, 0]
        return torch.einsum("pmbi,pbij->pmbj", self._apart(vectors), self.factor).flatten(2)

    def lowered(self, vectors: Tensor) -> Tensor:
        """`L^-1 v`."""
        return self._solved(self.factor, vectors, upper=False)

    def raised(self, vectors: Tensor) -> Tensor:
        """`L^-T v`."""
        return self._solved(self.factor.mT, vectors, upper=True)

    def _solved(self, triangle: Tensor, vectors: Tensor, upper: bool) -> Tensor:
        if triangle.shape[-1] == 1:
            return vectors / triangle[:, None, :, 0, 0]
        columns = self._apart(vectors).permute(0, 2, 3, 1)
        return torch.linalg.solve_triangular(triangle, columns, upper=upper).permute(0, 3, 1, 2).flatten(2)


def _hessian(slope: Tensor, theta: Tensor, last: int) -> Tensor:
    """Derivatives of a slope `[P, D]` in blocks `[P, B, n, n]` along the diagonal, outside of which they vanish.

    So many products with vectors as a block has columns tell all blocks, if there is nothing else; that this is so is
    seen by a product with a vector without zeros or equal entries (after Freivalds 1977, who draws it). Blocks are
    single parameters, those of the last axis, or all.
    """
    count, dim = theta.shape
    for n in dict.fromkeys((1, last, dim)):
        columns = [_along(slope, theta, (torch.arange(dim, device=theta.device) % n == q).to(theta)) for q in range(n)]
        blocks = torch.stack(columns, -1).reshape(count, dim // n, n, n)
        if n == dim:
            break
        with torch.no_grad():
            unit, probe = _probe(blocks.diagonal(dim1=-2, dim2=-1).flatten(1))
        seen = _along(slope, theta, probe).detach()
        there = torch.einsum("pbij,pbj->pbi", blocks.detach(), probe.reshape(count, -1, n)).flatten(1)
        off = ((seen - there) * unit).abs() > 64 * n * torch.finfo(theta.dtype).eps
        if not some(off):
            break
    return blocks


def _diagonal_third(slope: Tensor, theta: Tensor) -> Tensor | None:
    """Third derivatives `[P, D]` of a log-partition along single parameters, `None` where there are others.

    A Hessian that is diagonal at a point need not be so nearby, which is seen as in `_hessian`.
    """
    once = _along(slope, theta, torch.ones_like(theta))
    found = _along(once, theta, torch.ones_like(theta))
    with torch.no_grad():
        unit, probe = _probe(once)
    seen = _along(_along(slope, theta, probe), theta, probe).detach() * unit
    there = found.detach() * probe * probe * unit
    off = (seen - there).abs() > 64 * torch.finfo(theta.dtype).eps * (1 + there.abs())
    return None if some(off) else found


def _probe(metric: Tensor) -> tuple[Tensor, Tensor]:
    """One over the root of a metric's diagonal `[P, D]`, and vectors of that size without zeros or equal entries."""
    unit = metric.rsqrt()  # no number where it is not convex in any case
    uneven = 1 + torch.arange(metric.shape[-1], device=metric.device, dtype=metric.dtype).mul(_GOLDEN).frac()
    return unit, torch.where(unit.isfinite(), unit, 0.0) * uneven


def _along(slope: Tensor, theta: Tensor, v: Tensor) -> Tensor:
    """The derivative of a slope along constant vectors, where that is symmetric."""
    return _derivative((slope * v).sum(), theta)


def _cholesky(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Factors of blocks `[P, B, n, n]`, and which points `[P]` have none."""
    if blocks.shape[-1] == 1:
        return blocks.sqrt(), ~(blocks > 0).flatten(1).all(1)
    factor, failed = torch.linalg.cholesky_ex(blocks)
    return factor, (failed != 0).any(1) | ~blocks.isfinite().flatten(1).all(1)


def _derivative(total: Tensor, at: Tensor) -> Tensor:
    """The gradient, zero where nothing depends on `at`."""
    if not total.requires_grad:
        return torch.zeros_like(at)
    (found,) = torch.autograd.grad(total, at, create_graph=True, allow_unused=True)
    return torch.zeros_like(at) if found is None else found
