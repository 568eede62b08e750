"""Gaussians whose spread moves with their mean: diagonal, isotropic and full covariances."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import SupportsIndex

import torch

from fisherflat._arrays import integer
from fisherflat._typing import Tensor
from fisherflat.errors import InputError
from fisherflat.spaces.families._parametric import (
    Ambient,
    Framed,
    ParametricFamily,
    Sheet,
    gram,
    joined,
    last,
    leading,
    places,
    rows,
    spheres,
)
from fisherflat.spaces.jets import Jet


class DiagonalGaussian(ParametricFamily):
    """Gaussians with independent entries, the outputs being means and then logarithms of standard deviations.

    The outputs are `[..., 2 n]`, or a pair of tensors `[..., n]`. Each entry is a hyperbolic plane of curvature -1/2
    (Rao 1945), so that a decoder with a spread of its own bends negatively where mean and spread both move.

    **Raises:** `InputError`, when a manifold is made, where the last axis is of odd length.

    >>> import torch, fisherflat as ff
    >>> M = ff.StatisticalManifold(lambda u: u, ff.charts.identity(2), ff.families.DiagonalGaussian())
    >>> round(M.scalar_curvature([0.3, -0.2]).item(), 12)
    -1.0
    """

    @property
    def several(self) -> tuple[str, Callable[[list[int]], bool]]:
        """A pair."""
        return "means and as many logarithms of standard deviations", lambda n: len(n) == 2 and n[0] == n[1]

    def ambient_dim(self, shape: tuple[int, ...]) -> int:
        """As many as there are outputs."""
        size = last(shape, self, 2, "means and then logarithms of standard deviations")
        if size % 2:
            raise InputError(
                "DiagonalGaussian takes as many means as logarithms of standard deviations, in the last axis; it has "
                f"an odd length in outputs of shape {list(shape)}"
            )
        return leading(shape) * size

    def framed(self, jet: Jet, shape: tuple[int, ...]) -> Framed:
        """With `a = e^-t m_i` and `b = t_i`: `(a, sqrt 2 b)`, seconds as `_spread` says with n = 1."""
        value, first, second = rows(jet, shape)
        n = shape[-1] // 2
        scale, sheet = (-value[..., n:]).exp(), Sheet(jet, leading(shape), n, n)
        tangents, seconds = _spread(sheet, scale, first, second, n, 1)
        seconds[1] = sheet.plus(seconds[1], tangents[0], tangents[0], 1 / math.sqrt(2))

        def halves(x: Tensor) -> tuple[Tensor, Tensor]:
            return x.unflatten(-1, (leading(shape), 2, -1)).unbind(-2)

        def curvature(x: Tensor) -> Tensor:
            m, t = (part.flatten(2) for part in halves(x))
            i, j = torch.triu_indices(x.shape[1], x.shape[1], 1, device=x.device)  # areas are antisymmetric
            area = m[:, i] * t[:, j] - t[:, i] * m[:, j]
            found = x.new_zeros(len(x), *[x.shape[1]] * 4)
            gram = area @ area.mT / 2
            (a, c), (b, d) = (torch.meshgrid(side, side, indexing="ij") for side in (i, j))
            for one, two, three, four in ((a, b, c, d), (b, a, d, c)):
                found[:, one, two, three, four], found[:, one, two, four, three] = gram, -gram
            return found

        def cubic(x: Tensor, y: Tensor) -> Tensor:
            (m, t), (n, s) = halves(x), halves(y)
            return torch.stack([(m * s + t * n) * 2**0.5, (m * n + 2 * t * s) * 2**0.5], -2).flatten(1)

        return Framed(sheet.joined(tangents, seconds), Ambient(self.ambient_dim(shape), curvature, cubic))


class IsotropicGaussian(ParametricFamily):
    """Gaussians `N(m, s^2 I)`, the outputs being n means and then one logarithm of the standard deviation.

    The outputs are `[..., n + 1]`, or a pair `[..., n]` and `[..., 1]`. The family is hyperbolic space of curvature
    `-1 / (2 n)`.

    **Raises:** `InputError`, when a manifold is made, for fewer than two outputs.

    >>> import torch, fisherflat as ff
    >>> M = ff.StatisticalManifold(lambda u: u, ff.charts.identity(3), ff.families.IsotropicGaussian())
    >>> round(M.scalar_curvature([0.3, -0.2, 0.1]).item(), 12)  # -(n + 1) / 2
    -1.5
    """

    @property
    def several(self) -> tuple[str, Callable[[list[int]], bool]]:
        """A pair."""
        return "means and one logarithm of a standard deviation", lambda n: len(n) == 2 and n[1] == 1

    def ambient_dim(self, shape: tuple[int, ...]) -> int:
        """As many as there are outputs."""
        return leading(shape) * last(shape, self, 2, "means and then one logarithm of a standard deviation")

    def framed(self, jet: Jet, shape: tuple[int, ...]) -> Framed:
        """With `a = e^-t m_i` and `b = t_i`: `(a, sqrt(2 n) b)`, seconds as `_spread` says."""
        value, first, second = rows(jet, shape)
        n, (i, j) = shape[-1] - 1, places(jet.k)
        scale, sheet = (-value[..., n:]).exp(), Sheet(jet, leading(shape), n, 1)
        tangents, seconds = _spread(sheet, scale, first, second, n, n)
        lengths = gram(tangents[0])[..., i, j].transpose(1, 2)[..., None]
        seconds[1] = torch.add(seconds[1], lengths, alpha=1 / math.sqrt(2 * n), out=sheet.over(seconds[1]))

        def curvature(x: Tensor) -> Tensor:
            return spheres(gram(x.unflatten(-1, (-1, n + 1))), -1 / (2 * n))

        def cubic(x: Tensor, y: Tensor) -> Tensor:
            (m, t), (o, s) = (v.unflatten(-1, (-1, n + 1)).split([n, 1], -1) for v in (x, y))
            unit = 2 / (2 * n) ** 0.5
            spread = unit * ((m * o).sum(-1, keepdim=True) + 2 * t * s)
            return torch.cat([unit * (m * s + t * o), spread], -1).flatten(1)

        return Framed(sheet.joined(tangents, seconds), Ambient(self.ambient_dim(shape), curvature, cubic))


def _spread(
    sheet: Sheet, scale: Tensor, first: Tensor, second: Tensor, means: int, n: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Tangents `(a_i, c b_i)`, seconds `(a_ij - a_i b_j - a_j b_i, c b_ij)` in two parts, `c = sqrt(2 n)`.

    What is missing is `<a_i, a_j> / c` in the second part.
    """
    c, b = math.sqrt(2 * n), first[..., means:]
    a = torch.mul(scale, first[..., :means], out=sheet.first[0])
    bends = torch.mul(scale, second[..., :means], out=sheet.second[0])
    bends = sheet.plus(sheet.plus(bends, a, b, -1), b, a, -1)
    spreads = torch.mul(second[..., means:], c, out=sheet.second[1])
    return [a, torch.mul(b, c, out=sheet.first[1])], [bends, spreads]


