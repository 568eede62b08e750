"""Balls enclose the float rules and mpmath's derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flint
import mpmath
import numpy as np
import pytest
import torch
from cases.ball_jets import BITS, CASES, enclosed, on_a_plane
from cases.differences import taylor_jet
from cases.functions import OPTIONS, TRUTH
from flint import arb
from mpmath import mpf
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import EnclosureError, TraceError, UnsupportedOpError
from fisherflat.jets.balls import _array as ball
from fisherflat.jets.rules import FUNCTIONS, Irrational

# -- functions of one entry --------------------------------------------------------------------------------------------

CALLS = [(name, options) for name in FUNCTIONS for options in OPTIONS.get(name, [{}])]
POINTS = {
    "acosh": (1.5, 20.0),
    **dict.fromkeys(("log", "log2", "log10", "sqrt", "rsqrt", "lgamma", "digamma"), (0.3, 7.0)),
}
POINTS |= {"log1p": (-0.4, 3.0)} | dict.fromkeys(("acos", "asin", "atanh", "erfinv"), (-0.9, 0.3))


def number(x: arb) -> mpf:
    mantissa, exponent = (int(part) for part in x.man_exp())
    return mpmath.ldexp(mpf(mantissa), exponent)


def encloses(x: arb, truth: mpf, error: mpf) -> bool:
    return number(x.lower()) - error <= truth <= number(x.upper()) + error


@pytest.mark.parametrize(("name", "options"), CALLS, ids=[f"{name}-{options}" for name, options in CALLS])
def test_functions_enclose_their_derivatives(name: str, options: dict[str, Any]) -> None:
    exact = {key: value if isinstance(value, str) else mpf(value) for key, value in options.items()}
    for x in POINTS.get(name, (-1.3, 0.4, 2.6)):
        with flint.ctx.workprec(BITS), mpmath.workdps(70):
            triple = FUNCTIONS[name](ball.BallArray(ball.balls(torch.tensor([x]).double())), **options)
            for order, found in enumerate(triple):
                truth = mpmath.diff(lambda t: TRUTH[name](t, **exact), mpf(torch.tensor(x).double().item()), order)
                assert encloses(found.balls[0], truth, mpf(10) ** -45), order
                assert found.balls[0].rad() < 1e-30 * (1 + abs(float(truth)))


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_of_wide_balls_enclose_those_of_their_points(name: str) -> None:
    options = OPTIONS.get(name, [{}])[-1]
    with flint.ctx.workprec(BITS):
        for x in POINTS.get(name, (-1.3, 0.4, 2.6)):
            wide = FUNCTIONS[name](ball.BallArray(np.array([arb(x, 0.05)], dtype=object)), **options)
            for inside in (x - 0.04, x + 0.03):
                narrow = FUNCTIONS[name](ball.BallArray(np.array([arb(inside)], dtype=object)), **options)
                assert all(w.balls[0].contains(n.balls[0]) for w, n in zip(wide, narrow, strict=True))


@pytest.mark.parametrize("name", ["relu", "abs", "leaky_relu", "elu", "sign"])
def test_a_kink_inside_a_ball_is_refused(name: str) -> None:
    x = ball.BallArray(np.array([arb(0, 1e-20)], dtype=object))
    with pytest.raises(EnclosureError):
        FUNCTIONS[name](x) if name in FUNCTIONS else x.sign()


def test_constants_are_the_real_numbers_that_they_stand_for() -> None:
    with flint.ctx.workprec(200):
        assert (ball.ball(Irrational(2, 1, -1)) ** 2 * arb.pi()).contains(2)
        assert ball.ball(0.1).is_exact()
        assert ball.ball(0.1) != arb(1) / 10


def test_softmax_of_masked_and_of_huge_scores() -> None:
    scores = torch.tensor([[0.0, -math.inf, 1.0], [1e6, 0.0, torch.finfo(torch.float64).min]], dtype=torch.float64)
    with flint.ctx.workprec(BITS):
        y = ball.BallArray(ball.balls(scores)).softmax(1).balls
    assert y[0, 1] == 0
    assert abs(float(y[0, 2]) - math.e / (1 + math.e)) < 1e-15
    assert y[1, 0].contains(1)
    assert all(x.is_finite() for x in y.ravel())


@pytest.mark.parametrize(
    "shapes",
    [((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((5, 2, 3), (5, 3, 4)), ((4, 1, 2, 3), (6, 3, 2))],
)
@pytest.mark.parametrize("constant", [False, True])
def test_matrix_products(shapes: Any, constant: bool) -> None:
    a, b = (torch.randint(-9, 9, shape).double() for shape in shapes)
    left, right = (ball.BallArray(ball.balls(x)) for x in (a, b))
    if constant:
        right = ball.Constant(b)
    got = ball.product(left, right)
    assert np.array_equal(got.astype(float), (a @ b).numpy())
    if constant and b.dim() == 2:
        assert np.array_equal(
            ball.product(ball.Constant(b.T), ball.BallArray(ball.balls(a.mT))).astype(float), (a @ b).mT.numpy()
        )


# -- rules -------------------------------------------------------------------------------------------------------------

#: ops that the float engine knows and balls do not
WITHOUT_BALLS = {
    "upsample_bilinear2d", "upsample_linear1d", "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa", "convolution", "fractional_max_pool2d", "fractional_max_pool3d",
    "searchsorted", "bucketize", "linalg_lu", "linalg_lu_factor_ex", "_linalg_eigh", "_linalg_svd", "lu_unpack",
    "linalg_lu_solve", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not",
}  # fmt: skip
#: ops that are called at a jump or a tie in one of the cases (entries compared with themselves)
UNDECIDED = {
    "nan_to_num", "atan2", "eq", "ne", "le", "gt", "clamp.Tensor", "nansum", "_embedding_bag_forward_only",
    "_linalg_det", "nanmedian.dim", "nanmedian.default", "linalg_vector_norm",
}  # fmt: skip


def assert_float_jet_inside(
    f: Callable[[Tensor], Tensor], chart: ff.charts.Chart, balls: Any, rounding: float = 1e-11
) -> None:
    """The float value lies within rounding, relative to the largest entry, of a ball that is narrow."""
    u = torch.tensor([[0.01, -0.02]], dtype=torch.float64)
    floats = taylor_jet(ff.trace(f, chart.point), torch.stack([chart(u), *chart.basis[:, None]]), 2)[0]
    size = 1 + floats.abs().max().item()
    errors = [
        [abs(float(x) - value) for x, value in zip(*rows, strict=True)]
        for rows in zip(balls, floats.tolist(), strict=True)
    ]
    assert np.max(errors) <= rounding * size
    assert all(x.rad() < 1e-25 * size for x in balls.ravel())


@pytest.mark.parametrize(("name", "shape", "f"), CASES, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(CASES)])
def test_rules_enclose_the_float_engine(name: str, shape: tuple[int, ...], f: Callable[[Tensor], Tensor]) -> None:
    chart = on_a_plane(shape)
    try:
        balls = enclosed(f, chart)
    except UnsupportedOpError:
        assert name in WITHOUT_BALLS
        return
    except (EnclosureError, TraceError):
        assert name in UNDECIDED
        return
    assert_float_jet_inside(f, chart, balls)
