"""Products in slices enclose the exact products, and are as narrow as Arb's own."""

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

from fisherflat.jets.balls import _array as ball
from fisherflat.jets.balls import _slices as slices

NAMES = sorted(FACTORS)


def by_arb(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    product = arb_mat(*a.shape, a.ravel().tolist()) * arb_mat(*b.shape, b.ravel().tolist())
    return np.array(product.entries(), dtype=object).reshape(len(a), b.shape[1])


def corners(a: np.ndarray, seed: int) -> np.ndarray:
    """Numbers at an end of each ball."""
    up = np.random.default_rng(seed).integers(0, 2, a.shape).astype(bool)
    ends = np.frompyfunc(lambda x, u: arb(x).mid() + arb(x).rad() * (1 if u else -1), 2, 1)(a, up)
    return np.asarray(ends, dtype=object)


def assert_encloses(found: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    truth = exact(a, b)
    with flint.ctx.workprec(20000):
        inside = [x.contains(truth[i, j]) for (i, j), x in np.ndenumerate(found)]
    assert all(inside)


@pytest.mark.parametrize("bits", [64, 128, 256, 512])
@pytest.mark.parametrize("name", NAMES)
def test_slices_enclose_the_exact_product(name: str, bits: int) -> None:
    with flint.ctx.workprec(bits):
        a, b = FACTORS[name]()
        found = slices.multiplied(a, [np.ascontiguousarray(b.T)])
        assert found.shape == (a.shape[0], b.shape[1])
    assert_encloses(found, a, b)
    with flint.ctx.workprec(20000):
        ends = [(corners(a, seed), corners(b, seed + 9)) for seed in range(2)]
        ends.append(tuple(np.frompyfunc(lambda x: arb(x).upper(), 1, 1)(m) for m in (a, b)))  # type: ignore[arg-type]
        for first, second in ends:
            assert_encloses(found, np.asarray(first, dtype=object), np.asarray(second, dtype=object))


@pytest.mark.parametrize("step", [25, 26, 27])
def test_pairs_of_digits_are_exact(step: int) -> None:
    """Digits that are as large as they may be, `2^(w-1)`, above odd ones, wherever the first of them begins."""
    half = 2 ** (step - 1)
    with flint.ctx.workprec(128):
        for first in range(step):
            for digits in ([half, 1, half, 1], [-half, -1, -half, -1], [1, -half, -1, -half], [half, -1, 1, half]):
                whole = 0
                for digit in (2**first, *digits):
                    whole = whole * 2**step + digit
                for b in (np.array([[-1.0], [1.0]]), np.array([[1.0], [2.0**step - 1]])):
                    a = np.array([[arb(whole), arb(1)]], dtype=object)
                    assert_encloses(slices.multiplied(a, [np.ascontiguousarray(b.T)]), a, array(b))


@pytest.mark.parametrize("bits", [128, 256])
@pytest.mark.parametrize("name", NAMES)
def test_slices_are_as_narrow_as_arb(name: str, bits: int) -> None:
    with flint.ctx.workprec(bits):
        a, b = FACTORS[name]()
        found, other = slices.multiplied(a, [np.ascontiguousarray(b.T)]), by_arb(a, b)
        for x, y in zip(found.ravel(), other.ravel(), strict=True):
            assert x.overlaps(y)
            assert x.rad() <= y.rad() * 1.5 + abs(y).upper() * arb(2) ** (2 - bits)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("left", [True, False])
def test_what_is_not_finite_stays_where_arb_leaves_it(number: float, left: bool) -> None:
    a, b = FACTORS["all bits"]()
    if left:
        a[2, 3] = arb(number)
    else:
        b[3, 2] = number
    found, other = slices.multiplied(a, [b.T]), by_arb(a, b)
    finite, expected = (np.array([[x.is_finite() for x in row] for row in m]) for m in (found, other))
    assert np.array_equal(finite, expected)
    assert expected.sum() == (4 * 7 if left else 5 * 6)


def test_tiles_stand_side_by_side() -> None:
    a, b = FACTORS["all bits"]()
    found = slices.multiplied(a, [np.ascontiguousarray(part.T) for part in np.split(b, [2, 3], 1)])
    assert_encloses(found, a, b)


@pytest.mark.parametrize("shapes", [((0, 3), (3, 4)), ((2, 0), (0, 4)), ((2, 3), (3, 0)), ((0, 0), (0, 0))])
@pytest.mark.parametrize("constant", [True, False])
def test_empty_products(shapes: tuple[tuple[int, int], tuple[int, int]], constant: bool) -> None:
    a, b = (torch.ones(shape, dtype=torch.float64) for shape in shapes)
    right = ball.Constant(b) if constant else ball.BallArray(ball.balls(b))
    found = ball.product(ball.BallArray(ball.balls(a)), right)
    assert found.shape == (shapes[0][0], shapes[1][1])
    assert all(x == 0 for x in found.ravel())


def test_large_products_are_made_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    multiplied = slices.multiplied
    monkeypatch.setattr(slices, "multiplied", lambda *given: made.append(1) or multiplied(*given))
    weight = torch.randn(256, 256, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with flint.ctx.workprec(128):
        rows = ball.balls(weight[:100]) / 3
        found = ball.product(ball.BallArray(rows), ball.Constant(weight.mT))
    assert made
    assert_encloses(found, rows, ball.balls(weight.mT))


numbers = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True)
mantissas = st.one_of(st.just(0.0), numbers, st.floats(-2, 2), st.integers(-8, 8).map(float))


@given(st.data(), st.integers(1, 4), st.integers(2, 6), st.integers(1, 4), st.sampled_from([30, 53, 128, 300]))
def test_any_floats_and_radii(data: st.DataObject, r: int, n: int, c: int, bits: int) -> None:
    def drawn(rows: int, columns: int, strategy: st.SearchStrategy[float]) -> np.ndarray:
        cells = st.lists(strategy, min_size=rows * columns, max_size=rows * columns)
        return np.array(data.draw(cells)).reshape(rows, columns)

    radii = st.one_of(st.just(0.0), numbers.map(abs))
    with flint.ctx.workprec(bits):
        a = array(drawn(r, n, mantissas), drawn(r, n, radii))
        b = array(drawn(n, c, mantissas), drawn(n, c, radii)) if data.draw(st.booleans()) else drawn(n, c, mantissas)
        found = slices.multiplied(a, [np.ascontiguousarray(b.T)])
    assert_encloses(found, a, b)
    with flint.ctx.workprec(20000):
        assert_encloses(found, corners(a, 1), corners(b, 2))
