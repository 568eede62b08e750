"""What each elementary function is, in the words of mpmath, and its options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
from mpmath import mpf

B, A = mpf("0.044715"), lambda: mpmath.sqrt(2 / mpmath.pi)

#: what each function is, in the words of mpmath
TRUTH: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "acos": mpmath.acos,
    "acosh": mpmath.acosh,
    "asin": mpmath.asin,
    "asinh": mpmath.asinh,
    "atan": mpmath.atan,
    "atanh": mpmath.atanh,
    "celu": lambda x, alpha=1: x if x > 0 else alpha * mpmath.expm1(x / alpha),
    "clamp": lambda x, low=None, high=None: min(
        max(x, low if low is not None else x), high if high is not None else mpmath.inf
    ),
    "clamp_max": lambda x, high: min(x, high),
    "clamp_min": lambda x, low: max(x, low),
    "cos": mpmath.cos,
    "cosh": mpmath.cosh,
    "digamma": mpmath.digamma,
    "elu": lambda x, alpha=1, scale=1, input_scale=1: scale * (x if x > 0 else alpha * mpmath.expm1(input_scale * x)),
    "erf": mpmath.erf,
    "erfc": mpmath.erfc,
    "erfinv": mpmath.erfinv,
    "exp": mpmath.exp,
    "exp2": lambda x: mpf(2) ** x,
    "expm1": mpmath.expm1,
    "gelu": lambda x, approximate="none": (
        x / 2 * (mpmath.erfc(-x / mpmath.sqrt(2)) if approximate == "none" else 1 + mpmath.tanh(A() * (x + B * x**3)))
    ),
    "leaky_relu": lambda x, slope=0.01: x if x > 0 else slope * x,
    "log": mpmath.log,
    "lgamma": lambda x: mpmath.loggamma(x).real,
    "log10": mpmath.log10,
    "log1p": mpmath.log1p,
    "log2": lambda x: mpmath.log(x) / mpmath.log(2),
    "log_sigmoid": lambda x: -mpmath.log1p(mpmath.exp(-x)),
    "mish": lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))),
    "reciprocal": lambda x: 1 / x,
    "relu": lambda x: max(x, mpf(0)),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "silu": lambda x: x / (1 + mpmath.exp(-x)),
    "sin": mpmath.sin,
    "sinc": mpmath.sincpi,
    "sinh": mpmath.sinh,
    "softplus": lambda x, beta=1, threshold=20: (
        x if beta * x > threshold else mpmath.log1p(mpmath.exp(beta * x)) / beta
    ),
    "special_ndtr": mpmath.ncdf,
    "sqrt": mpmath.sqrt,
    "tan": mpmath.tan,
    "tanh": mpmath.tanh,
}

#: options beyond the defaults that are tested too
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "celu": [{}, {"alpha": 1.75}],
    "clamp": [{"low": -0.5}, {"high": 0.25}, {"low": -2.0, "high": 7.0}],
    "clamp_max": [{"high": 0.5}],
    "clamp_min": [{"low": -1.5}],
    "elu": [
        {},
        {"alpha": 1.5},
        {"alpha": 1.6732632423543772, "scale": 1.0507009873554805},
        {"alpha": 2.0, "input_scale": 0.5},
    ],
    "gelu": [{}, {"approximate": "tanh"}],
    "leaky_relu": [{}, {"slope": 0.2}],
    "softplus": [{}, {"beta": 2.0}, {"beta": 0.5, "threshold": 5.0}],
}
