"""What the verifier knows of functions of one entry: their power series."""

from __future__ import annotations

from collections.abc import Callable

from flint import arb, arb_series

from fisherflat.errors import EnclosureError


def _side(s: arb_series, at: float = 0.0) -> int:
    """On which side of a kink the value lies."""
    value = s[0] - at
    if value > 0:
        return 1
    if value < 0:
        return -1
    raise EnclosureError(f"a kink at {at} is not excluded")


def _sigmoid(s: arb_series) -> arb_series:
    return s.exp() / (1 + s.exp()) if s[0] < -1e4 else 1 / (1 + (-s).exp())


def _tanh(s: arb_series) -> arb_series:
    return 2 * _sigmoid(2 * s) - 1


def _gelu(s: arb_series, approximate: str = "none") -> arb_series:
    if approximate == "tanh":
        inner = (2 / arb.pi()).sqrt() * (s + arb(0.044715) * s * s * s)
        return s * (1 + _tanh(inner)) / 2
    return s * (-s / arb(2).sqrt()).erfc() / 2


def _softplus(s: arb_series, beta: float = 1.0, threshold: float = 20.0) -> arb_series:
    scaled = s * arb(beta)
    return s if _side(scaled, threshold) > 0 else (1 + scaled.exp()).log() / arb(beta)


def _elu(s: arb_series, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> arb_series:
    if _side(s) > 0:
        return s * arb(scale)
    return ((s * arb(input_scale)).exp() - 1) * arb(alpha) * arb(scale)


def _clamp(s: arb_series, low: float | None = None, high: float | None = None) -> arb_series:
    if low is not None and _side(s, low) < 0:
        return 0 * s + arb(low)
    return s if high is None or _side(s, high) < 0 else 0 * s + arb(high)


def _power(s: arb_series, exponent: float) -> arb_series:
    if float(exponent).is_integer() and exponent >= 0:
        result = 0 * s + 1
        for _ in range(int(exponent)):
            result = result * s
        return result
    if float(exponent).is_integer():
        return 1 / _power(s, -exponent)
    return s.sqrt() if exponent == 0.5 else s.rsqrt() if exponent == -0.5 else (s.log() * arb(exponent)).exp()


def _arsinh(s: arb_series) -> arb_series:
    # of the size and with the sign, so that nothing cancels
    sign = -1 if s[0] < 0 else 1
    return (sign * s + (s * s + 1).sqrt()).log() * sign


def _erfinv(s: arb_series) -> arb_series:
    y = s[0].erfinv()
    slope = arb.pi().sqrt() / 2 * (y * y).exp()
    rest = s - s[0]
    return y + slope * rest + y * slope * slope * rest * rest


def _celu(s: arb_series, alpha: float = 1.0) -> arb_series:
    return s if _side(s) > 0 else ((s / arb(alpha)).exp() - 1) * arb(alpha)


def _mish(s: arb_series) -> arb_series:
    grown = s.exp() * (s.exp() + 2)  # tanh log(1 + e^x), written out
    return s * grown / (grown + 2)


def _sinc(s: arb_series) -> arb_series:
    if s[0] == 0:
        return 1 - (s * arb.pi()) ** 2 / 6
    return (s * arb.pi()).sin() / (s * arb.pi())


def _digamma(s: arb_series) -> arb_series:
    return arb_series([s[0], 1], prec=4).lgamma().derivative()  # of the argument itself: s is it, and its shift


FUNCTIONS: dict[str, Callable[..., arb_series]] = {
    "abs": lambda s: s * _side(s),
    "acos": lambda s: s.acos(),
    "acosh": lambda s: (s + (s - 1).sqrt() * (s + 1).sqrt()).log(),
    "asin": lambda s: s.asin(),
    "asinh": _arsinh,
    "atan": lambda s: s.atan(),
    "atanh": lambda s: ((1 + s).log() - (1 - s).log()) / 2,
    "celu": _celu,
    "clamp": _clamp,
    "clamp_max": lambda s, high: _clamp(s, None, high),
    "clamp_min": _clamp,
    "cos": lambda s: s.cos(),
    "cosh": lambda s: (s.exp() + (-s).exp()) / 2,
    "digamma": _digamma,
    "elu": _elu,
    "erf": lambda s: s.erf(),
    "erfc": lambda s: s.erfc(),
    "erfinv": _erfinv,
    "exp": lambda s: s.exp(),
    "exp2": lambda s: (s * arb(2).log()).exp(),
    "expm1": lambda s: s.exp() - 1,
    "gelu": _gelu,
    "leaky_relu": lambda s, slope=0.01: s if _side(s) > 0 else s * arb(slope),
    "lgamma": lambda s: s.lgamma(),
    "log": lambda s: s.log(),
    "log10": lambda s: s.log() / arb(10).log(),
    "log1p": lambda s: (1 + s).log(),
    "log2": lambda s: s.log() / arb(2).log(),
    "log_sigmoid": lambda s: -(1 + (-s).exp()).log(),
    "mish": _mish,
    "pow": _power,
    "reciprocal": lambda s: 1 / s,
    "relu": lambda s: s if _side(s) > 0 else 0 * s,
    "rsqrt": lambda s: s.rsqrt(),
    "sigmoid": _sigmoid,
    "silu": lambda s: s * _sigmoid(s),
    "sin": lambda s: s.sin(),
    "sinc": _sinc,
    "sinh": lambda s: (s.exp() - (-s).exp()) / 2,
    "softplus": _softplus,
    "special_ndtr": lambda s: (-s / arb(2).sqrt()).erfc() / 2,
    "sqrt": lambda s: s.sqrt(),
    "tan": lambda s: s.tan(),
    "tanh": _tanh,
}
