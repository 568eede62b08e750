"""Products of matrices and vectors with more around them, and running products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.recording.decompositions._table import decomposes


@decomposes("addcmul")
def _addcmul(x: Tensor, a: Tensor, b: Tensor, *, value: complex = 1) -> Tensor:
    return x + value * (a * b)


@decomposes("addcdiv")
def _addcdiv(x: Tensor, a: Tensor, b: Tensor, *, value: complex = 1) -> Tensor:
    return x + value * (a / b)


@decomposes("lerp")
def _lerp(a: Tensor, b: Tensor, weight: Any) -> Tensor:
    return a + weight * (b - a)


def _plus(x: Tensor, product: Tensor, beta: complex, alpha: complex) -> Tensor:
    """`beta x + alpha product`; where `beta` is 0, `x` is not read and may hold anything."""
    product = product if alpha == 1 else alpha * product
    return product if beta == 0 else product + (x if beta == 1 else beta * x)


@decomposes("baddbmm")
def _baddbmm(x: Tensor, a: Tensor, b: Tensor, *, beta: complex = 1, alpha: complex = 1) -> Tensor:
    return _plus(x, torch.bmm(a, b), beta, alpha)


@decomposes("addmm")
def _addmm(x: Tensor, a: Tensor, b: Tensor, *, beta: complex = 1, alpha: complex = 1) -> Any:
    return _plus(x, torch.mm(a, b), beta, alpha) if beta == 0 else NotImplemented


@decomposes("mv")
def _mv(a: Tensor, b: Tensor) -> Tensor:
    return torch.mm(a, b[:, None])[:, 0]


@decomposes("addmv")
def _addmv(x: Tensor, a: Tensor, b: Tensor, *, beta: complex = 1, alpha: complex = 1) -> Tensor:
    return _plus(x, torch.mv(a, b), beta, alpha)


@decomposes("addr")
def _addr(x: Tensor, a: Tensor, b: Tensor, *, beta: complex = 1, alpha: complex = 1) -> Tensor:
    return _plus(x, torch.outer(a, b), beta, alpha)


@decomposes("addbmm")
def _addbmm(x: Tensor, a: Tensor, b: Tensor, *, beta: complex = 1, alpha: complex = 1) -> Tensor:
    return _plus(x, torch.bmm(a, b).sum(0), beta, alpha)


@decomposes("dot")
def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


@decomposes("vdot")
def _vdot(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).sum()


@decomposes("prod")
def _prod(x: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Pairwise, so that it takes log2(n) products and is right where entries vanish."""
    if dim is None or not x.dim():
        x, dim, keepdim = x.reshape(-1), 0, False
    if not x.shape[dim]:
        return x.new_ones(()).expand(x.sum(dim, keepdim).shape)
    while x.shape[dim] > 1:
        half = x.shape[dim] // 2
        product = x.narrow(dim, 0, half) * x.narrow(dim, half, half)
        x = product if x.shape[dim] % 2 == 0 else torch.cat([product, x.narrow(dim, 2 * half, 1)], dim)
    return x if keepdim else x.squeeze(dim)


def _scan(join: Callable[[Tensor, Tensor], Tensor], x: Tensor, dim: int) -> Tensor:
    """Running totals of an associative op, by joining neighbours at distance 1, 2, 4, ..."""
    width, length = 1, x.shape[dim] if x.dim() else 1
    while width < length:
        joined = join(x.narrow(dim, 0, length - width), x.narrow(dim, width, length - width))
        x = torch.cat([x.narrow(dim, 0, width), joined], dim)
        width *= 2
    return x


@decomposes("cumprod")
def _cumprod(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    return _scan(torch.mul, x, dim)


@decomposes("logcumsumexp")
def _logcumsumexp(x: Tensor, dim: int) -> Tensor:
    return _scan(torch.logaddexp, x, dim)


@decomposes("_linalg_check_errors")
def _linalg_check_errors(info: Tensor, name: str, *, is_matrix: bool) -> None:
    """Whether a matrix is singular is seen in the values."""


@decomposes("linalg_cross")
def _cross(a: Tensor, b: Tensor, *, dim: int = -1) -> Tensor:
    a, b = torch.broadcast_tensors(a, b)
    return a.roll(-1, dim) * b.roll(-2, dim) - a.roll(-2, dim) * b.roll(-1, dim)


@decomposes("_trilinear")
def _trilinear(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    expand_a: Sequence[int],
    expand_b: Sequence[int],
    expand_c: Sequence[int],
    total: Sequence[int],
    unroll: int = 1,
) -> Tensor:
    for axis in expand_a:
        a = a.unsqueeze(axis)
    for axis in expand_b:
        b = b.unsqueeze(axis)
    for axis in expand_c:
        c = c.unsqueeze(axis)
    return (a * b * c).sum(list(total))
