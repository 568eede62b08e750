"""Products of balls with constant matrices, by integers that float64 holds: the verifier's own way.

The middles of a row are integers times one power of two, and so are the floats of a column. Integers of rows are
written in two's complement, as limbs `0 <= a < 2^16` with a sign in the last, those of columns as limbs
`|b| < 2^v` with the sign of the number. For `n 2^(16 + v) <= 2^53` all that a product of two limb matrices adds up,
and every part of it, is an integer that a float holds, so no sum is rounded whatever its order, with or without fused
operations. v is a number of bytes, hence so is the place of each product; they are added up in 64-bit integers, byte
by byte with what is carried, and the bytes are the integer. Nothing is cut off: a row or a column that spans too many
bits for that is left to Arb.

What remains is the radius, `sum_l r_il |w_lj|`: of floats that are not negative, in which a sum of n products, in any
order and rounded anyhow, falls short by a share of at most `(n + 2) 2^-51` and, where products are too small for
floats, by `n 2^-1021`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from flint import arb, arb_mat, ctx

Array = np.ndarray

#: bits of working precision, and bits that the numbers of a row and of a column may span
PRECISION, ROW, COLUMN = 640, 2048, 192
#: powers of two between which the largest number of a row lies, and all numbers of a column
SMALLEST, LARGEST = -160, 160
#: a radius that is too small for floats to tell from zero
LEAST = 2.0**-900


def is_large(rows: int, n: int, columns: int) -> bool:
    """Whether a product is worth it: conversions cost as much as some of its multiplications."""
    fits = ctx.prec <= PRECISION and 4 <= n <= 2**21
    return fits and n * columns > 64 * (n + columns) and rows > 1


def times(rows: Array, tiles: Iterable[Array]) -> Array:
    """`rows @ tile` for balls `[r, n]` and each of some tiles of floats `[n, c]`, next to each other."""
    n = rows.shape[1]
    step = 3 if n <= 2**13 else 2  # bytes of a column's limb
    left, power, radius, plain = _limbs(rows)
    found = []
    for tile in tiles:
        right, shift, good = _split(tile, 8 * step)
        numbers = _integers(left, right, step)
        out = _scaled(numbers, power[:, None] + shift, (len(rows), tile.shape[1]))
        if radius.any():
            reach = radius @ np.abs(np.where(good, tile, 0.0)) * (1 + (n + 8) * 2.0**-49)
            out = np.array(_AROUND(out, reach + np.where(radius.any(1), n * 2.0**-1000, 0.0)[:, None]), dtype=object)
        for some in np.flatnonzero(~plain):
            out[some] = _by_arb(rows[some : some + 1], tile)[0]
        if not good.all():
            out[:, ~good] = _by_arb(rows, tile[:, ~good])
        found.append(out)
    return np.concatenate(found, 1)


_AROUND: Any = np.frompyfunc(lambda x, r: arb(x, r), 2, 1)


def _by_arb(rows: Array, columns: Array) -> Array:
    n = rows.shape[1]
    out = arb_mat(len(rows), n, rows.ravel().tolist()) * arb_mat(n, columns.shape[1], columns.ravel().tolist())
    return np.array(out.entries(), dtype=object).reshape(len(rows), columns.shape[1])


def _limbs(rows: Array) -> tuple[Array, Array, Array, Array]:
    """The limbs of rows `[limb, r, n]`, the powers of two that rows are multiples of, radii, and which rows fit."""
    r, n = rows.shape
    whole: list[list[int]] = []
    power, radius, plain = np.zeros(r, dtype=np.int64), np.zeros((r, n)), np.zeros(r, dtype=bool)
    for i, row in enumerate(rows.tolist()):
        whole.append([0] * n)
        if not all(x.is_finite() for x in row):
            continue
        parts = [(int(mantissa), int(exponent)) for mantissa, exponent in (x.mid().man_exp() for x in row)]
        low = min((exponent for mantissa, exponent in parts if mantissa), default=0)
        high = max((exponent + mantissa.bit_length() for mantissa, exponent in parts if mantissa), default=0)
        around = [0.0 if x.is_exact() else max(float(x.rad()) * (1 + 2.0**-50), LEAST) for x in row]
        if not (SMALLEST <= high <= LARGEST and high - low <= ROW and max(around) < 2.0**LARGEST):
            continue
        whole[i] = [mantissa << (exponent - low) if mantissa else 0 for mantissa, exponent in parts]
        power[i], radius[i], plain[i] = low, around, True
    count = 1 + max((x.bit_length() for row in whole for x in (min(row), max(row))), default=0) // 16
    data = b"".join(x.to_bytes(2 * count, "little", signed=True) for row in whole for x in row)
    limbs = np.frombuffer(data, dtype="<u2").reshape(r, n, count).astype(float)
    limbs[..., -1] -= np.where(limbs[..., -1] >= 2**15, 2.0**16, 0.0)
    return np.ascontiguousarray(np.moveaxis(limbs, -1, 0)), power, radius, plain


def _split(tile: Array, bits: int) -> tuple[list[Array], Array, Array]:
    """The limbs of columns, from the lowest, the powers of two that columns are multiples of, and which columns fit."""
    size = np.abs(tile)
    least = np.where(size == 0, np.inf, size).min(0)
    largest = size.max(0)
    good = (largest == 0) | ((least > 2.0**SMALLEST) & (largest < 2.0**LARGEST))
    mantissas = np.bitwise_or.reduce(np.ascontiguousarray(tile).view(np.int64), 0) & (2**52 - 1) | 2**52
    low = np.frexp(np.where(good & (largest > 0), least, 1.0))[1] - 53
    low += np.frexp((mantissas & -mantissas).astype(float))[1] - 1  # zeros that all mantissas end in
    good &= np.frexp(np.where(good, largest, 0.0))[1] - low <= COLUMN
    left = np.ldexp(np.where(good, tile, 0.0), -low)
    limbs: list[Array] = []
    while left.any() or not limbs:
        above = np.trunc(left * 2.0**-bits)
        limbs.append(left - above * 2.0**bits)
        left = above
    return limbs, low, good


def _integers(left: Array, right: list[Array], step: int) -> list[int]:
    """The entries of the product, row by row."""
    count, r, n = left.shape
    c = right[0].shape[1]
    places = np.zeros((2 * count + step * len(right) + 8, r, c), dtype=np.int64)
    stack = left.reshape(count * r, n)
    for t, limb in enumerate(right):
        for s, part in enumerate((stack @ limb).astype(np.int64).reshape(count, r, c)):
            places[2 * s + step * t] += part
    for place in range(len(places) - 1):
        places[place + 1] += places[place] >> 8
    size, data = len(places), np.ascontiguousarray(np.moveaxis((places & 255).astype(np.uint8), 0, -1)).tobytes()
    return [int.from_bytes(data[k : k + size], "little", signed=True) for k in range(0, len(data), size)]


def _scaled(numbers: list[int], powers: Array, shape: tuple[int, int]) -> Array:
    """Integers times powers of two, rounded to the working precision."""
    units = {power: arb(2) ** power for power in np.unique(powers).tolist()}
    out = np.empty(shape, dtype=object)
    pairs = zip(arb_mat(*shape, numbers).entries(), powers.ravel().tolist(), strict=True)
    out.ravel()[:] = [x * units[power] for x, power in pairs]
    return out
