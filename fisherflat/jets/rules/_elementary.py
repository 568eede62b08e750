"""Elementwise functions with their first two derivatives in closed form.

Each takes an array `x` and returns `(f, f', f'')`. The forms avoid cancellation: tails are computed from `sigmoid(-x)`
or `erfc`, never from `1 - sigmoid(x)`. The arrays are torch tensors or balls, so only their common methods are used,
and numbers multiply the array one by one: a product of two floats would be rounded, and so be another number to a ball.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from fisherflat._modes import recorded
from fisherflat.jets.rules._numbers import (
    LOG_2,
    LOG_10,
    ROOT_1_OVER_2PI,
    ROOT_2_OVER_PI,
    ROOT_4_OVER_PI,
    ROOT_HALF,
    ROOT_PI_OVER_4,
)

Triple = tuple[Any, Any, Any]


def exp(x: Any) -> Triple:
    y = x.exp()
    return y, y, y


def expm1(x: Any) -> Triple:
    y = x.exp()
    return x.expm1(), y, y


def log(x: Any) -> Triple:
    r = x.reciprocal()
    return x.log(), r, -r * r


def log1p(x: Any) -> Triple:
    r = (x + 1).reciprocal()
    return x.log1p(), r, -r * r


def sqrt(x: Any) -> Triple:
    y = x.sqrt()
    first = y.reciprocal() * 0.5
    return y, first, first * x.reciprocal() * -0.5


def rsqrt(x: Any) -> Triple:
    y = x.rsqrt()
    r = x.reciprocal()
    return y, y * r * -0.5, y * r * r * 0.75


def reciprocal(x: Any) -> Triple:
    r = x.reciprocal()
    return r, -r * r, r * r * r * 2


def sin(x: Any) -> Triple:
    s, c = x.sin(), x.cos()
    return s, c, -s


def cos(x: Any) -> Triple:
    s, c = x.sin(), x.cos()
    return c, -s, -c


def tan(x: Any) -> Triple:
    t = x.sin() * x.cos().reciprocal()
    first = t * t + 1
    return t, first, t * first * 2


def sinh(x: Any) -> Triple:
    s, c = x.sinh(), x.cosh()
    return s, c, s


def cosh(x: Any) -> Triple:
    s, c = x.sinh(), x.cosh()
    return c, s, c


def atan(x: Any) -> Triple:
    r = (x * x + 1).reciprocal()
    return x.atan(), r, x * r * r * -2


def asin(x: Any) -> Triple:
    r = ((1 - x) * (x + 1)).reciprocal()
    first = r.sqrt()
    return x.asin(), first, x * first * r


def acos(x: Any) -> Triple:
    _, first, second = asin(x)
    return x.acos(), -first, -second


def asinh(x: Any) -> Triple:
    r = (x * x + 1).reciprocal()
    first = r.sqrt()
    return x.asinh(), first, -x * first * r


def acosh(x: Any) -> Triple:
    r = ((x - 1) * (x + 1)).reciprocal()
    first = r.sqrt()
    return x.acosh(), first, -x * first * r


def atanh(x: Any) -> Triple:
    r = ((1 - x) * (x + 1)).reciprocal()
    return x.atanh(), r, x * r * r * 2


def sigmoid(x: Any) -> Triple:
    s = x.sigmoid()
    first = s * (-x).sigmoid()
    return s, first, -first * _tanh_of_half(x)


def _tanh_of_half(x: Any) -> Any:
    """`tanh(x / 2)`: by `expm1`, in torch up to three times faster, unless a tape asks for derivatives."""
    if not isinstance(x, Tensor) or x.requires_grad or recorded():  # what compiles has a fast tanh
        return (x * 0.5).tanh()
    e = x.abs().neg_().expm1_()
    return (e / (e + 2)).copysign_(x)


def tanh(x: Any) -> Triple:
    t, first = x.tanh(), _slope_of_tanh(x)
    return t, first, t * first * -2


def _slope_of_tanh(x: Any) -> Any:
    """`1 - tanh(x)^2`, from tails."""
    twice = x * 2
    return twice.sigmoid() * (-twice).sigmoid() * 4


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Triple:
    """`log(1 + exp(beta x)) / beta`, and `x` where `beta x > threshold`: the op switches there."""
    scaled = x * beta
    linear = step(scaled - threshold)
    smooth = (scaled.clamp_min(0) + (-scaled.abs()).exp().log1p()) / beta
    s, tail = scaled.sigmoid(), (-scaled).sigmoid()
    return smooth + linear * (x - smooth), s + linear * tail, s * tail * (1 - linear) * beta


def log_sigmoid(x: Any) -> Triple:
    tail = (-x).sigmoid()
    return x.clamp_max(0) - (-x.abs()).exp().log1p(), tail, -tail * x.sigmoid()


def silu(x: Any) -> Triple:
    s, tail = x.sigmoid(), (-x).sigmoid()
    return x * s, s * (x * tail + 1), s * tail * (2 - x * _tanh_of_half(x))


def erf(x: Any) -> Triple:
    first = (-(x * x)).exp() * ROOT_4_OVER_PI
    return x.erf(), first, x * first * -2


def erfc(x: Any) -> Triple:
    first = -((-(x * x)).exp() * ROOT_4_OVER_PI)
    return x.erfc(), first, x * first * -2


def erfinv(x: Any) -> Triple:
    y = x.erfinv()
    first = (y * y).exp() * ROOT_PI_OVER_4
    return y, first, y * first * first * 2


def ndtr(x: Any) -> Triple:
    first = (x * x * -0.5).exp() * ROOT_1_OVER_2PI
    return (-x * ROOT_HALF).erfc() * 0.5, first, -x * first


def lgamma(x: Any) -> Triple:
    return x.lgamma(), x.digamma(), _polygamma(x)[0]


def digamma(x: Any) -> Triple:
    return x.digamma(), *_polygamma(x)


def _polygamma(x: Any) -> tuple[Any, Any]:
    """The derivatives of digamma, `zeta(2, x)` and `-2 zeta(3, x)`; below zero by reflection at 1/2.

    torch's own are good to nine digits.
    """
    if not isinstance(x, Tensor):
        return x.polygamma(1), x.polygamma(2)
    behind = x < 0
    y = torch.where(behind, 1 - x, x)
    first, second = torch.special.zeta(torch.full_like(y, 2), y), torch.special.zeta(torch.full_like(y, 3), y) * -2
    s, c = torch.sin(x * math.pi), torch.cos(x * math.pi)
    return (
        torch.where(behind, (math.pi / s) ** 2 - first, first),
        torch.where(behind, second - c * 2 * (math.pi / s) ** 3, second),
    )


def gelu(x: Any) -> Triple:
    # x Phi(x), Phi the normal distribution function, Phi' = phi
    distribution = (-x * ROOT_HALF).erfc() * 0.5
    density = (x * x * -0.5).exp() * ROOT_1_OVER_2PI
    return x * distribution, distribution + x * density, density * (2 - x * x)


def gelu_tanh(x: Any) -> Triple:
    # x sigmoid(2 a (x + b x^3)), which is 0.5 x (1 + tanh(a (x + b x^3)))
    b = 0.044715
    square = x * x
    inner = x * (square * b + 1) * ROOT_2_OVER_PI * 2
    first, second = (square * b * 3 + 1) * ROOT_2_OVER_PI * 2, x * b * ROOT_2_OVER_PI * 12
    s, ds, dds = sigmoid(inner)
    return x * s, s + x * ds * first, ds * first * 2 + x * (dds * first * first + ds * second)


def step(x: Any) -> Any:
    """1 where `x > 0`, else 0."""
    return x.sign().clamp_min(0)


def relu(x: Any) -> Triple:
    first = step(x)
    return x.clamp_min(0), first, first * 0


def absolute(x: Any) -> Triple:
    sign = x.sign()
    return x.abs(), sign, sign * 0


def leaky_relu(x: Any, slope: float = 0.01) -> Triple:
    positive = step(x)
    first = positive + (1 - positive) * slope
    return x * first, first, first * 0


def elu(x: Any, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Triple:
    positive = step(x)
    below = (x.clamp_max(0) * input_scale).exp()
    slope = (1 - positive) * below * alpha * scale * input_scale
    value = x.clamp_min(0) * scale + (x.clamp_max(0) * input_scale).expm1() * alpha * scale
    return value, positive * scale + slope, slope * input_scale


def clamp(x: Any, low: float | None = None, high: float | None = None) -> Triple:
    inside = x * 0 + 1
    value = x
    if low is not None:
        value, inside = value.clamp_min(low), inside * step(x - low)
    if high is not None:
        value, inside = value.clamp_max(high), inside * step(-x + high)
    return value, inside, inside * 0


def exp2(x: Any) -> Triple:
    y = x.exp2()
    first = y * LOG_2
    return y, first, first * LOG_2


def log2(x: Any) -> Triple:
    r = x.reciprocal()
    first = r / LOG_2
    return x.log2(), first, -first * r


def log10(x: Any) -> Triple:
    r = x.reciprocal()
    first = r / LOG_10
    return x.log10(), first, -first * r


def mish(x: Any) -> Triple:
    # x t, t the hyperbolic tangent of s = log(1 + e^x)
    s = x.clamp_min(0) + (-x.abs()).exp().log1p()
    t, density = s.tanh(), _slope_of_tanh(s)
    slope, tail = x.sigmoid(), (-x).sigmoid()
    first = density * slope
    return x * t, t + x * first, first * (x * (tail - t * slope * 2) + 2)


def celu(x: Any, alpha: float = 1.0) -> Triple:
    positive = step(x)
    below = x.clamp_max(0) / alpha
    slope = (1 - positive) * below.exp()
    return x.clamp_min(0) + below.expm1() * alpha, positive + slope, slope / alpha


def sinc(x: Any) -> Triple:
    """`sin(pi x) / (pi x)`, near zero by its power series."""
    return _sinc(x) if isinstance(x, Tensor) else x.sinc_and_derivatives()


def _sinc(x: Tensor) -> Triple:
    z = x * math.pi
    near = z.abs() < 1
    square = torch.where(near, z * z, 0.0)

    def series(term: Callable[[int], float]) -> Tensor:
        """`sum over n > 0 of (-1)^n term(n) z^(2n - 2) / (2n + 1)!`; the last one is below rounding for |z| < 1."""
        total = torch.zeros_like(z)
        for n in range(12, 0, -1):
            total = total * square + (-1) ** n * term(n) / math.factorial(2 * n + 1)
        return total

    far = torch.where(near, 1.0, z)
    s, c = torch.sin(far), torch.cos(far)
    slope = torch.where(near, z * series(lambda n: 2 * n), (c - s / far) / far)
    bend = torch.where(near, series(lambda n: 2 * n * (2 * n - 1)), -(s + slope * 2) / far)
    return torch.sinc(x), slope * math.pi, bend * math.pi**2


def any_gelu(x: Any, approximate: str = "none") -> Triple:
    return gelu_tanh(x) if approximate == "tanh" else gelu(x)


@dataclass(frozen=True)
class Function:
    """A function of single entries, and what is known of it.

    **Attributes:** `jet`, of the array and of the op's further arguments; `kinked`, not real-analytic everywhere on its
    domain; `affine` between its kinks; `domain`: for arguments out of all numbers, the `positive`, the `nonzero` or
    `other` ones; `sign`: the value is `nonnegative`, or has the sign of the argument (`same`).
    """

    jet: Callable[..., Triple]
    kinked: bool = False
    affine: bool = False
    domain: Literal["all", "positive", "nonzero", "other"] = "all"
    sign: Literal["any", "nonnegative", "same"] = "any"

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Triple:
        return self.jet(x, *args, **kwargs)


#: by ATen name
FUNCTIONS: dict[str, Function] = {
    "abs": Function(absolute, kinked=True, affine=True),
    "acos": Function(acos, domain="other"),
    "acosh": Function(acosh, domain="other"),
    "asin": Function(asin, domain="other"),
    "asinh": Function(asinh),
    "atan": Function(atan),
    "atanh": Function(atanh, domain="other"),
    "celu": Function(celu, kinked=True),
    "clamp": Function(clamp, kinked=True, affine=True),
    "clamp_max": Function(lambda x, high: clamp(x, None, high), kinked=True, affine=True),
    "clamp_min": Function(clamp, kinked=True, affine=True),
    "cos": Function(cos),
    "cosh": Function(cosh),
    "digamma": Function(digamma, domain="other"),
    "elu": Function(elu, kinked=True),
    "erf": Function(erf),
    "erfc": Function(erfc),
    "erfinv": Function(erfinv, domain="other"),
    "exp": Function(exp, sign="nonnegative"),
    "exp2": Function(exp2, sign="nonnegative"),
    "expm1": Function(expm1),
    "gelu": Function(any_gelu),
    "leaky_relu": Function(leaky_relu, kinked=True, affine=True),
    "lgamma": Function(lgamma, domain="other"),
    "log": Function(log, domain="positive"),
    "log10": Function(log10, domain="positive"),
    "log1p": Function(log1p, domain="other"),
    "log2": Function(log2, domain="positive"),
    "log_sigmoid": Function(log_sigmoid),
    "mish": Function(mish),
    "reciprocal": Function(reciprocal, domain="nonzero", sign="same"),
    "relu": Function(relu, kinked=True, affine=True),
    "rsqrt": Function(rsqrt, domain="positive", sign="same"),
    "sigmoid": Function(sigmoid, sign="nonnegative"),
    "silu": Function(silu),
    "sin": Function(sin),
    "sinc": Function(sinc),
    "sinh": Function(sinh),
    "softplus": Function(softplus, kinked=True),
    "special_ndtr": Function(ndtr, sign="nonnegative"),
    "sqrt": Function(sqrt, domain="positive", sign="same"),
    "tan": Function(tan, domain="other"),
    "tanh": Function(tanh),
}
