"""Inverses, determinants and some factors of matrices in balls, for the rules of matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flint import arb, arb_mat

from fisherflat.errors import EnclosureError
from fisherflat.jets.balls._array import FLOAT, SIGN, ZERO, BallArray, entries, filled, matrix

Arrays = tuple[Any, ...]


def _each(function: Callable[..., arb_mat], *arrays: BallArray) -> BallArray:
    """`function` of each matrix of a batch; of several batches, each with each."""
    batch = np.broadcast_shapes(*(array.shape[:-2] for array in arrays))
    wide = [np.broadcast_to(array.balls, (*batch, *array.shape[-2:])) for array in arrays]
    found = [entries(_certain(function, *(matrix(array[index]) for array in wide))) for index in np.ndindex(*batch)]
    return BallArray(np.array(found, dtype=object).reshape(*batch, *found[0].shape))


def _certain(function: Callable[..., arb_mat], *matrices: arb_mat) -> arb_mat:
    try:
        return function(*matrices)
    except ZeroDivisionError as error:
        raise EnclosureError("whether a matrix is singular is open, and its inverse is asked for") from error


def _inverse(a: BallArray) -> Arrays:
    return (_each(arb_mat.inv, a),)


def _solution(a: BallArray, rows: BallArray) -> Arrays:
    return (_each(arb_mat.solve, a, rows),)


def _numbers(function: Callable[[arb_mat], arb], a: BallArray) -> BallArray:
    batch = a.shape[:-2]
    return BallArray(filled((function(matrix(a.balls[index])) for index in np.ndindex(*batch)), batch))


def _determinant(a: BallArray) -> Arrays:
    """The value, and the two derivatives by the inverse: singular matrices have to be excluded here."""
    value, x = _numbers(arb_mat.det, a), _inverse(a)[0]

    def traced(y: BallArray, e: BallArray) -> BallArray:
        return (y.mT * e).sum((-2, -1))

    def second(e: BallArray, f: BallArray) -> BallArray:
        return (traced(x, e) * traced(x, f) - traced(x @ e @ x, f)) * value

    return value, lambda e: traced(x, e) * value, second


def _log_determinant(a: BallArray) -> Arrays:
    value = _numbers(arb_mat.det, a)
    sign = BallArray(SIGN(value.balls))
    return sign, (value * sign).log()


def _cholesky(a: BallArray) -> Arrays:
    """Column by column."""
    n, out = a.shape[-1], np.full(a.shape, ZERO, dtype=object)
    for j in range(n):
        known = out[..., j, :j]
        pivot = a.balls[..., j, j] - (known * known).sum(-1) + ZERO
        if not all(x > 0 for x in np.ravel(pivot)):
            raise EnclosureError("whether a matrix is positive definite is open, and its Cholesky factor is asked for")
        out[..., j, j] = root = _ROOT(pivot)
        below = a.balls[..., j + 1 :, j] - (out[..., j + 1 :, :j] * known[..., None, :]).sum(-1) + ZERO
        out[..., j + 1 :, j] = below / np.asarray(root, dtype=object)[..., None]
    return (BallArray(out),)


def _qr(a: BallArray) -> Arrays:
    """From the Cholesky factor of `aᵀ a`, with the signs that torch has at the middle of the balls."""
    middle = torch.from_numpy(FLOAT(a.balls).astype(float))
    signs = torch.linalg.qr(middle)[1].diagonal(0, -2, -1).sign().numpy()
    first = a[..., : a.shape[-2]]
    (lower,) = _cholesky(first.mT @ first)
    r = BallArray(lower.mT.balls * np.vectorize(arb, otypes=[object])(signs)[..., None])
    q = first @ _inverse(r)[0]
    return q, q.mT @ a if a.shape[-1] > a.shape[-2] else r


_ROOT: Any = np.frompyfunc(arb.sqrt, 1, 1)

#: what a rule asks for -> how it is enclosed
MATRICES: dict[str, Callable[..., Arrays]] = {
    "inverse": _inverse,
    "solution": _solution,
    "determinant": _determinant,
    "log determinant": _log_determinant,
    "exponential": lambda a: (_each(arb_mat.exp, a),),
    "cholesky": _cholesky,
    "qr": _qr,
}
