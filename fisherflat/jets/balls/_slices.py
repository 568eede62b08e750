"""Products of matrices of balls by exact products of matrices of integers in float64.

After Ozaki, Ogita, Oishi and Rump, *Error-free transformations of matrix multiplication by using fast routines of
matrix multiplication and its applications*, Numerical Algorithms 59, 2012.

Each row of a factor is scaled by a power of two to sizes of at most one and cut into slices, row = sum_s S_s 2^-p_s
with p_s = (w - 1) + w s, integers |S_s| <= 2^(w-1), and a rest. With n summands and n 2^(2w-2) <= 2^53, every sum of
any of the products that make up an entry of S_s T_tᵀ is an integer of at most 2^53, which float64 holds: the product
is exact, in whatever order, in however many threads, with fused multiplication and addition or without, and however
the processor rounds, because nothing is rounded. What belongs to one power of two is added up in 64-bit integers
(fewer than 2^9 slices of at most 2^53), carried, and handed to Arb from the top in pairs of digits, which are exact
floats for w <= 26: `2^(w-1) (2^w + 1) <= 2^53`. So the middle of an entry is that of an exact product, up to three
things, all of which its radius holds:

* what stays behind the last slices: rests rho and sigma of factors of size at most one change a sum of n products by
  no more than `n (rho + sigma + rho sigma)`; a row where that is more than the working precision forgives is computed
  by Arb instead;
* digits that are dropped, below the working precision of the smallest entry: less than one unit of the last that is
  kept;
* the radii R and S of the factors, `|A| S + R (|B| + S)`, in float64 with all terms positive. A sum of n such products
  is at least `(1 - u)^(n+1)` of the exact one for any order of summation and any rounding (u = 2^-52), or loses at
  most 2 n 2^-1022 more where terms underflow; `1 + (n + 16) 2^-50` and `n 2^-1000` make up for both, and 2^-1000 for
  what scaling the whole may lose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx

#: bits of working precision beyond which there would be too many slices
MOST = 512
#: bits below the largest entry of a row, besides those of the working precision, that slices keep
DEEPER = 48
#: sizes of entries that are sliced are between `2^-RANGE` and `2^RANGE`, or zero
RANGE = 150.0
#: floats from `2^LEAST` on stay normal, to their last bit, when they are scaled by sizes; what is less goes to radii
LEAST = -700.0
#: how many products of entries it takes to be worth the conversion of one entry
WORTH = 48

Array = np.ndarray


@dataclass
class Rows:
    """Rows of balls as integers: `2^exponent (sum_s slices[s] 2^-(w - 1 + w s) ± rest ± radius)`.

    **Attributes:** `slices`, for each the places of rows that are not zero in it and these; `exponent`, `rest`
    `[rows]`; `size`, `radius` `[rows, n]`, in units of `2^exponent`, the second `None` where there is none; `odd`, the
    rows that are not finite or out of range, which are zero here.
    """

    slices: list[tuple[Array, Array]]
    exponent: Array
    rest: Array
    size: Array
    radius: Array | None
    odd: Array


def width(n: int) -> int:
    """The most bits w of slices with `n 2^(2w - 2) <= 2^53`, and no more than a pair of digits has in a float."""
    return min(26, (53 - (n - 1).bit_length()) // 2 + 1)


def worthwhile(rows: int, n: int, columns: int, constant: bool) -> bool:
    """Whether slices are faster than `arb_mat`, as converting entries costs so many of its products."""
    converted = rows * (n + columns) + (n * columns // 32 if constant else n * columns)
    return ctx.prec <= MOST and 1 < n < 2**24 and rows * n * columns > WORTH * converted


def multiplied(rows: Array, tiles: Iterable[Array]) -> Array:
    """`rows @ tile.T` for an array of balls `[r, n]` and some of balls or float64 `[c, n]`, side by side."""
    n, bits, out = rows.shape[1], width(rows.shape[1]), []
    left = sliced(rows, bits)
    for columns in tiles:
        right = sliced(columns, bits)
        piece, again = _product(left, right, n, bits)
        if again.any():
            piece[again] = _by_arb(rows[again], columns)
        if right.odd.any():
            piece[:, right.odd] = _by_arb(rows, columns[right.odd])
        out.append(piece)
    return np.concatenate(out, 1)


def _by_arb(rows: Array, columns: Array) -> Array:
    n = rows.shape[1]
    a, b = arb_mat(len(rows), n, rows.ravel().tolist()), arb_mat(n, len(columns), columns.T.ravel().tolist())
    return _array((a * b).entries(), (len(rows), len(columns)))


def _array(entries: Sequence[Any], shape: tuple[int, ...]) -> Array:
    out = np.empty(shape, dtype=object)
    out.ravel()[:] = entries
    return out


# -- from balls to slices ----------------------------------------------------------------------------------------------


def sliced(rows: Array, bits: int) -> Rows:
    """Balls or floats `[rows, n]` in slices of so many bits, as many as the working precision needs."""
    pieces, radius, odd = _floats(rows) if rows.dtype == object else _checked(rows)
    size = np.abs(pieces[0])
    exponent = np.frexp(size.max(1))[1]
    scale = np.ldexp(1.0, -exponent)[:, None]
    pieces = [piece * scale for piece in pieces]
    count = -(-(ctx.prec + DEEPER) // bits)
    digits: list[Any] = []
    unit = 2.0 ** (bits - 1)
    for _ in range(count):
        digits.append(0)
        for piece in pieces:
            whole = np.rint(piece * unit)
            digits[-1] = whole + digits[-1] if len(pieces) > 1 else whole
            piece -= whole * (1 / unit)
        unit *= 2.0**bits
        if not any(piece.any() for piece in pieces):
            break
    for s in range(len(digits) - 1, 0, -1):
        if len(pieces) > 1:  # one float is cut into digits that carry nothing
            carry = np.rint(digits[s] * 2.0**-bits)
            digits[s] -= carry * 2.0**bits
            digits[s - 1] += carry
    rest = sum((np.abs(piece).max(1) for piece in pieces), np.zeros(len(rows))) * (1 + 2.0**-40)
    slices = []
    for part in digits:
        some = np.flatnonzero(part.any(1))
        slices.append((some, part[some] if len(some) < len(part) else part))
    return Rows(slices, exponent, rest, size * scale, None if radius is None else radius * scale, odd)


def _checked(rows: Array) -> tuple[list[Array], None, Array]:
    """Floats, which are exact, less the rows that are out of range."""
    size = np.abs(rows)
    odd = ~((size == 0) | ((size > 2.0**-RANGE) & (size < 2.0**RANGE))).all(1)
    return [np.where(odd[:, None], 0.0, rows) if odd.any() else rows], None, odd


def _floats(rows: Array) -> tuple[list[Array], Array | None, Array]:
    """Balls as sums of floats and a radius, whatever Arb rounds on the way: what is left over is a ball as well."""
    shape, flat = rows.shape, rows.ravel().tolist()
    pieces: list[Array] = []
    left = arb_mat(shape[0], shape[1], flat)
    for _ in range(ctx.prec // 53 + 2):
        piece = _numbers(map(float, flat), shape)
        piece[np.abs(piece) < 2.0**LEAST] = 0
        if pieces and not piece.any():
            break
        pieces.append(piece)
        left = left - arb_mat(shape[0], shape[1], piece.ravel().tolist())
        flat = left.entries()
    radius, exact = _sizes(flat, shape)
    radius = np.where(exact, 0.0, np.maximum(radius * (1 + 2.0**-50), 2.0**LEAST))
    size = np.abs(pieces[0]) + radius
    odd = ~(((size > 2.0**-RANGE) & (size < 2.0**RANGE)) | ((pieces[0] == 0) & exact)).all(1)
    for part in (*pieces, radius):
        part[odd] = 0
    return pieces, radius if radius.any() else None, odd


def _sizes(entries: Sequence[Any], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The largest absolute values in balls, rounded, and which of the balls are zero rather than too small a size."""
    size = _numbers(map(arb.abs_upper, entries), shape)
    zero = size == 0
    zero.ravel()[[i for i in np.flatnonzero(zero) if not entries[i].is_zero()]] = False
    return size, zero


