"""The verifier's products by integers enclose the exact products, and are as narrow as Arb's own."""

from __future__ import annotations

import math

import flint
import numpy as np
import pytest
import torch
from cases.ball_products import FACTORS, array, exact
from flint import arb, arb_mat
from hypothesis import given
from hypothesis import strategies as st

from fisherflat.verifier import _integers as integers
from fisherflat.verifier import _polynomials as polynomials

#: those whose right factor are floats
NAMES = sorted(name for name, factors in FACTORS.items() if factors()[1].dtype != object)


def inside(found: np.ndarray, a: np.ndarray, b: np.ndarray) -> bool:
    truth = exact(a, b)
    with flint.ctx.workprec(20000):
        return all(x.contains(truth[i, j]) for (i, j), x in np.ndenumerate(found))


def ends(a: np.ndarray) -> list[np.ndarray]:
    """Numbers at the ends of all balls."""
    with flint.ctx.workprec(20000):
        return [np.array([[f(arb(x)) for x in row] for row in a], dtype=object) for f in (arb.lower, arb.upper)]


@pytest.mark.parametrize("bits", [64, 192, 320, 640])
@pytest.mark.parametrize("name", NAMES)
def test_integers_enclose_the_exact_product(name: str, bits: int) -> None:
    with flint.ctx.workprec(bits):
        a, b = FACTORS[name]()
        found = integers.times(a, [b])
        other = np.array((arb_mat(*a.shape, a.ravel().tolist()) * arb_mat(*b.shape, b.ravel().tolist())).entries())
    assert inside(found, a, b)
    assert all(inside(found, end, b) for end in ends(a))
    for x, y in zip(found.ravel(), other, strict=True):
        assert x.overlaps(y)
        assert x.rad() <= y.rad() * 1.5 + abs(y).upper() * arb(2) ** (2 - bits)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("left", [True, False])
def test_what_is_not_finite_is_no_integer(number: float, left: bool) -> None:
    a, b = FACTORS["all bits"]()
    if left:
        a[2, 3] = arb(number)
    else:
        b[3, 2] = number
    finite = np.array([[x.is_finite() for x in row] for row in integers.times(a, [b])])
    expected = np.ones((5, 7), dtype=bool)
    expected[(2, slice(None)) if left else (slice(None), 2)] = False
    assert np.array_equal(finite, expected)


def test_more_summands_than_three_bytes_leave_room_for() -> None:
    n = 2**13 + 1
    a, b = np.full((2, n), 2.0**24 - 1), np.full((n, 1), -(2.0**53 - 1))
    found = integers.times(array(a), [b])
    assert all(x.contains(-(2**24 - 1) * (2**53 - 1) * n) for x in found.ravel())


def test_a_large_constant_multiplies_all_parts_by_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    times = integers.times
    monkeypatch.setattr(polynomials, "times", lambda *given: made.append(1) or times(*given))
    weight = torch.randn(160, 4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = polynomials.Polynomial([polynomials.exact(weight.T[:3]) / 3, None, polynomials.exact(weight.T[3:6])], 1)
    with flint.ctx.workprec(192):
        found = polynomials.times_constant(x, weight)
    assert made
    assert found.parts[1] is None
    for part, given_part in ((found.parts[0], x.parts[0]), (found.parts[2], x.parts[2])):
        assert part is not None
        assert inside(part, np.asarray(given_part, dtype=object), weight.numpy())


numbers = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True)


@given(st.data(), st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.sampled_from([30, 64, 192, 500]))
def test_any_floats_and_radii(data: st.DataObject, r: int, n: int, c: int, bits: int) -> None:
    def drawn(rows: int, columns: int, strategy: st.SearchStrategy[float]) -> np.ndarray:
        return np.array(data.draw(st.lists(strategy, min_size=rows * columns, max_size=rows * columns))).reshape(
            rows, columns
        )

    entries = st.one_of(st.just(0.0), numbers, st.floats(-2, 2), st.integers(-8, 8).map(float))
    with flint.ctx.workprec(bits):
        a = array(drawn(r, n, entries), drawn(r, n, st.one_of(st.just(0.0), numbers.map(abs))))
        b = drawn(n, c, entries)
        found = integers.times(a, [b])
    assert inside(found, a, b)
    assert all(inside(found, end, b) for end in ends(a))
