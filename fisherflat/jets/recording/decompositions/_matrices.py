"""Systems of equations, least squares and what is made of factors of matrices."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.recording.decompositions._table import decomposes

aten = torch.ops.aten
SOLVE = torch.linalg.solve_triangular


@decomposes("linalg_solve_triangular")
def _solve_triangular(a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    """`x a = b` as its transpose."""
    return NotImplemented if left else SOLVE(a.mT, b.mT, upper=not upper, unitriangular=unitriangular).mT


@decomposes("triangular_solve")
def _old_solve_triangular(
    b: Tensor, a: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> tuple[Tensor, Tensor]:
    matrix = a.mT if transpose else a
    return SOLVE(matrix, b, upper=upper != transpose, unitriangular=unitriangular), a


@decomposes("_linalg_solve_ex")
def _solve(a: Tensor, b: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    """Vectors as columns, and `x a = b` as its transpose."""
    if b.dim() == 1 or (b.dim() == a.dim() - 1 and b.shape == a.shape[:-1]):
        x, *more = aten._linalg_solve_ex(a, b.unsqueeze(-1), left=True)
        return x.squeeze(-1), *more
    if not left:
        x, *more = aten._linalg_solve_ex(a.mT, b.mT, left=True)
        return x.mT, *more
    return NotImplemented


@decomposes("cholesky")
def _cholesky(a: Tensor, upper: bool = False) -> Tensor:
    return torch.linalg.cholesky(a, upper=upper)


@decomposes("cholesky_solve", "_cholesky_solve_helper")
def _cholesky_solve(b: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    lower = factor.mT if upper else factor
    return SOLVE(lower.mT, SOLVE(lower, b, upper=False), upper=True)


@decomposes("cholesky_inverse")
def _cholesky_inverse(factor: Tensor, upper: bool = False) -> Tensor:
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return _cholesky_solve(identity.expand(factor.shape), factor, upper)


@decomposes("lu_unpack")
def _unpacked(
    packed: Tensor, pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = packed.shape[-2:]
    least = min(rows, columns)
    places = _places(pivots, rows).to(packed.dtype)
    identity = torch.eye(rows, least, dtype=packed.dtype, device=packed.device)
    return places, packed[..., :least].tril(-1) + identity, packed[..., :least, :].triu()


def _places(pivots: Tensor, rows: int) -> Tensor:
    """The permutation matrix of successive exchanges, counted from one."""
    order = torch.arange(rows, device=pivots.device).expand(*pivots.shape[:-1], rows)
    for row in range(pivots.shape[-1]):
        other = pivots[..., row : row + 1].long() - 1
        this = order.gather(-1, torch.full_like(other, row))
        that = order.gather(-1, other)
        order = order.scatter(-1, torch.full_like(other, row), that).scatter(-1, other, this)
    return order.unsqueeze(-2) == torch.arange(rows, device=pivots.device).unsqueeze(-1)


@decomposes("linalg_lu_solve")
def _lu_solve(packed: Tensor, pivots: Tensor, b: Tensor, *, left: bool = True, adjoint: bool = False) -> Tensor:
    """`p l u x = b`, its adjoint, and both from the right."""
    if not left:  # x a = b as aᵀ xᵀ = bᵀ
        return _lu_solve(packed, pivots, b.mT, left=True, adjoint=not adjoint).mT
    places = _places(pivots, packed.shape[-1]).to(packed.dtype)
    if adjoint:
        inner = SOLVE(packed.mT, SOLVE(packed.mT, b, upper=False), upper=True, unitriangular=True)
        return places @ inner
    return SOLVE(packed, SOLVE(packed, places.mT @ b, upper=False, unitriangular=True), upper=True)


@decomposes("linalg_pinv.atol_rtol_tensor")
def _pinv(a: Tensor, *, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Tensor:
    """Of a matrix of full rank: `r⁻¹ qᵀ`; of another one no number."""
    if hermitian:
        a = a.tril() + a.tril(-1).mT
    if a.shape[-2] < a.shape[-1]:
        return _pinv(a.mT, atol=atol, rtol=rtol).mT
    q, r = torch.linalg.qr(a)
    inverse = SOLVE(r, q.mT, upper=True)
    return _of_full_rank(inverse, a, inverse, atol, rtol)


def _of_full_rank(x: Tensor, a: Tensor, inverse: Tensor, atol: Any = None, rtol: Any = None) -> Tensor:
    """`x`, and no number where torch takes a singular value of `a` for zero; these are no less than `1 / |inverse|`."""
    least = torch.as_tensor(max(a.shape[-2:]) * torch.finfo(a.dtype).eps, dtype=a.dtype)
    if rtol is not None or atol is not None:
        least = rtol if rtol is not None else torch.where(atol > 0, 0.0, least)
    over = (inverse * inverse).sum((-2, -1), keepdim=True)
    seen = over * (a * a).sum((-2, -1), keepdim=True) * least[..., None, None] ** 2 < 1
    if atol is not None:
        seen = seen & (over * atol[..., None, None] ** 2 < 1)
    return torch.where(seen, x, math.nan)


@decomposes("linalg_lstsq")
def _lstsq(a: Tensor, b: Tensor, rcond: float | None = None, *, driver: str | None = None) -> tuple[Tensor, ...]:
    """Of a matrix of full rank; least squares of more unknowns than equations are those of least length."""
    rows, columns = a.shape[-2:]
    vector = b.dim() == 1 or (b.dim() == a.dim() - 1 and b.shape == a.shape[:-1])
    right = b.unsqueeze(-1) if vector else b
    wide = rows < columns
    q, r = torch.linalg.qr(a.mT if wide else a)
    x = q @ SOLVE(r.mT, right, upper=False) if wide else SOLVE(r, q.mT @ right, upper=True)
    if driver != "gels":  # which takes the rank for full
        x = _of_full_rank(x, a, SOLVE(r, torch.eye(min(rows, columns), dtype=a.dtype, device=a.device), upper=True))
    # which of the others are there depends on the driver
    _, residuals, rank, values = torch.linalg.lstsq(
        torch.eye(rows, columns, dtype=a.dtype, device=a.device).expand(a.shape),
        torch.zeros(right.shape, dtype=a.dtype, device=a.device),
        rcond,
        driver=driver,
    )
    if residuals.numel():
        residuals = (a @ x - right).square().sum(-2)
    if values.numel():
        values = torch.linalg.svdvals(a)
    return x.squeeze(-1) if vector else x, residuals, rank, values


@decomposes("linalg_householder_product")
def _householder_product(a: Tensor, tau: Tensor) -> Tensor:
    """The first columns of the product of the reflections `1 - tau_i v_i v_iᵀ`, v_i below the diagonal of column i."""
    q = torch.eye(*a.shape[-2:], dtype=a.dtype, device=a.device).expand(a.shape)
    for i in reversed(range(tau.shape[-1])):
        q = _reflected(a, tau, i, q)
    return q


@decomposes("ormqr")
def _ormqr(a: Tensor, tau: Tensor, c: Tensor, left: bool = True, transpose: bool = False) -> Tensor:
    """The whole product of the reflections, or its transpose, times a matrix."""
    if not left:
        return _ormqr(a, tau, c.mT, True, not transpose).mT
    order = range(tau.shape[-1]) if transpose else reversed(range(tau.shape[-1]))
    for i in order:
        c = _reflected(a, tau, i, c)
    return c


def _reflected(a: Tensor, tau: Tensor, i: int, y: Tensor) -> Tensor:
    unit = torch.eye(a.shape[-2], 1, dtype=a.dtype, device=a.device).roll(i, 0)
    v = a[..., :, i : i + 1].tril(-i - 1) + unit
    return y - tau[..., i, None, None] * (v @ (v.mT @ y))
