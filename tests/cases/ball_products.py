"""Factors of matrix products in balls, and their exact products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flint import arb, fmpq, fmpq_mat

Array = np.ndarray


def array(numbers: Any, radii: Any = 0.0) -> Array:
    """Balls with these middles and radii."""
    numbers, radii = np.broadcast_arrays(np.asarray(numbers, dtype=float), np.asarray(radii, dtype=float))
    out = np.empty(numbers.shape, dtype=object)
    out.ravel()[:] = [arb(x, r) for x, r in zip(numbers.ravel().tolist(), radii.ravel().tolist(), strict=True)]
    return out


def deep(shape: tuple[int, int], seed: int, radius: float = 0.0) -> Array:
    """Balls whose middles use all bits of the working precision."""
    x = array(np.random.default_rng(seed).normal(size=shape))
    return np.asarray(np.frompyfunc(lambda b: (b.exp() - 1).mid() * arb(1, radius), 1, 1)(x), dtype=object)


def rational(x: arb) -> fmpq:
    mantissa, exponent = x.man_exp()
    return fmpq(mantissa) * fmpq(2) ** int(exponent)


def exact(a: Array, b: Array) -> fmpq_mat:
    """The product of what the entries are in the middle."""
    first, second = (fmpq_mat(*m.shape, [rational(arb(x).mid()) for x in m.ravel().tolist()]) for m in (a, b))
    return first * second


def _normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def _spread(*shape: int, bits: float, seed: int = 0) -> Array:
    """Numbers of sizes that differ by so many bits, either way."""
    generator = np.random.default_rng(seed)
    return generator.normal(size=shape) * 2.0 ** generator.uniform(-bits, bits, size=shape).round()


def _holed(x: Array) -> Array:
    x = x.copy()
    x[:, ::3], x[1], x[-1, 1:] = 0, 0, 0
    return x


def _cancelling() -> tuple[Array, Array]:
    """Sums of which nothing is left but what is far below their terms."""
    x, y = _normal(4, 20), _normal(20, 5, seed=1)
    low = _normal(4, 20, seed=2) * 2.0**-45
    return array(np.concatenate([x, x + low], 1)), np.concatenate([y, -y])


#: name -> the factors `[r, n]`, balls, and `[n, c]`, balls or floats
FACTORS: dict[str, Callable[[], tuple[Array, Array]]] = {
    "all bits": lambda: (deep((5, 40), 1), _normal(40, 7)),
    "all bits of both": lambda: (deep((5, 40), 1), deep((40, 7), 2)),
    "with radii": lambda: (deep((5, 40), 1, 1e-30), deep((40, 7), 2, 1e-35)),
    "radii that dominate": lambda: (array(_normal(5, 40), 10.0), array(_normal(40, 7), 3.0)),
    "radii of the left": lambda: (array(_normal(5, 40), 1e-3), _normal(40, 7)),
    "radii of the right": lambda: (array(_normal(5, 40)), array(_normal(40, 7), 1e-3)),
    "radii around zero": lambda: (array(np.zeros((5, 40)), 1e-9), array(_normal(40, 7), 1e-90)),
    "tiny radii": lambda: (array(_normal(5, 40), 2.0**-1000), array(_normal(40, 7), 5e-324)),
    "tiny rows of large radii": lambda: (array(_normal(5, 40) * 2.0**-140, 2.0**140), _normal(40, 7)),
    "sizes apart": lambda: (array(_spread(5, 40, bits=40)), _spread(40, 7, bits=40, seed=1)),
    "sizes far apart": lambda: (array(_spread(5, 40, bits=140)), _spread(40, 7, bits=140, seed=1)),
    "sizes out of range": lambda: (array(_spread(5, 40, bits=300)), _spread(40, 7, bits=300, seed=1)),
    "subnormal": lambda: (array(_normal(5, 40)), _normal(40, 7) * 2.0**-1060),
    "subnormal rows": lambda: (array(_normal(5, 40) * 2.0**-1060), _normal(40, 7)),
    "one subnormal": lambda: (array(_normal(5, 40)), np.where(np.arange(280).reshape(40, 7) == 11, 5e-324, 1.5)),
    "huge": lambda: (array(_normal(5, 40) * 2.0**900), _normal(40, 7) * 2.0**900),
    "beyond floats": lambda: (deep((5, 40), 1) * (arb(2) ** 5000), deep((40, 7), 2) * (arb(2) ** -7000)),
    "bits far below": lambda: (deep((5, 40), 1) + arb(2) ** -900, _normal(40, 7)),
    "zeros": lambda: (array(_holed(_normal(5, 40))), _holed(_normal(40, 7))),
    "nothing but zeros": lambda: (array(np.zeros((5, 40))), _normal(40, 7)),
    "powers of two": lambda: (array(2.0 ** np.arange(200).reshape(5, 40)), 2.0 ** -np.arange(280.0).reshape(40, 7)),
    "largest digits": lambda: (array(np.full((5, 40), 1 - 2.0**-53)), np.full((40, 7), 2.0**-53 - 1)),
    "alternating": lambda: (array((-1.0) ** np.arange(200).reshape(5, 40)), np.ones((40, 7))),
    "cancelling": _cancelling,
    "one row": lambda: (deep((1, 64), 1), _normal(64, 90)),
    "one column": lambda: (deep((90, 64), 1), _normal(64, 1)),
    "wide": lambda: (deep((2, 3000), 1), _normal(3000, 2)),
    "two summands": lambda: (deep((9, 2), 1), _normal(2, 9)),
    "one summand": lambda: (deep((9, 1), 1), _normal(1, 9)),
}
