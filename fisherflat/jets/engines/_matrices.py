"""Inverses, determinants and factors of matrices in tensors, for the rules of matrices.

Where one of a batch of matrices is singular, or not finite, what belongs to it is not finite, and the others are right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Any, ...]


def _finite(function: Callable[..., Tensors]) -> Callable[..., Tensors]:
    """`function` where all entries are finite, because decompositions fail for the whole batch otherwise."""

    def guarded(a: Tensor) -> Tensors:
        good = a.isfinite().all(-1).all(-1)
        identity = torch.eye(*a.shape[-2:], dtype=a.dtype, device=a.device)
        found = function(torch.where(good[..., None, None], a, identity))
        return tuple(_where(good, part) for part in found)

    return guarded


def _where(good: Tensor, part: Tensor) -> Tensor:
    return part.masked_fill(~good.reshape(*good.shape, *(1,) * (part.dim() - good.dim())), torch.nan)


def _inverse(a: Tensor) -> Tensors:
    inverse, info = torch.linalg.inv_ex(a)
    return (_where(info == 0, inverse),)


def _cholesky(a: Tensor) -> Tensors:
    factor, info = torch.linalg.cholesky_ex(a)
    return (_where(info == 0, factor),)


def _solution(a: Tensor, rows: Tensor) -> Tensors:
    """`a⁻¹ rows`, `[c, P, *batch, n, m]`; all coefficients are columns of one system."""
    columns = rows.movedim(0, -1).flatten(-2)
    solved, info = torch.linalg.solve_ex(a.expand(*columns.shape[:-2], *a.shape[-2:]), columns)
    return (_where(info == 0, solved).unflatten(-1, (rows.shape[-1], rows.shape[0])).movedim(-1, 0),)


def _determinant(a: Tensor) -> Tensors:
    """The value, and functions for the two derivatives.

    With the singular vectors as bases, `d|a| = ± Σ_i e_ii Π_(m≠i) s_m` along e, and the second derivative along e and f
    is `± Σ_(i≠j) (e_ii f_jj - e_ij f_ji) Π_(m≠i,j) s_m`. Nothing is divided by, so singular matrices are no exception.
    """
    u, s, vh = torch.linalg.svd(a)
    sign = torch.linalg.det(u) * torch.linalg.det(vh)
    n = s.shape[-1]
    one = torch.eye(n, dtype=torch.bool, device=a.device)
    without = s[..., None, :].expand(*s.shape, n).masked_fill(one, 1.0)  # [i, m]
    pairs = without[..., None, :].expand(*without.shape, n).masked_fill(one, 1.0)  # [i, j, m]
    single = without.prod(-1) * sign[..., None]
    double = pairs.prod(-1).masked_fill(one, 0.0) * sign[..., None, None]

    def turned(e: Tensor) -> Tensor:
        return u.mT @ e @ vh.mT

    def diagonal(e: Tensor) -> Tensor:
        return e.diagonal(0, -2, -1)

    def first(e: Tensor) -> Tensor:
        return (diagonal(turned(e)) * single).sum(-1)

    def second(e: Tensor, f: Tensor) -> Tensor:
        e, f = turned(e), turned(f)
        return ((diagonal(e)[..., :, None] * diagonal(f)[..., None, :] - e * f.mT) * double).sum((-2, -1))

    return torch.linalg.det(a), first, second


def _singular(a: Tensor) -> Tensors:
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return u, s, vh.mT


def _guarded_determinant(a: Tensor) -> Tensors:
    good = a.isfinite().all(-1).all(-1)
    value, first, second = _determinant(torch.where(good[..., None, None], a, 0.0))
    return _where(good, value), first, second


#: what a rule asks for -> how it is computed
MATRICES: dict[str, Callable[..., Tensors]] = {
    "inverse": _inverse,
    "solution": _solution,
    "determinant": _guarded_determinant,
    "log determinant": lambda a: tuple(torch.linalg.slogdet(a)),
    "exponential": lambda a: (torch.linalg.matrix_exp(a),),
    "cholesky": _cholesky,
    "qr": lambda a: tuple(torch.linalg.qr(a)),
    "lu": lambda a: tuple(torch.linalg.lu(a)),
    "lu without pivots": lambda a: tuple(torch.linalg.lu(a, pivot=False)),
    "eigen": _finite(lambda a: tuple(torch.linalg.eigh(a))),
    "eigen of the upper triangle": _finite(lambda a: tuple(torch.linalg.eigh(a, UPLO="U"))),
    "singular": _finite(_singular),
}
