"""Floats that remember which real numbers they stand for, for arrays that can use the exact ones."""

from __future__ import annotations

import math


class Irrational(float):
    """A float that remembers which real number it stands for, for arrays that can use the exact one.

    **Attributes:** `square`, `(p, q, n)`: the number is `sign * sqrt(p / q * pi^n)`. It is a plain float to everyone
    else.
    """

    square: tuple[int, int, int]

    def __new__(cls, p: int, q: int, n: int) -> Irrational:
        self = super().__new__(cls, math.sqrt(p / q * math.pi**n))
        self.square = (p, q, n)
        return self


class Logarithm(float):
    """`log(base)` as a float that remembers its base, as `Irrational` does its square."""

    base: float

    def __new__(cls, base: float) -> Logarithm:
        self = super().__new__(cls, math.log(base))
        self.base = base
        return self


LOG_2, LOG_10 = Logarithm(2), Logarithm(10)
ROOT_HALF = Irrational(1, 2, 0)
ROOT_2_OVER_PI = Irrational(2, 1, -1)
ROOT_4_OVER_PI = Irrational(4, 1, -1)
ROOT_PI_OVER_4 = Irrational(1, 4, 1)
ROOT_1_OVER_2PI = Irrational(1, 2, -1)
