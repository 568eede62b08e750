"""Taylor polynomials of degree two with coefficients in plain balls: what the verifier computes with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from flint import arb, arb_mat, arb_series
from torch import Tensor

from fisherflat.errors import EnclosureError
from fisherflat.verifier._integers import is_large, times

#: entries of a constant matrix that are converted to balls at a time
TILE = 2**18

ZERO: Any = arb(0)

Array = np.ndarray
Part = Array | None
Series = Callable[[arb_series], arb_series]


class Polynomial:
    """`sum_m parts[m] * monomial_m` for each entry; a part that is zero everywhere is `None`.

    The monomials of k coordinates are 1, then `u_i`, then `u_i u_j` for `i <= j`. With k = 0 it is a value.
    """

    def __init__(self, parts: list[Any], k: int) -> None:
        # NumPy turns arrays without axes into their entry
        self.parts: list[Part] = [part if part is None else np.asarray(part, dtype=object) for part in parts]
        self.k = k

    @property
    def value(self) -> Array:
        """The part of degree zero, also where it vanishes."""
        if self.parts[0] is None:
            shape = next(part for part in self.parts if part is not None).shape
            return np.full(shape, ZERO, dtype=object)
        return self.parts[0]

    @property
    def moves(self) -> bool:
        """Whether there is any part of higher degree."""
        return any(part is not None for part in self.parts[1:])

    def each(self, function: Callable[[Array], Array]) -> Polynomial:
        """A linear function of arrays on every part."""
        return Polynomial([None if part is None else function(part) for part in self.parts], self.k)


def monomials(k: int) -> list[tuple[int, ...]]:
    """The monomials up to degree two, each as the sorted coordinates that it multiplies."""
    return [(), *((i,) for i in range(k)), *((i, j) for i in range(k) for j in range(i, k))]


def _pairs(k: int) -> Iterator[tuple[int, int, int]]:
    """Which monomials multiply to which, up to degree two."""
    known = monomials(k)
    for a, first in enumerate(known):
        for b, second in enumerate(known):
            if len(first) + len(second) <= 2:
                yield a, b, known.index(tuple(sorted(first + second)))


def bilinear(a: Polynomial, b: Polynomial, product: Callable[[Array, Array], Array]) -> Polynomial:
    """The product of two polynomials, truncated after degree two."""
    parts: list[Part] = [None] * len(a.parts)
    for i, j, m in _pairs(a.k):
        left, right = a.parts[i], b.parts[j]
        if left is not None and right is not None:
            term, held = product(left, right), parts[m]
            parts[m] = term if held is None else held + term
    return Polynomial(parts, a.k)


def plus(a: Polynomial, b: Polynomial) -> Polynomial:
    """The sum of two polynomials, whose shapes may broadcast."""
    shape = np.broadcast_shapes(a.value.shape, b.value.shape)

    def added(x: Part, y: Part) -> Any:
        if x is None or y is None:
            part = y if x is None else x
            return part if part is None else np.broadcast_to(part, shape)
        return x + y

    return Polynomial([added(x, y) for x, y in zip(a.parts, b.parts, strict=True)], a.k)


def composed(x: Polynomial, function: Series) -> Polynomial:
    """A function of single entries: its Taylor polynomial at the value, in powers of the rest."""
    degree = 2 if x.moves else 0

    def expand(entry: arb) -> tuple[arb, ...]:
        try:
            coefficients = function(arb_series([entry, 1], prec=degree + 1)).coeffs()
        except (ValueError, ZeroDivisionError) as error:
            raise EnclosureError(f"a function is not defined on all of {entry.str(5)}") from error
        return tuple(coefficients) + (ZERO,) * (degree + 1 - len(coefficients))

    value = x.value
    expanded = [expand(entry) for entry in value.ravel()]
    taylor = [filled((row[n] for row in expanded), value.shape) for n in range(degree + 1)]
    rest = Polynomial([None, *x.parts[1:]], x.k)
    if degree == 0:
        return Polynomial([taylor[0], *rest.parts[1:]], x.k)
    square = bilinear(rest, rest, np.multiply)
    result = plus(rest.each(lambda part: part * taylor[1]), square.each(lambda part: part * taylor[2]))
    return Polynomial([taylor[0], *result.parts[1:]], x.k)


def filled(entries: Any, shape: tuple[int, ...]) -> Array:
    """An object array of a shape with the given entries."""
    array = np.empty(math.prod(shape), dtype=object)
    array[:] = list(entries)
    return array.reshape(shape)


def exact(tensor: Any) -> Array:
    """The entries of a tensor as exact balls."""
    numbers = tensor.detach().cpu().double()
    return filled((arb(number) for number in numbers.flatten().tolist()), tuple(numbers.shape))


def _exponential(x: Polynomial) -> Polynomial:
    """`exp`, also of entries that a mask has set to minus infinity."""
    rest = Polynomial([None, *x.parts[1:]], x.k)
    value = np.frompyfunc(arb.exp, 1, 1)(x.value)
    square = bilinear(rest, rest, np.multiply).each(lambda part: part / 2)
    moving = plus(rest, square) if rest.moves else rest
    return Polynomial([value, *(None if part is None else part * value for part in moving.parts[1:])], x.k)


def softmax(x: Polynomial, dim: int, half_to_float: bool = False) -> Polynomial:
    """`exp(x - m) / sum exp(x - m)`, for about the mean m of x under the weights themselves.

    Any m gives the same; this one takes out what all entries have in common.
    """
    floats = np.frompyfunc(float, 1, 1)(x.value).astype(float)
    largest = floats.max(dim, keepdims=True)
    sizes = np.exp(floats - np.where(np.isfinite(largest), largest, 0.0))
    share = sizes / np.maximum(sizes.sum(dim, keepdims=True), 1e-300)
    common = x.each(lambda part: np.where(share > 0, part, ZERO) * share).each(
        lambda part: part.sum(dim, keepdims=True)
    )
    weights = _exponential(plus(x, common.each(lambda part: -part)))
    total = weights.each(lambda part: part.sum(dim, keepdims=True))
    return bilinear(weights, composed(total, lambda s: 1 / s), np.multiply)


def logsumexp(x: Polynomial, dim: Any, keepdim: bool = False) -> Polynomial:
    """`log sum exp x`."""
    axes = tuple(dim) if isinstance(dim, (list, tuple)) else (dim,)
    total = _exponential(x).each(lambda part: part.sum(axes, keepdims=keepdim))
    return composed(total, lambda s: s.log())


def matrix(a: Array) -> arb_mat:
    """The matrix with the entries of an array with two axes."""
    return arb_mat(a.shape[0], a.shape[1], a.ravel().tolist())


def dot(a: Array, b: Array) -> Array:
    """`a @ b` for stacks of matrices of one batch shape."""
    if a.ndim == 2:
        out = matrix(a) * matrix(b)
        return filled(out.entries(), (out.nrows(), out.ncols()))
    return np.stack([dot(x, y) for x, y in zip(a, b, strict=True)])


def substituted(a: Polynomial, b: Polynomial, upper: bool, unitriangular: bool) -> Polynomial:
    """The x of `a x = b` for stacks of triangular matrices of one batch shape: row by row, as on paper."""
    n = a.value.shape[-1]
    rows: dict[int, Polynomial] = {}

    def cut(x: Polynomial, i: int, columns: slice) -> Polynomial:
        return x.each(lambda part: part[..., i : i + 1, columns])

    def put_together() -> Polynomial:
        known = [rows[i] for i in sorted(rows)]
        parts: list[Part] = []
        for m in range(len(b.parts)):
            blank = np.full(known[0].value.shape, ZERO, dtype=object)
            held = [row.parts[m] for row in known]
            some = any(part is not None for part in held)
            parts.append(np.concatenate([blank if h is None else h for h in held], -2) if some else None)
        return Polynomial(parts, b.k)

    for i in reversed(range(n)) if upper else range(n):
        row = cut(b, i, slice(None))
        if rows:
            known = bilinear(cut(a, i, slice(i + 1, n) if upper else slice(0, i)), put_together(), dot)
            row = plus(row, known.each(lambda part: -part))
        if not unitriangular:
            row = bilinear(row, composed(cut(a, i, slice(i, i + 1)), lambda s: 1 / s), np.multiply)
        rows[i] = row
    return put_together()


def times_constant(x: Polynomial, weight: Tensor) -> Polynomial:
    """`x @ weight` for matrices, all parts of `x` at once and the weight a few columns at a time."""
    places = [m for m, part in enumerate(x.parts) if part is not None]
    rows = np.concatenate([x.parts[m] for m in places])
    inner, outer = weight.shape
    tiles = weight.detach().cpu().double().split(max(1, TILE // max(inner, 1)), 1)
    if is_large(len(rows), inner, outer):
        whole = times(rows, (tile.numpy() for tile in tiles))
    else:
        left = matrix(rows)
        products = [left * arb_mat(inner, tile.shape[1], tile.flatten().tolist()) for tile in tiles]
        whole = np.concatenate([filled(out.entries(), (out.nrows(), out.ncols())) for out in products], 1)
    parts: list[Part] = [None] * len(x.parts)
    for place, part in zip(places, np.split(whole, len(places)), strict=True):
        parts[place] = part
    return Polynomial(parts, x.k)
