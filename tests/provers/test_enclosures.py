"""Enclosures of known curvature contain it."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import flint
import mpmath
import pytest
import torch
from cases import maps as reference
from flint import arb, fmpq
from mpmath import iv
from torch import Tensor

import fisherflat as ff
from fisherflat.certificates import bounds

Map = Callable[[Tensor], Tensor]


def exactly(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Map:
    """The map of a reference case without rounded constants: roots and frozen patterns are nodes of its graph.

    What is added of the input, times zero, changes no value; it keeps the trace from folding them into floats.
    """
    zero: dict[str, Tensor] = {}
    exact = SimpleNamespace(sqrt=lambda n: (zero["here"] + n).sqrt(), inf=math.inf)
    monkeypatch.setattr(reference, "math", exact)

    def f(x: Tensor) -> Tensor:
        zero["here"] = 0 * x.sum()
        if case.get("reading") == "frozen_pattern":
            pattern = reference.pattern(case, reference.double(case["tokens"]) + zero["here"])
            return reference.attend(case, x, pattern)
        return reference.FUNCTIONS[case["kind"]](case)(x)

    return f


def known(number: Any) -> Any:
    """What a reference value of 25 digits leaves open: one unit of its last place to either side, as an interval."""
    if isinstance(number, list):
        return iv.matrix([[known(entry) for entry in row] for row in number])
    value = mpmath.mpf(number)
    unit = mpmath.mpf(10) ** (mpmath.floor(mpmath.log10(abs(value))) - 24) if value else 0
    return iv.mpf([value - unit, value + unit])


def truth(expected: dict[str, Any], plane: Any) -> Any:
    """The sectional curvature from the 25-digit values; in three dimensions the Ricci tensor determines it.

    `R(x, y, y, x) = P(x, x) g(y, y) + P(y, y) g(x, x) - 2 P(x, y) g(x, y)` with `P = Ric - scal g / 4`. An interval:
    with x and y orthonormal, which any basis of the plane may be, the terms of `g(x, x)` are as large as the condition
    number of the metric, and as many of the 25 digits are lost.
    """
    scal = known(expected["scalar_curvature"])
    if plane is None:
        return scal / 2

    def form(a: Any, u: Any, v: Any) -> Any:
        return (u.T * a * v)[0]

    g = mpmath.matrix(expected["metric"])
    x, y = (mpmath.matrix(vector) for vector in plane)
    x /= mpmath.sqrt(form(g, x, x))
    y -= form(g, x, y) * x
    y /= mpmath.sqrt(form(g, y, y))
    x, y = (iv.matrix(list(vector)) for vector in (x, y))
    g, ricci = known(expected["metric"]), known(expected["ricci"])
    p = ricci - g * (scal / 4)
    area = form(g, x, x) * form(g, y, y) - form(g, x, y) ** 2
    return (form(p, x, x) * form(g, y, y) + form(p, y, y) * form(g, x, x) - 2 * form(p, x, y) * form(g, x, y)) / area


def test_enclosures_contain_the_reference_values(
    reference_case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, expected = reference.as_functions(reference_case), reference_case["expected"]
    certificate = ff.certify(exactly(reference_case, monkeypatch), case.chart, case.family, at=case.at)
    with mpmath.workdps(60):
        monkeypatch.setattr(iv, "dps", 60)
        K = truth(expected, certificate.plane)
        if certificate.enclosure is None:
            assert certificate.verdict == "flat"
            assert K == 0
            return
        low, high = (mpmath.mpf(str(bound)) for bound in certificate.enclosure)
        least, most = mpmath.mpf(K.a), mpmath.mpf(K.b)
        size = max(abs(least), abs(most))
        assert low <= most and least <= high
        assert most - least <= mpmath.mpf(10) ** -20 * (1 + size)  # enough digits are left to compare with
        assert high - low <= mpmath.mpf(10) ** -25 * (size or 1)
        assert (certificate.verdict == "curved") == (size > 0)


def saddle(u: Tensor) -> Tensor:
    return torch.stack([u[0], u[1], u[0] * u[1]])


def bowl(u: Tensor) -> Tensor:
    return torch.cat([u, (u * u).sum()[None]])


def test_the_sign_is_that_of_the_surface() -> None:
    assert ff.certify(saddle, ff.charts.identity(2), at=[0.0, 0.0]).enclosure[1] < 0
    assert ff.certify(bowl, ff.charts.identity(2), at=[0.0, 0.0]).enclosure[0] > 0


def test_bounds_are_exact_decimals() -> None:
    low, high = ff.certify(bowl, ff.charts.identity(2), at=[1.0, 0.0]).enclosure  # 4 / 25
    assert low < Fraction(4, 25) < high
    assert Fraction(str(low)) == low
    assert float(high) == 0.16
    assert f"{high:.3f}" == "0.160"


@pytest.mark.parametrize("covariance", [4.0, [1.0, 4.0, 0.25], [[2.0, 0.5, 0.0], [0.5, 1.0, 0.25], [0.0, 0.25, 3.0]]])
def test_covariances(covariance: Any) -> None:
    family = ff.Gaussian(torch.tensor(covariance, dtype=torch.float64))
    chart, at = ff.charts.identity(2), torch.tensor([0.25, -0.5], dtype=torch.float64)
    low, high = ff.certify(saddle, chart, family, at=at).enclosure
    found = ff.StatisticalManifold(saddle, chart, family).scalar_curvature(at).item() / 2
    assert float(low) == pytest.approx(found, rel=1e-12)
    assert float(high) == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("radius", [2.0**-20, 2.0**-10])
def test_a_claim_on_a_box_holds_on_the_box(radius: float) -> None:
    torch.manual_seed(2)
    layer = ff.layers.SelfAttention(4, gate=ff.layers.Gate("silu")).double()
    chart = ff.charts.token(torch.randn(3, 4), 1, torch.randn(2, 4))
    centre = torch.tensor([0.25, -0.5], dtype=torch.float64)
    certificate = ff.certify(layer, chart, at=centre, radius=radius)
    assert certificate.verdict == "curved"
    low, high = certificate.enclosure
    u = centre + radius * (2 * torch.rand(50, 2, dtype=torch.float64) - 1)
    K = ff.StatisticalManifold(layer, chart).scalar_curvature(u) / 2
    assert all(low <= k <= high for k in K.tolist())
    assert sum(Fraction(1, 2 ** len(cell)) for cell in certificate.cells) == 1


def test_a_box_that_is_too_wide_is_bisected_and_one_with_a_flat_point_is_undecided() -> None:
    def wave(u: Tensor) -> Tensor:  # curved like a bowl where the cosines are positive
        return torch.cat([u, u.cos().sum()[None]])

    chart = ff.charts.identity(2)
    certificate = ff.certify(wave, chart, at=[0.0, 0.0], radius=0.75)
    assert certificate.verdict == "curved"
    assert len(certificate.cells) > 1
    assert ff.certify(wave, chart, at=[0.0, 0.0], radius=2.0).verdict == "undecided"


def test_precision_is_doubled_where_it_does_not_suffice() -> None:
    def faint(
        u: Tensor,
    ) -> Tensor:  # second derivatives hidden under a parametrisation that bends a thousand times more
        v = u + 1000 * (u * u).sum()
        return torch.cat([v, 1e-6 * (v * v).sum()[None]])

    certificate = ff.certify(faint, ff.charts.identity(2), at=[0.3, 0.2], precision=24)
    assert certificate.verdict == "curved"
    assert certificate.precision in (48, 96)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("exponent", [-40000, -25000, -20500, -3000, -10])
def test_bounds_lie_outside_however_small_a_ball_is(sign: int, exponent: int) -> None:
    """Below all floats they are zero on one side: something tiny there would be a false bound."""
    with flint.ctx.workprec(128):
        ball = sign * (arb(3) / 7) * arb(2) ** exponent
        low, high = bounds(ball, 128)
        assert arb(fmpq(low.numerator, low.denominator)) <= ball.lower()
        assert arb(fmpq(high.numerator, high.denominator)) >= ball.upper()


def test_a_curvature_below_all_floats_is_not_claimed() -> None:
    """(u, v, c u v) with c = exp(-10^4), whose curvature is about -c^2."""

    def saddle(x: Tensor) -> Tensor:
        return torch.stack([x[0], x[1], x[0] * x[1] * torch.exp(x[0] - 1e4)])

    found = ff.certify(saddle, ff.charts.identity(2), at=[0.25, 0.5])
    assert found.verdict == "undecided"
    assert ff.verify(found, saddle, ff.charts.identity(2)).ok
