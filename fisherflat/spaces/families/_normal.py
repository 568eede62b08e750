"""Gaussians whose spread moves with their mean: diagonal and isotropic covariances."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from fisherflat._typing import Tensor
from fisherflat.errors import InputError
from fisherflat.spaces.families._parametric import (
    Ambient,
    Framed,
    ParametricFamily,
    Sheet,
    areas,
    gram,
    inverse,
    last,
    leading,
    places,
    remarks,
    rows,
    spheres,
)
from fisherflat.spaces.jets import Jet

#: what is said of one whose logarithm is out of bounds
SIGMA = "a standard deviation"


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
        scale, sheet = inverse(value[..., n:]), Sheet(jet, leading(shape), n, n)
        said = remarks(value[..., n:], SIGMA, scale.isfinite())
        tangents, seconds = _spread(sheet, scale, first, second, n, 1)
        seconds[1] = sheet.plus(seconds[1], tangents[0], tangents[0], 1 / math.sqrt(2))

        def halves(x: Tensor) -> tuple[Tensor, Tensor]:
            return x.unflatten(-1, (leading(shape), 2, -1)).unbind(-2)

        def curvature(x: Tensor) -> Tensor:
            m, t = (part.flatten(2) for part in halves(x))
            i, j = torch.triu_indices(x.shape[1], x.shape[1], 1, device=x.device)
            return areas(m[:, i] * t[:, j] - t[:, i] * m[:, j], 0.5, x.shape[1])

        def cubic(x: Tensor, y: Tensor) -> Tensor:
            (m, t), (n, s) = halves(x), halves(y)
            return torch.stack([(m * s + t * n) * 2**0.5, (m * n + 2 * t * s) * 2**0.5], -2).flatten(1)

        return Framed(sheet.joined(tangents, seconds), Ambient(self.ambient_dim(shape), curvature, cubic, **said))


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
        scale, sheet = inverse(value[..., n:]), Sheet(jet, leading(shape), n, 1)
        said = remarks(value[..., n:], SIGMA, scale.isfinite())
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

        return Framed(sheet.joined(tangents, seconds), Ambient(self.ambient_dim(shape), curvature, cubic, **said))


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