def _numbers(numbers: Any, shape: tuple[int, ...]) -> Array:
    return np.fromiter(map(float, numbers), float, shape[0] * shape[1]).reshape(shape)


# -- from slices to balls ----------------------------------------------------------------------------------------------


def _product(a: Rows, b: Rows, n: int, bits: int) -> tuple[Array, Array]:
    """The product in balls, and the rows where slices kept too little for the working precision."""
    shape = (len(a.exponent), len(b.exponent))
    levels = _levels(a, b, shape, bits)
    power = a.exponent[:, None] + b.exponent[None, :]
    value = sum((level * 2.0 ** (-bits * i) for i, level in enumerate(levels[:4])), np.zeros(shape))
    value = np.abs(value) * 2.0 ** (2 - bits)  # level 0 counts units of 2^(w - 2(w - 1))
    behind = n * (a.rest[:, None] + b.rest + a.rest[:, None] * b.rest) * (1 + 2.0**-40)
    radius = _radius(a, b, n)
    again = (behind > 2.0**-ctx.prec * value + 2.0**-8 * radius).any(1)
    # from the top, in pairs of digits: the first counts units of 2^(2 - w)
    terms: list[Array] = []
    place, dropped = 2 + bits, 0.0
    levels = [np.zeros(shape), *levels, np.zeros(shape)]
    for i in range(0, len(levels) - 1, 2):
        place -= 2 * bits
        terms.append(np.ldexp(levels[i] * 2.0**bits + levels[i + 1], place + power))
        dropped = 2.0**place if any(level.any() for level in levels[i + 2 :]) else 0.0
        if (dropped <= 2.0 ** (-ctx.prec - 8) * value).all() or place + power.min() < LEAST:
            break
    radius = (radius + behind + dropped) * (1 + 2.0**-40)
    radius = np.ldexp(radius, power) + np.where(radius > 0, 2.0**-1000, 0.0)
    return _balls(terms, radius, shape), again | a.odd