class FullGaussian(ParametricFamily):
    """Gaussians `N(m, L L^T)` in `dim` dimensions with all of their covariance moving.

    The outputs are `[..., dim + dim (dim + 1) / 2]`: the mean, then the lower triangle of L row by row, its diagonal as
    logarithms; or a pair of the two. Means to some dozens of dimensions: the work grows with the cube of `dim`.

    The formulas are those of the embedding of Calvo and Oller (1990) into positive definite matrices of one dimension
    more, where the metric is `tr(S^-1 dS S^-1 dS) / 2`.

    **Args:** `dim`, of the Gaussians, at least 1.

    **Raises:** `InputError` for a `dim` below 1, and where the outputs are not that many.

    >>> import torch, fisherflat as ff
    >>> M = ff.StatisticalManifold(lambda u: u, ff.charts.identity(5), ff.families.FullGaussian(2))
    >>> round(M.scalar_curvature([0.1, -0.2, 0.3, 0.1, 0.2]).item(), 12)
    -4.5
    """

    def __init__(self, dim: SupportsIndex) -> None:
        self.size = integer(dim, "the dimension of the Gaussians", 1)

    @property
    def several(self) -> tuple[str, Callable[[list[int]], bool]]:
        """A pair."""
        d, entries = self.size, self.size * (self.size + 1) // 2
        return f"{d} means and the {entries} entries of a Cholesky factor", lambda n: n == [d, entries]

    def ambient_dim(self, shape: tuple[int, ...]) -> int:
        """As many as there are outputs."""
        needed = self.size + self.size * (self.size + 1) // 2
        if (shape[-1] if shape else 1) != needed:
            raise InputError(
                f"FullGaussian({self.size}) takes {needed} numbers in the last axis: {self.size} means, then the lower "
                "triangle of the Cholesky factor row by row, its diagonal as logarithms; the map's outputs have shape "
                f"{list(shape)}"
            )
        return leading(shape) * needed

    def framed(self, jet: Jet, shape: tuple[int, ...]) -> Framed:
        """`sqrt(1/2) X_i` and `sqrt(1/2) (S_ij - (X_i X_j + X_j X_i) / 2)`, in the frame in which S is the identity."""
        value, first, second = rows(jet, shape)
        i, j = places(jet.k)
        d = self.size
        row, column = torch.tril_indices(d, d, device=value.device)
        diagonal = torch.arange(d, device=value.device)
        on = diagonal * (diagonal + 3) // 2  # where the diagonal lies among the entries of the triangle
        diag = value[..., d:][..., on].exp()

        def filled(means: Tensor, entries: Tensor, scaled: Tensor) -> Tensor:
            found = means.new_zeros(*means.shape[:-1], d + 1, d + 1)
            found[..., row, column] = entries
            found[..., diagonal, diagonal] = scaled
            found[..., :d, d] = means
            return found

        logs, logs2 = first[..., d:][..., on], second[..., d:][..., on]
        lower = filled(torch.zeros_like(value[..., :d]), value[..., d:], diag)[..., :d, :d]

        def relative(x: Tensor, scaled: Tensor) -> Tensor:
            full = filled(x[..., :d], x[..., d:], scaled)
            rows = torch.linalg.solve_triangular(lower.expand(*full.shape[:-2], d, d), full[..., :d, :], upper=False)
            return torch.cat([rows, torch.zeros_like(full[..., d:, :])], -2)

        b = relative(first, diag * logs)
        b2 = relative(second, diag * (logs2 + logs[:, i] * logs[:, j]))
        x = b + b.mT
        mixed = b[:, i] @ b[:, j].mT
        bends = b2 + b2.mT + mixed + mixed.mT
        both = x[:, i] @ x[:, j]
        seconds = bends - (both + both.mT) / 2
        seconds[..., d, d] = 0  # normal to the family in the larger space; `curvature` has what it makes
        half = math.sqrt(0.5)

        def matrices(v: Tensor) -> Tensor:
            return v.unflatten(-1, (-1, d + 1, d + 1)) / half

        def curvature(v: Tensor) -> Tensor:
            m = matrices(v)
            ab = m[:, :, None] @ m[:, None]
            commutators = ab - ab.mT
            found = -torch.einsum("pablij,pdclij->pabcd", commutators, commutators) / 8
            means = m[..., :d, d]
            normal = -half * torch.einsum("pali,pbli->plab", means, means)
            found = found + torch.einsum("plad,plbc->pabcd", normal, normal)
            return found - torch.einsum("plac,plbd->pabcd", normal, normal)

        def cubic(v: Tensor, w: Tensor) -> Tensor:
            both = matrices(v) @ matrices(w)
            found = (both + both.mT) * half**-1 / 2
            found[..., d, d] = 0
            return found.flatten(1)

        return Framed(joined(half * x, half * seconds), Ambient(self.ambient_dim(shape), curvature, cubic))

    def __repr__(self) -> str:
        return f"FullGaussian({self.size})"
