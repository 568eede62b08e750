"""Gaussians with all of their covariance moving.

Numbers lie with the entry of a matrix first and all members of all points last, so that each step of arithmetic is one
of long vectors, and what is zero in a triangle costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import SupportsIndex

import torch

from fisherflat._arrays import integer
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.spaces.families._normal import LOG_SIGMA
from fisherflat.spaces.families._parametric import (
    Ambient,
    Framed,
    ParametricFamily,
    areas,
    gram,
    leading,
    places,
    spheres,
    unbounded,
)
from fisherflat.spaces.jets import Jet


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
        """With `b_i = L^-1 L_i` and `c_i = L^-1 m_i`, the lower triangle of matrices whose diagonal is halved.

        Tangents are `(c_i, b_i + b_i^T)`, seconds `c_ij - (P_i c_j + P_j c_i) / 2` and
        `b_ij + b_ij^T - V - V^T`, `V = b_i^T b_j - A_i^T A_j / 2 - c_i c_j^T / 2`, with `P = b + b^T`, `A = b - b^T`.
        """
        members = leading(shape)
        d, k = self.size, jet.k
        value, data = (_turned(x) for x in jet.coefficients.unflatten(-1, (members, -1)).tensor_split([1], 1))
        on = [d + a * (a + 3) // 2 for a in range(d)]
        why = unbounded(value[on], (-value[on]).exp(), LOG_SIGMA)
        found = self._relative(value, data, k)
        if torch.is_grad_enabled():
            found = [row.clone() for row in found]  # what a tape has seen stays as it is
        means = torch.stack([row[0, :k] for row in found])
        lower = torch.stack(
            [torch.nn.functional.pad(row[1:, :k], (0, 0, 0, 0, 0, d - 1 - a)) for a, row in enumerate(found)]
        )
        both, odd = lower + lower.transpose(0, 1), lower - lower.transpose(0, 1)
        start = k
        for i in range(k):
            c, at = means[:, i:], slice(start, start + k - i)
            v = c.new_zeros(d, d, *c.shape[1:])
            for r in range(d):
                v[: r + 1, : r + 1].addcmul_(lower[r, : r + 1, None, i : i + 1], lower[r, None, : r + 1, i:])
                v.addcmul_(odd[r, :, None, i : i + 1], odd[r, None, :, i:], value=-0.5)
            v.addcmul_(means[:, None, i : i + 1], c[None], value=-0.5)
            turned = (both[:, :, i : i + 1] * c).sum(1) + (both[:, :, i:] * means[:, i : i + 1]).sum(1)
            for a, row in enumerate(found):
                row[0, at] -= turned[a] / 2
                row[1:, at] -= v[a, : a + 1]
                row[1:-1, at] -= v[:a, a]
            start += k - i
        for row in found:
            row[-1] *= math.sqrt(2)
        every = torch.cat([row[part].transpose(0, 1) for part in (slice(1), slice(1, None)) for row in found], 1)
        sheet = torch.stack([one.T.reshape(len(jet.coefficients), -1) for one in every], 1)
        ambient = Ambient(self.ambient_dim(shape), self._curvature(members), self._cubic, outside=why)
        return Framed(torch.nn.functional.pad(sheet, (0, 0, 1, 0)), ambient)

    def _relative(self, value: Tensor, data: Tensor, k: int) -> list[Float[Tensor, "n S M"]]:
        """The rows of `L^-1 (dm, dL)`, up to the diagonal."""
        d, found = self.size, list[Tensor]()
        i, j = places(k)
        start = d
        for a in range(d):
            row = torch.cat([data[a : a + 1], data[start : start + a + 1]])
            row[-1, k:] += row[-1, i] * row[-1, j]  # derivatives of exp, over it
            for b, before in enumerate(found):
                row[: b + 2].addcmul_(value[start + b], before, value=-1)
            row[:-1] /= value[start + a].exp()
            found.append(row)
            start += a + 1
        return found

    def _matrices(self, x: Float[Tensor, "n k M"]) -> tuple[Float[Tensor, "d k M"], Float[Tensor, "d d k M"]]:
        """Means, and the symmetric matrices that vectors in the frame stand for."""
        d = self.size
        row, column = torch.tril_indices(d, d, device=x.device)
        place = torch.zeros(d, d, dtype=torch.long, device=x.device)
        place[row, column] = place[column, row] = torch.arange(len(row), device=x.device)
        scale = 1 + (math.sqrt(2) - 1) * torch.eye(d, dtype=x.dtype, device=x.device)
        return x[:d], x[d:][place] * scale[:, :, None, None]

    def _curvature(self, members: int) -> Callable[[Tensor], Tensor]:
        def curvature(x: Tensor) -> Tensor:
            d, split = self.size, x.unflatten(-1, (members, -1))
            means, both = self._matrices(_turned(split))
            row, column = torch.tril_indices(d, d, -1, device=x.device)
            commutators = []
            for i in range(x.shape[1] - 1):
                c, b = means[:, i + 1 :], both[:, :, i + 1 :]
                v = means[:, None, i : i + 1] * c
                for one in range(d):
                    v.addcmul_(both[one, :, None, i : i + 1], b[one])
                turned = (both[:, :, i : i + 1] * c).sum(1) - (b * means[:, i : i + 1]).sum(1)
                commutators.append(torch.cat([v[row, column] - v[column, row], turned]))
            every = torch.cat(commutators, 1).unflatten(-1, (-1, members)).permute(2, 1, 3, 0).flatten(2)
            return areas(every, 0.25, x.shape[1]) + spheres(gram(split[..., :d]), 0.5)

        return curvature

    def _cubic(self, x: Tensor, y: Tensor) -> Tensor:
        """`X Y + Y X` of the matrices `((P, c), (c^T, 0))`, without its corner."""
        d, n = self.size, self.size * (self.size + 3) // 2
        (c, p), (e, q) = (self._matrices(_turned(v.reshape(len(v), 1, -1, n))) for v in (x, y))
        v = torch.einsum("ackm,cbkm->abkm", p, q) + c[:, None] * e
        turned = (p * e).sum(1) + (q * c).sum(1)
        row, column = torch.tril_indices(d, d, device=x.device)
        scale = (1 + (row > column)).to(x).sqrt() / math.sqrt(2)
        lower = (v[row, column] + v[column, row]) * scale[:, None, None]
        return torch.cat([turned, lower]).unflatten(-1, (len(x), -1))[:, 0].permute(1, 2, 0).flatten(1)

    def __repr__(self) -> str:
        return f"FullGaussian({self.size})"


def _turned(x: Float[Tensor, "P S L n"]) -> Float[Tensor, "n S M"]:
    """Entries first, members of all points last."""
    # matrices are turned, one after the other: what torch is fast at
    return torch.stack([one.reshape(-1, x.shape[-1]).T.contiguous() for one in x.unbind(1)], 0).transpose(0, 1)
