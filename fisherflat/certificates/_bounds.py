"""Bounds of enclosures: exact decimal numbers, rounded outwards."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from fractions import Fraction

from flint import arb

from fisherflat.errors import EnclosureError


class Bound(Fraction):
    """A bound of an enclosure: an exact decimal number, a `Fraction` that prints as the decimal that it is."""

    __slots__ = ()

    def __str__(self) -> str:
        decimal = Context(prec=5000).divide(Decimal(self.numerator), Decimal(self.denominator))
        return f"{decimal.normalize(Context(prec=5000)):E}" if decimal else "0"

    def __repr__(self) -> str:
        return f"Bound('{self}')"

    def __format__(self, spec: str) -> str:
        return format(Decimal(str(self)), spec)


def bounds(ball: arb, bits: int, slack: float = 0.0) -> tuple[Bound, Bound]:
    """Decimal bounds around a ball, rounded outwards to about `bits` bits.

    The ball is widened before, by a few units in the last place and by `slack` of its width, but not to zero.

    **Raises:** `EnclosureError` where the ball is not finite, or of a size beyond all floats.
    """
    low, high = _endpoint(ball.lower(), below=True), _endpoint(ball.upper(), below=False)
    margin = max(abs(low), abs(high)) * Fraction(2) ** (8 - bits)
    margin += min((high - low) * Fraction(slack), abs(low) / 2, abs(high) / 2)
    return rounded(low - margin, bits, ROUND_FLOOR), rounded(high + margin, bits, ROUND_CEILING)


def _endpoint(exact: arb, below: bool) -> Fraction:
    """The number, or where it is far below all floats one beneath or above it: zero, or something tiny."""
    if not exact.is_finite() or (exact != 0 and abs(exact) > arb(2) ** 1100):
        raise EnclosureError("the enclosure is not bounded by any float")
    mantissa, exponent = (int(part) for part in exact.man_exp())
    if exponent < -20000:
        sign = (mantissa > 0) - (mantissa < 0)
        return Fraction(sign if sign == (-1 if below else 1) else 0, 2**2000)
    return mantissa * Fraction(2) ** exponent


def rounded(number: Fraction, bits: int, rounding: str) -> Bound:
    """A number rounded to as many digits as `bits` bits have."""
    context = Context(prec=int(bits * 0.30103) + 2, rounding=rounding, Emin=-99999, Emax=99999)
    return Bound(str(context.divide(Decimal(number.numerator), Decimal(number.denominator))))
