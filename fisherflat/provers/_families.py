"""Surfaces in families whose metric changes with their parameters, in balls.

The same three things as in floats (docs/families.md): tangents and covariant second derivatives in an orthonormal
frame, and the curvature of the parameters' space on a plane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flint import arb

from fisherflat.jets import pairs
from fisherflat.spaces.families import Bernoulli, Categorical, DiagonalGaussian, ParametricFamily, Poisson

#: of vectors x and y of the frame `[F]`: `R(x, y, y, x)` of the space; `None` where it is flat
Around = Callable[[np.ndarray, np.ndarray], arb] | None

_EXP: Any = np.frompyfunc(lambda x: x.exp(), 1, 1)
_SQRT: Any = np.frompyfunc(lambda x: x.sqrt(), 1, 1)
_TANH: Any = np.frompyfunc(lambda x: x.tanh(), 1, 1)
_MIDDLE: Any = np.frompyfunc(lambda x: x.mid(), 1, 1)


def in_family(family: ParametricFamily, jet: np.ndarray, k: int, shape: Sequence[int]) -> tuple[np.ndarray, Around]:
    """The surface of a 2-jet `[S, D]` of balls in one of the families that have a rule here.

    **Returns:** `[S - 1, F]`, tangents and covariant second derivatives; the curvature around.
    """
    members = (-1, shape[-1] if shape else 1)
    value, first, second = jet[0].reshape(members), jet[1 : 1 + k], jet[1 + k :]
    return _RULES[type(family)](value, first.reshape(k, *members), second.reshape(len(second), *members), pairs(k))


def _classes(value: np.ndarray, first: np.ndarray, second: np.ndarray, places: Any) -> tuple[np.ndarray, Around]:
    largest = np.array([[max(row, key=float)] for row in _MIDDLE(value)], dtype=object)
    weight = _EXP(value - largest)
    p = weight / weight.sum(-1, keepdims=True)
    root = _SQRT(p)

    def centred(x: np.ndarray) -> np.ndarray:
        return x - (p * x).sum(-1, keepdims=True)

    first = centred(first)
    second = centred(np.stack([w + first[i] * first[j] / 2 for w, (i, j) in zip(second, places, strict=True)]))

    def around(x: np.ndarray, y: np.ndarray) -> arb:
        a, b = x.reshape(value.shape), y.reshape(value.shape)
        area = (a * a).sum(-1) * (b * b).sum(-1) - (a * b).sum(-1) ** 2
        return area.sum() / 4

    return _rows(root * first, root * second), around


def _bits(value: np.ndarray, first: np.ndarray, second: np.ndarray, places: Any) -> tuple[np.ndarray, Around]:
    slope, tilt = 1 / (_EXP(value / 2) + _EXP(-value / 2)), -_TANH(value / 2)
    return _bent(slope, tilt, first, second, places), None


def _counts(value: np.ndarray, first: np.ndarray, second: np.ndarray, places: Any) -> tuple[np.ndarray, Around]:
    return _bent(_EXP(value / 2), np.full_like(value, arb(1)), first, second, places), None


def _bent(slope: np.ndarray, tilt: np.ndarray, first: np.ndarray, second: np.ndarray, places: Any) -> np.ndarray:
    """`f' z_i` and `f' (z_ij + tilt z_i z_j / 2)`."""
    bent = [w + tilt * first[i] * first[j] / 2 for w, (i, j) in zip(second, places, strict=True)]
    return _rows(slope * first, slope * np.stack(bent))


def _spread(value: np.ndarray, first: np.ndarray, second: np.ndarray, places: Any) -> tuple[np.ndarray, Around]:
    n, two = value.shape[-1] // 2, arb(2).sqrt()
    scale = _EXP(-value[..., n:])
    a, b = scale * first[..., :n], first[..., n:]
    means = [scale * w[..., :n] - a[i] * b[j] - a[j] * b[i] for w, (i, j) in zip(second, places, strict=True)]
    logs = [two * w[..., n:] + a[i] * a[j] / two for w, (i, j) in zip(second, places, strict=True)]

    def around(x: np.ndarray, y: np.ndarray) -> arb:
        (m, t), (o, s) = (np.split(v.reshape(value.shape), 2, -1) for v in (x, y))
        return -((m * s - t * o) ** 2).sum() / 2

    tangents, seconds = np.concatenate([a, two * b], -1), np.concatenate([np.stack(means), np.stack(logs)], -1)
    return _rows(tangents, seconds), around


def _rows(tangents: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    return np.concatenate([part.reshape(len(part), -1) for part in (tangents, seconds)])


_RULES: dict[type[ParametricFamily], Callable[..., tuple[np.ndarray, Around]]] = {
    Bernoulli: _bits,
    Categorical: _classes,
    DiagonalGaussian: _spread,
    Poisson: _counts,
}
