"""Gaussians with all of their covariance moving.

Numbers lie with the entry of a matrix first and all members of all points last, so that each step of arithmetic is one
of long vectors, and what is zero in a triangle costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import SupportsIndex

import torch

from fisherflat._arrays import integer, some
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.spaces.families._normal import SIGMA
from fisherflat.spaces.families._parametric import (
    Ambient,
    Framed,
    ParametricFamily,
    Remarks,
    areas,
    gram,
    inverse,
    leading,
    places,
    remarks,
    spheres,
)
from fisherflat.spaces.jets import Jet

#: how many rows of a triangle are padded to one width: few steps of arithmetic, and few zeros
_ROWS = 3


class FullGaussian(ParametricFamily):
    """Gaussians `N(m, L L^T)` in `dim` dimensions with all of their covariance moving.

    The outputs are `[..., dim + dim (dim + 1) / 2]`: the mean, then the lower triangle of L row by row, its diagonal as
    logarithms; or a pair of the two. Means to some dozens of dimensions: the work grows with the cube of `dim`.

    The formulas are those of the embedding of Calvo and Oller (1990) into positive definite matrices of one dimension
    more, where the metric is `tr(S^-1 dS S^-1 dS) / 2`. The frame is that of `L^-1 dm` and the entries of `L^-1 dL`,
    those on the diagonal times `sqrt 2`.

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
        """With matrices `E`, whose first row is 0 and whose others are the lower triangle of `(c, b) = L^-1 (dm, dL)`.

        Tangents are the lower triangle of `B_i`, covariant seconds that of `E_ij + E_ij^T - (B_i A_j + B_j A_i) / 2`,
        with `B = E + E^T`, `A = E - E^T`, and second derivatives of logarithms on the diagonal of `E_ij`.
        """
        members, k = leading(shape), jet.k
        value, data = (_turned(x) for x in jet.coefficients.unflatten(-1, (members, -1)).tensor_split([1], 1))
        on = [self.size + a * (a + 3) // 2 for a in range(self.size)]
        scale = inverse(value[on])
        said = remarks(value[on], SIGMA, scale.isfinite()) or self._steep(value, scale)
        bands, lower = self._relative(value, scale, data, k)
        both, odd = lower + lower.transpose(0, 1), lower - lower.transpose(0, 1)
        start = k
        for i in range(k):
            for band in bands:
                height, width = band.shape[:2]
                own, others = band[:, :, start : start + 1], band[:, :, start + 1 : start + k - i]
                for b, a in zip(both[width - height : width].unbind(1), odd[:, :width], strict=True):
                    b = b[:, None]
                    own.addcmul_(b[:, :, i : i + 1], a[:, i : i + 1], value=-1)
                    others.addcmul_(b[:, :, i : i + 1], a[:, i + 1 :], value=-0.5)
                    others.addcmul_(b[:, :, i + 1 :], a[:, i : i + 1], value=-0.5)
            start += k - i
        rows = [band[a, : band.shape[1] - len(band) + a + 1] for band in bands for a in range(len(band))]
        for row in rows:
            row[-1] *= math.sqrt(0.5)
        count = len(jet.coefficients)
        each = (torch.cat([row[:, s] for row in rows]).T.reshape(count, -1) for s in range(data.shape[1]))
        sheet = torch.stack([jet.coefficients.new_zeros(count, members * len(data)), *each], 1)
        return Framed(sheet, Ambient(self.ambient_dim(shape), self._curvature(members), self._cubic, **said))

    def _relative(
        self, value: Tensor, scale: Tensor, data: Tensor, k: int
    ) -> tuple[list[Tensor], Float[Tensor, "n n k M"]]:
        """The lower triangle of `E + E^T` below its first row, some rows at a time, and `E` of the tangents."""
        d, start, (i, j) = self.size, self.size, places(k)
        bands, found, logarithms = list[Tensor](), list[Tensor](), list[Tensor]()
        for first in range(0, d, _ROWS):
            height = min(_ROWS, d - first)
            bands.append(value.new_zeros(height, first + height + 1, *data.shape[1:]))
            for a in range(first, first + height):
                row = bands[-1][a - first, : a + 2]
                row[0], row[1:] = data[a], data[start : start + a + 1]
                logarithms.append(row[-1].clone())
                row[-1, k:] += row[-1, i] * row[-1, j]  # derivatives of exp, over it
                for b, before in enumerate(found):
                    row[: b + 2].addcmul_(value[start + b], before, value=-1)
                row[:-1] *= scale[a]
                found.append(row.clone() if torch.is_grad_enabled() else row)  # what a tape has seen stays as it is
                start += a + 1
        lower = value.new_zeros(d + 1, d + 1, k, value.shape[-1])
        for a, row in enumerate(found):
            lower[a + 1, : a + 2] = row[:, :k]
        for a, logarithm in enumerate(logarithms):
            bands[a // _ROWS][a % _ROWS, a + 1] = 2 * logarithm
        return bands, lower

    def _steep(self, value: Tensor, scale: Tensor) -> Remarks:
        """Which entry of a factor is so large beside its row's diagonal that squares may overflow."""
        row = torch.tril_indices(self.size, self.size, device=value.device)[0]
        far = ((value[self.size :] * scale[row]).abs() > torch.finfo(value.dtype).max ** 0.25).detach()
        if not some(far):
            return {}
        worst = float(value[self.size :].detach()[far][0])
        why = "so large beside the diagonal of its row that powers of it are beyond numbers: scale the outputs"
        return {"extreme": f"an entry of a Cholesky factor is {worst:.6g}, {why}"}

    def _matrices(self, x: Float[Tensor, "n k M"]) -> Float[Tensor, "d d k M"]:
        """The matrices `E + E^T` that vectors in the frame stand for."""
        d = self.size + 1
        row, column = torch.tril_indices(d, d, device=x.device)[:, 1:]
        found = x.new_zeros(d, d, *x.shape[1:])
        found[row, column] = found[column, row] = x
        found.diagonal()[...] *= math.sqrt(2)
        return found

    def _curvature(self, members: int) -> Callable[[Tensor], Tensor]:
        def curvature(x: Tensor) -> Tensor:
            split = x.unflatten(-1, (members, -1))
            both, means = self._matrices(_turned(split)), self._means(split)
            row, column = torch.tril_indices(len(both), len(both), -1, device=x.device)
            commutators = []
            for i in range(x.shape[1] - 1):
                v = both[:, :1, i : i + 1] * both[0, :, i + 1 :]
                for one in both[1:]:
                    v.addcmul_(one[:, None, i : i + 1], one[:, i + 1 :])
                commutators.append(v[row, column] - v[column, row])
            every = torch.cat(commutators, 1).unflatten(-1, (-1, members)).permute(2, 1, 3, 0).flatten(2)
            return areas(every, 0.25, x.shape[1]) + spheres(gram(means), 0.5)

        return curvature

    def _means(self, x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch d"]:
        """The entries of vectors in the frame that belong to the mean."""
        return x[..., [a * (a + 3) // 2 for a in range(self.size)]]

    def _cubic(self, x: Tensor, y: Tensor) -> Tensor:
        """`X Y + Y X` of the matrices `E + E^T`, without its corner."""
        n = self.size * (self.size + 3) // 2
        first, second = (self._matrices(_turned(v.reshape(len(v), 1, -1, n))) for v in (x, y))
        v = torch.einsum("ackm,cbkm->abkm", first, second)
        row, column = torch.tril_indices(len(v), len(v), device=x.device)[:, 1:]
        scale = x.new_full((len(row),), math.sqrt(0.5)).masked_fill(row > column, 1)
        lower = (v[row, column] + v[column, row]) * scale[:, None, None]
        return lower.unflatten(-1, (len(x), -1))[:, 0].permute(1, 2, 0).flatten(1)

    def __repr__(self) -> str:
        return f"FullGaussian({self.size})"


def _turned(x: Float[Tensor, "P S L n"]) -> Float[Tensor, "n S M"]:
    """Entries first, members of all points last."""
    # matrices are turned, one after the other: what torch is fast at
    return torch.stack([one.reshape(-1, x.shape[-1]).T.contiguous() for one in x.unbind(1)], 0).transpose(0, 1)