def _levels(a: Rows, b: Rows, shape: tuple[int, int], bits: int) -> list[Array]:
    """Digits of the exact product, of which all but the first are at most `2^(w-1)`."""
    sums = np.zeros((len(a.slices) + len(b.slices), *shape), dtype=np.int64)  # the first takes what is carried over
    stack = np.concatenate([part for _, part in a.slices])
    for t, (columns, part) in enumerate(b.slices):
        whole, start = (stack @ part.T).astype(np.int64), 0
        for s, (rows, _) in enumerate(a.slices):
            block = whole[start : start + len(rows)]
            start += len(rows)
            if len(columns) == shape[1]:
                sums[1 + s + t, rows] += block
            else:
                sums[1 + s + t][np.ix_(rows, columns)] += block
    half = 1 << (bits - 1)
    for level in range(len(sums) - 1, 0, -1):
        carry = (sums[level] + half) >> bits
        sums[level] -= carry << bits
        sums[level - 1] += carry
    return list(sums)


def _radius(a: Rows, b: Rows, n: int) -> Array:
    """A bound of what the radii of the factors make, in their units."""
    out = np.zeros((len(a.exponent), len(b.exponent)))
    more = 1 + (n + 16) * 2.0**-50
    for ball, other in ((a, b), (b, a)):
        if ball.radius is None:
            continue
        wide = np.flatnonzero(ball.radius.any(1))
        reach = other.size * (1 + 2.0**-50) + other.rest[:, None]
        if ball is b and other.radius is not None:
            reach = reach + other.radius
        part = (ball.radius[wide] @ reach.T) * more + n * 2.0**-1000
        if ball is a:
            out[wide] += part
        else:
            out[:, wide] += part.T
    return out


def _balls(terms: list[Array], radius: Array, shape: tuple[int, int]) -> Array:
    """The sums of some floats, from the smallest, with the radius."""
    if radius.any():
        first = [arb(x, r) for x, r in zip(terms[-1].ravel().tolist(), radius.ravel().tolist(), strict=True)]
    else:
        first = terms[-1].ravel().tolist()
    total = arb_mat(shape[0], shape[1], first)
    for term in reversed(terms[:-1]):
        total = total + arb_mat(shape[0], shape[1], term.ravel().tolist())
    return _array(total.entries(), shape)
