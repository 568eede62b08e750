"""Linear algebra of matrices of polynomials, as on paper: elimination, and nothing that torch or FLINT would do."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any

import flint
import numpy as np
import torch
from flint import arb

from fisherflat.errors import EnclosureError
from fisherflat.verifier._polynomials import ZERO, Array, Part, Polynomial, bilinear, composed, plus

#: up to this many rows a determinant is a sum over permutations, so that no pivot has to be found
SMALL = 3


#: the ops of torch that are known here
MATRICES = (
    "_linalg_det", "_linalg_slogdet", "linalg_inv_ex", "linalg_cholesky_ex", "_linalg_solve_ex", "linalg_qr",
    "linalg_matrix_exp",
)  # fmt: skip


def of_matrices(name: str, x: Polynomial, *args: Any, **kwargs: Any) -> Any:
    """The first outputs of an op, which are all that is read of it; `None` for options that are not known here."""
    if name == "_linalg_det" and not args and not kwargs:
        return (determinant(x),)
    if name == "_linalg_slogdet" and not args and not kwargs:
        return log_determinant(x)
    if name == "linalg_matrix_exp":
        return exponential(x)
    if name == "linalg_inv_ex":
        return (inverse(x),)
    if name == "linalg_cholesky_ex":
        upper = kwargs.get("upper", args[0] if args else False)
        lower = np.tril(np.ones(x.value.shape[-2:], dtype=bool))  # which half is read
        halves = x.each(lambda part: np.where(lower.T if upper else lower, part, part.swapaxes(-2, -1)))
        return (cholesky(halves, upper),)
    if name == "linalg_qr" and (args or ("reduced",))[0] == "reduced" and not kwargs:
        return orthogonal(x)
    if name == "_linalg_solve_ex" and kwargs.get("left", True) and args[0].value.ndim == x.value.ndim:
        return (solved(x, args[0]),)
    return None


def determinant(a: Polynomial) -> Polynomial:
    """The determinants of stacks of square matrices."""
    n = a.value.shape[-1]
    if n == 0:
        return a.each(lambda part: np.full(part.shape[:-2], arb(1), dtype=object))
    if n <= SMALL:
        terms = [(_parity(order), order) for order in permutations(range(n))]
        return _summed([_times(_product([_entry(a, i, j) for i, j in enumerate(order)]), s) for s, order in terms])
    sign, pivots, _ = eliminated(a, None)
    return _times(_product(pivots), sign)


def log_determinant(a: Polynomial) -> tuple[Polynomial, Polynomial]:
    """The sign of a determinant, and the logarithm of its size."""
    found = determinant(a)

    def side(x: arb) -> arb:
        if x.contains(0):
            raise EnclosureError("the sign of a determinant is open")
        return arb(1 if x > 0 else -1)

    sign = np.asarray(np.frompyfunc(side, 1, 1)(found.value), dtype=object)
    constant = Polynomial([sign, *[None] * (len(found.parts) - 1)], found.k)
    return constant, composed(found.each(lambda part: part * sign), lambda s: s.log())


def exponential(a: Polynomial) -> Polynomial:
    """The power series of stacks of square matrices.

    With `m >= 1` no less than the norm of any part, a part of `a^n` is at most `2 n^2 m^n`; once terms halve, what is
    left out is at most twice the first of them.
    """
    norm = max(float(abs(part).sum(-1).max().upper()) for part in a.parts if part is not None) if a.value.size else 0.0
    size, term, n = arb(max(1.0, 1.001 * norm)), arb(2), 0
    if size > 100:
        raise EnclosureError("a matrix is too large for the power series of its exponential")
    eye = np.full(a.value.shape, ZERO, dtype=object)
    rows = range(a.value.shape[-1])
    eye[..., rows, rows] = arb(1)
    power = total = Polynomial([eye, *[None] * (len(a.parts) - 1)], a.k)
    while not (n > 4 * size and 2 * n * n * term < arb(2) ** -flint.ctx.prec):
        n += 1
        power, term = bilinear(power, a, np.matmul).each(lambda part, n=n: part / n), term * size / n  # type: ignore[misc]
        total = plus(total, power)
    rest = arb(0, (4 * (n + 1) ** 2 * term * size / (n + 1)).upper())
    blur = Polynomial([np.full(a.value.shape, rest, dtype=object)] * (len(a.parts) if a.moves else 1), a.k)
    blur.parts += [None] * (len(a.parts) - len(blur.parts))
    return plus(total, blur)


def solved(a: Polynomial, b: Polynomial) -> Polynomial:
    """`a^-1 b`, for stacks of matrices."""
    _, _, x = eliminated(a, b)
    assert x is not None
    return x


def inverse(a: Polynomial) -> Polynomial:
    """`a^-1`."""
    n = a.value.shape[-1]
    eye = np.full(a.value.shape, ZERO, dtype=object)
    eye[..., range(n), range(n)] = arb(1)
    return solved(a, Polynomial([eye, *[None] * (len(a.parts) - 1)], a.k))


def eliminated(a: Polynomial, b: Polynomial | None) -> tuple[int, list[Polynomial], Polynomial | None]:
    """Gauss and Jordan: the sign of the row exchanges, the pivots, and `a^-1 b`.

    The pivot is the entry of the column that is largest in the middle, for all matrices of a stack together.
    """
    n, sign = a.value.shape[-1], 1
    rows = [_row(a, i) for i in range(n)]
    right = [_row(b, i) for i in range(n)] if b is not None else None
    pivots: list[Polynomial] = []
    for column in range(n):
        sizes = [min((float(abs(x.mid())) for x in _column(rows[i], column).value.ravel()), default=1.0)
                 for i in range(column, n)]  # fmt: skip
        best = column + int(np.argmax(sizes))
        if best != column:
            sign = -sign
            rows[column], rows[best] = rows[best], rows[column]
            if right is not None:
                right[column], right[best] = right[best], right[column]
        pivots.append(_column(rows[column], column))
        over = composed(pivots[-1], lambda s: 1 / s)
        for i in range(n) if right is not None else range(column + 1, n):
            if i != column:
                factor = bilinear(_column(rows[i], column), over, np.multiply)
                rows[i] = _minus(rows[i], _scaled(rows[column], factor))
                if right is not None:
                    right[i] = _minus(right[i], _scaled(right[column], factor))
    if right is None:
        return sign, pivots, None
    done = [_scaled(row, composed(pivot, lambda s: 1 / s)) for row, pivot in zip(right, pivots, strict=True)]
    return sign, pivots, _stacked(done)


def cholesky(a: Polynomial, upper: bool = False) -> Polynomial:
    """The lower triangular root of stacks of positive definite matrices, row by row."""
    n = a.value.shape[-1]
    roots: dict[tuple[int, int], Polynomial] = {}
    for i in range(n):
        for j in range(i + 1):
            rest = _entry(a, i, j)
            for m in range(j):
                rest = _minus(rest, bilinear(roots[i, m], roots[j, m], np.multiply))
            if i == j:
                roots[i, j] = composed(rest, lambda s: s.sqrt())
            else:
                roots[i, j] = bilinear(rest, composed(roots[j, j], lambda s: 1 / s), np.multiply)
    zero = _times(_entry(a, 0, 0), 0)

    def row(i: int) -> Polynomial:
        cells = [roots.get((j, i) if upper else (i, j), zero) for j in range(n)]
        return _joined(cells, lambda parts: np.stack(parts, -1))

    return _stacked([row(i) for i in range(n)])


def orthogonal(a: Polynomial) -> tuple[Polynomial, Polynomial]:
    """`a = q r` with orthonormal columns and r upper triangular, by Gram and Schmidt.

    The diagonal of r may have any signs. Those that torch takes near the middle choose the branch; each is smooth.
    """
    rows, width = a.value.shape[-2:]
    n = min(rows, width)  # of more columns the first make q
    columns: list[Polynomial] = []
    cells: dict[tuple[int, int], Polynomial] = {}
    for j in range(n):
        rest = _column(a, j)
        for i, q in enumerate(columns):
            cells[i, j] = _inner(q, rest)
            rest = _minus(rest, _scaled(q, cells[i, j]))
        length = composed(_inner(rest, rest), lambda s: s.sqrt())
        cells[j, j] = length
        columns.append(_scaled(rest, composed(length, lambda s: 1 / s)))
    cells |= {(i, j): _inner(q, _column(a, j)) for i, q in enumerate(columns) for j in range(n, width)}
    zero = _times(cells[0, 0], 0)
    r = _stacked(
        [_joined([cells.get((i, j), zero) for j in range(width)], lambda p: np.stack(p, -1)) for i in range(n)]
    )
    q = _joined(columns, lambda parts: np.stack(parts, -1))
    middle = torch.from_numpy(np.asarray(np.frompyfunc(float, 1, 1)(a.value), dtype=np.float64))
    negative = torch.linalg.qr(middle).R.diagonal(dim1=-2, dim2=-1).numpy() < 0
    signs = np.asarray(np.frompyfunc(lambda below: arb(-1 if below else 1), 1, 1)(negative), dtype=object)
    return q.each(lambda part: part * signs[..., None, :]), r.each(lambda part: part * signs[..., :, None])


def _inner(a: Polynomial, b: Polynomial) -> Polynomial:
    return bilinear(a, b, np.multiply).each(lambda part: np.asarray(part.sum(-1), dtype=object))


# -- rows and entries --------------------------------------------------------------------------------------------------


def _entry(a: Polynomial, i: int, j: int) -> Polynomial:
    return a.each(lambda part: part[..., i, j])


def _row(a: Polynomial, i: int) -> Polynomial:
    return a.each(lambda part: part[..., i, :])


def _column(row: Polynomial, j: int) -> Polynomial:
    return row.each(lambda part: part[..., j])


def _scaled(row: Polynomial, factor: Polynomial) -> Polynomial:
    return bilinear(row, factor.each(lambda part: np.asarray(part, dtype=object)[..., None]), np.multiply)


def _minus(a: Polynomial, b: Polynomial) -> Polynomial:
    return plus(a, b.each(lambda part: -part))


def _times(a: Polynomial, number: int) -> Polynomial:
    return a.each(lambda part: part * arb(number))


def _product(factors: list[Polynomial]) -> Polynomial:
    out = factors[0]
    for factor in factors[1:]:
        out = bilinear(out, factor, np.multiply)
    return out


def _summed(terms: list[Polynomial]) -> Polynomial:
    out = terms[0]
    for term in terms[1:]:
        out = plus(out, term)
    return out


def _parity(order: tuple[int, ...]) -> int:
    return math.prod(1 if a < b else -1 for i, a in enumerate(order) for b in order[i + 1 :])


def _stacked(rows: list[Polynomial]) -> Polynomial:
    return _joined(rows, lambda parts: np.stack(parts, -2))


def _joined(pieces: list[Polynomial], function: Callable[[list[Array]], Array]) -> Polynomial:
    parts: list[Part] = []
    shape = pieces[0].value.shape
    for m in range(len(pieces[0].parts)):
        held: list[Any] = [piece.parts[m] for piece in pieces]
        some = any(part is not None for part in held)
        blank = np.full(shape, ZERO, dtype=object)
        parts.append(function([blank if part is None else part for part in held]) if some else None)
    return Polynomial(parts, pieces[0].k)
