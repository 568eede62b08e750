"""Every elementary function and its two derivatives against 40-digit differences, to rounding times condition."""

from __future__ import annotations

import math
from functools import cache

import mpmath
import numpy as np
import pytest
import torch
from cases.differences import by_differences, digits
from cases.functions import OPTIONS, TRUTH
from mpmath import mpf

from fisherflat.jets.rules import FUNCTIONS
from fisherflat.jets.rules._powers import raised as power

# dyadic where float32 can hold it, so that both precisions are asked for the same truth
LINE = [
    2.0**-27,
    2.0**-10,
    0.125,
    0.5,
    0.96875,
    1.0,
    1.2784645427610738,
    2.0,
    2.3993572805154,
    7.75,
    20.125,
    30.0,
    300.0,
]
LINE += [-x for x in LINE] + [1e-300]
UNIT = [2.0**-27, -0.125, -0.5, 0.75, -0.96875, 0.999999, -1e-300]
POSITIVE = [1e-300, 1e-200, 1e-100, 2.0**-27, 2.0**-10, 0.5, 1.0, 1.0000001, 3.0, 300.0, 2.0**30, 1e200, 1e300]
DOMAINS = dict.fromkeys(("log", "log2", "log10", "sqrt", "rsqrt"), POSITIVE)
DOMAINS |= {name: [2.0**-10, 0.5, 1.0, 1.5, 2.25, 7.75, 300.0, -0.25, -3.625] for name in ("lgamma", "digamma")}
DOMAINS |= dict.fromkeys(("acos", "asin", "atanh", "erfinv"), UNIT)
DOMAINS |= {
    "acosh": [1.0001, 1.5, 30.0, 1e8],
    "log1p": [x for x in LINE if x > -1],
    "reciprocal": [x for x in LINE if abs(x) > 1e-99],
}

CALLS = [(name, options) for name in FUNCTIONS for options in OPTIONS.get(name, [{}])]
NAMES = [f"{name}({', '.join(f'{k}={v}' for k, v in options.items())})" for name, options in CALLS]


@cache
def truth(call: int, x: float) -> list[tuple[mpf, mpf]]:
    """Value, first and second derivative, each with its own derivative, which says how well it is conditioned."""
    name, options = CALLS[call]
    f, exact = TRUTH[name], {key: value if isinstance(value, str) else mpf(value) for key, value in options.items()}

    def jet(t: mpf) -> list[mpf]:
        return by_differences(lambda v: f(v[0], **exact), np.array([t]), min(abs(t), mpf(1)) * mpf(10) ** -40)

    with digits(1400 if abs(x) < 1e-30 else 520 if abs(x) > 25 else 320 if abs(x) > 8 else 150):
        t = mpf(x)
        h = min(abs(t), mpf(1)) * mpf(10) ** -20
        here, ahead = jet(t), jet(t + h)
        return [(a, (b - a) / h) for a, b in zip(here, ahead, strict=True)]


def close(got: float, want: mpf, condition: mpf, epsilon: float, tiny: float) -> bool:
    """Whether `got` is `want` up to a few roundings of the result and of the argument."""
    if abs(want) > mpf(1) / tiny:
        return math.isinf(got) or abs(got) > 0.01 / tiny
    return abs(mpf(got) - want) <= 16 * epsilon * (abs(want) + condition) + 4 * tiny


@pytest.mark.parametrize("call", range(len(CALLS)), ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_function_and_derivatives_to_rounding(call: int, dtype: torch.dtype) -> None:
    (name, options), limits = CALLS[call], torch.finfo(dtype)
    x = torch.tensor(DOMAINS.get(name, LINE), dtype=dtype)
    x = x[(x != 0) & x.isfinite() & (x != options.get("low")) & (x != options.get("high"))]
    got = FUNCTIONS[name](x, **options)
    for position, t in enumerate(x.tolist()):
        for order, (want, slope) in enumerate(truth(call, t)):
            entry = got[order].double()[position].item()
            assert close(entry, want, abs(slope * t), limits.eps, limits.tiny), (
                f"derivative {order} of {name} at {t}: {entry}, should be {mpmath.nstr(want, 20)}"
            )


def test_each_function_is_tested() -> None:
    assert set(TRUTH) == set(FUNCTIONS)


@pytest.mark.parametrize("name", sorted(name for name, function in FUNCTIONS.items() if function.kinked))
def test_derivatives_at_a_kink_are_those_of_one_side(name: str) -> None:
    options = OPTIONS.get(name, [{}])[-1]
    place = options.get("low", options.get("high", 0.0))
    if name == "softplus":
        place = options["threshold"] / options["beta"]
    at, below, above = (
        FUNCTIONS[name](torch.tensor([x], dtype=torch.float64), **options) for x in (place, place - 1e-9, place + 1e-9)
    )
    assert min(abs(at[0] - below[0]), abs(at[0] - above[0])) < 1e-6
    for order in (1, 2):
        sides = (below[order].item(), above[order].item())
        assert any(abs(at[order].item() - side) < 1e-6 for side in sides) or (name == "abs" and at[order] == 0)


def test_power_at_zero_and_at_negative_bases() -> None:
    x = torch.tensor([0.0, -2.0], dtype=torch.float64)
    assert [entry.tolist() for entry in power(x, 3)] == [[0, -8], [0, 12], [0, -12]]
    assert [entry.tolist() for entry in power(x, 1)] == [[0, -2], [1, 1], [0, 0]]
    assert [entry.tolist() for entry in power(x, 0)] == [[1, 1], [0, 0], [0, 0]]
    assert [entry.item() for entry in power(x[1:], -2)] == pytest.approx([0.25, 0.25, 0.375], rel=1e-15)


@pytest.mark.parametrize("exponent", [0.5, -0.5, 1.5, 0.25, 3.0, -1.0, 2.2, 1e-3, 7.0])
def test_powers_to_rounding(exponent: float) -> None:
    x = torch.tensor(POSITIVE[2:-2], dtype=torch.float64)
    got = power(x, exponent)
    for position, t in enumerate(x.tolist()):
        with digits(250):
            jet = by_differences(lambda v: v[0] ** mpf(exponent), np.array([mpf(t)]), mpf(t) * mpf(10) ** -40)
            for order, want in enumerate(jet):
                condition = abs(want) * (abs(exponent) + 2)
                assert close(got[order][position].item(), want, condition, 2.0**-52, 2.0**-1022)
