"""The inverse root of a covariance in twice the working precision.

A Cholesky factor in working precision is off by about the precision times the condition number. One step of Newton's
method, `W <- (I - F) W` with `F` the lower triangle of `W Sigma W^T - I`, half its diagonal, squares what is wrong, as
long as products are right to twice the precision. They are: matrices are cut into slices of few enough bits for
products of slices to be exact in floating point (Ozaki, Ogita, Oishi & Rump, *Error-free transformations of matrix
multiplication by using fast routines of matrix multiplication*, Numerical Algorithms 59, 2012).
"""

from __future__ import annotations

import math

import torch

from fisherflat._typing import Float, Tensor

#: a matrix as a sum of two: its value, and what that rounds away
Pair = tuple[Tensor, Tensor]

#: slices of a matrix; with 21 bits or more each they hold twice the working precision
_SLICES = 5
#: at most so many steps; each squares the residual
_STEPS = 8
#: a residual whose square is no more than rounding in working precision, by far
_LAST = 2.0**-35


def inverse_root(covariance: Float[Tensor, "D D"], factor: Float[Tensor, "D D"]) -> Pair:
    """`W`, lower triangular, with `W Sigma W^T = I`: each entry to about its last place, and what that rounds away.

    **Args:** `covariance`, positive definite; `factor`, its Cholesky factor as far as working precision gives it.
    """
    # powers of two for the roots of the variances: exact, and then no entry is far larger than others
    units = torch.exp2(-(covariance.diagonal().log2() / 2).round())
    sigma = covariance * units * units[:, None]
    identity = torch.eye(len(sigma), dtype=sigma.dtype, device=sigma.device)
    w = torch.linalg.solve_triangular(factor * units[:, None], identity, upper=False)
    low, before = torch.zeros_like(w), math.inf
    for _ in range(_STEPS):
        high, rest = _product(_product((w, low), (sigma, torch.zeros_like(sigma))), (w.T, low.T))
        residual = (high - identity) + rest
        size = 0.0 if residual.is_meta else residual.abs().max().item()
        if not size < before:
            break
        before = size
        half = residual.tril(-1) + residual.diagonal().diag() / 2
        w, low = _sum(w, low - half @ w)
        if size < _LAST:
            break
    return w * units, low * units


def _sum(a: Tensor, b: Tensor) -> Pair:
    """`a + b` and its rounding, exactly (Knuth)."""
    total = a + b
    step = total - a
    return total, (a - (total - step)) + (b - step)


def _product(a: Pair, b: Pair) -> Pair:
    """A product of matrices, right to about twice the working precision of the largest terms of each entry."""
    bits = int((53 - math.log2(a[0].shape[1])) // 2)
    rows = _slices(a, bits)
    columns = [part.T for part in _slices((b[0].T, b[1].T), bits)]
    total = low = torch.zeros_like(a[0] @ b[0])
    for order in reversed(range(_SLICES)):
        for i in range(order + 1):
            total, rounded = _sum(total, rows[i] @ columns[order - i])
            low = low + rounded
    return _sum(total, low)


def _slices(pair: Pair, bits: int) -> list[Tensor]:
    """Matrices that sum to a pair, the entries of each row multiples of one power of two, of so many bits."""
    found, (rest, low) = [], pair
    for _ in range(_SLICES):
        largest = rest.abs().amax(1, keepdim=True)
        top = torch.exp2(torch.frexp(largest)[1].to(rest) + 53 - bits)
        part = torch.where(largest > 0, (rest + top) - top, 0.0)
        found.append(part)
        rest, low = _sum(rest - part, low)
    return found
