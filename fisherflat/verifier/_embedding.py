"""Families as surfaces in flat space, in which the verifier measures: no moments, no Christoffel symbols.

Probabilities p are points `2 sqrt p` of a sphere, of which nothing is used but that lengths on it are those of the
space around. A yes-no variable is the arc `2 arctan sqrt(p / (1 - p))`. Rates r are `2 sqrt r`. A normal distribution
with mean m and deviation s is the point `(m / s, (m^2 / 2 + s^2) / s, 1 / s)` of a hyperboloid in a space with one
direction of time, where squares of lengths are `x^2 - 2 y z`. The Gauss equation is the same in such a space, since the
metric of the surface is positive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flint import arb

from fisherflat.verifier._polynomials import monomials

_EXP: Any = np.frompyfunc(lambda x: x.exp(), 1, 1)
_LOG: Any = np.frompyfunc(lambda x: x.log(), 1, 1)
_COSH: Any = np.frompyfunc(lambda x: x.cosh(), 1, 1)
_TANH: Any = np.frompyfunc(lambda x: x.tanh(), 1, 1)
_ATAN: Any = np.frompyfunc(lambda x: x.atan(), 1, 1)
_MIDDLE: Any = np.frompyfunc(lambda x: x.mid(), 1, 1)


class Derivatives:
    """The value and the derivatives `[1 + m, ...]` of an array that depends on k coordinates."""

    def __init__(self, rows: np.ndarray, k: int) -> None:
        self.rows, self.k = rows, k

    def through(self, value: np.ndarray, slope: np.ndarray, bend: np.ndarray) -> Derivatives:
        """Behind a function of each entry, given it and its two derivatives there."""
        rows = [value]
        for row, monomial in zip(self.rows[1:], monomials(self.k)[1:], strict=True):
            both = [self.rows[1 + i] for i in monomial]
            rows.append(slope * row + (bend * both[0] * both[1] if len(both) == 2 else 0))
        return Derivatives(np.stack(rows), self.k)

    def __mul__(self, other: Derivatives) -> Derivatives:
        a, b = self.rows, other.rows
        rows = [a[0] * b[0]]
        for n, monomial in enumerate(monomials(self.k)[1:], 1):
            row = a[n] * b[0] + a[0] * b[n]
            if len(monomial) == 2:
                i, j = monomial
                row = row + a[1 + i] * b[1 + j] + a[1 + j] * b[1 + i]
            rows.append(row)
        return Derivatives(np.stack(rows), self.k)

    def __add__(self, other: Derivatives) -> Derivatives:
        return Derivatives(self.rows + other.rows, self.k)

    def times(self, factor: Any) -> Derivatives:
        """A multiple."""
        return Derivatives(self.rows * factor, self.k)

    def exp(self) -> Derivatives:
        """The exponential."""
        value = _EXP(self.rows[0])
        return self.through(value, value, value)


def _classes(z: Derivatives) -> tuple[np.ndarray, np.ndarray]:
    top = np.array([[max(row, key=float)] for row in _MIDDLE(z.rows[0])], dtype=object)
    shifted = Derivatives(np.concatenate([z.rows[:1] - top, z.rows[1:]]), z.k)
    total = Derivatives(shifted.exp().rows.sum(-1, keepdims=True), z.k)
    value = total.rows[0]
    logarithm = total.through(_LOG(value), 1 / value, -1 / value**2)
    half = (shifted + logarithm.times(arb(-1))).times(arb(1) / 2)
    return _flat(half.exp().times(arb(2)))


def _bits(z: Derivatives) -> tuple[np.ndarray, np.ndarray]:
    half = z.rows[0] / 2
    slope = 1 / (2 * _COSH(half))
    return _flat(z.through(2 * _ATAN(_EXP(half)), slope, -slope * _TANH(half) / 2))


def _counts(z: Derivatives) -> tuple[np.ndarray, np.ndarray]:
    return _flat(z.times(arb(1) / 2).exp().times(arb(2)))


def _normals(z: Derivatives) -> tuple[np.ndarray, np.ndarray]:
    # moved and scaled to mean 0 and deviation 1 at the middle, which changes no length
    means, logs = np.split(z.rows, 2, -1)
    unit = _EXP(-_MIDDLE(logs[0]))
    mean = Derivatives(np.concatenate([means[:1] - _MIDDLE(means[0]), means[1:]]) * unit, z.k)
    log = Derivatives(np.concatenate([logs[:1] - _MIDDLE(logs[0]), logs[1:]]), z.k)
    steep = log.times(arb(-1)).exp()
    x = mean * steep  # m / s
    light, dark = x * mean.times(arb(1) / 2) + log.exp(), steep
    apart, along = light + dark.times(arb(-1)), light + dark  # lengths are x^2 + apart^2 / 2 - along^2 / 2
    parts = [x.rows, apart.rows, along.rows]
    signs = [arb(1), arb(2), arb(-2)]
    rows = np.concatenate([part.reshape(len(part), -1) for part in parts], -1)
    return rows, np.concatenate([np.full(part[0].size, sign) for part, sign in zip(parts, signs, strict=True)])


def _flat(found: Derivatives) -> tuple[np.ndarray, np.ndarray]:
    rows = found.rows.reshape(len(found.rows), -1)
    return rows, np.full(rows.shape[1], arb(1))


_EMBEDDINGS: dict[str, Callable[[Derivatives], tuple[np.ndarray, np.ndarray]]] = {
    "Bernoulli": _bits,
    "Categorical": _classes,
    "DiagonalGaussian": _normals,
    "Poisson": _counts,
}
#: families whose space is flat
FLAT = ("Bernoulli", "Gaussian", "Poisson")


def embedded(family: Any, rows: np.ndarray, shape: Sequence[int], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The value and the derivatives `[1 + m, D]` of outputs as those of a surface in flat space, `[1 + m, E]`.

    **Returns:** them, and `[E]`, what squares of steps are divided by, negative along time.
    """
    z = Derivatives(rows.reshape(len(rows), -1, shape[-1] if shape else 1), k)
    return _EMBEDDINGS[type(family).__name__](z)


def dimension(family: Any, outputs: int) -> int | None:
    """How many coordinates a surface has that fills a flat space; `None` where the space is not flat."""
    return outputs if type(family).__name__ in FLAT else None
