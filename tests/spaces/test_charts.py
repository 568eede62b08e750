"""Charts: where coordinates lead, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import FisherflatError, InputError, PrecisionWarning


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_affine_moves_a_point_of_any_shape_along_its_basis() -> None:
    point, basis, u = random(2, 3), random(4, 2, 3, seed=1), random(5, 6, 4, seed=2)
    chart = ff.charts.affine(point, basis)
    expected = point.numpy() + np.einsum("abk,kxy->abxy", u.numpy(), basis.numpy())
    np.testing.assert_allclose(chart(u).numpy(), expected, rtol=1e-14, atol=1e-14)
    assert chart.k == 4
    assert ff.charts.affine(torch.tensor(1.5), torch.tensor([2.0, 3.0]))(torch.tensor([1.0, 1.0])) == 6.5


def test_numbers_are_taken_as_they_come_and_kept_in_float64() -> None:
    for point in ([0.1, 0.2], np.array([0.1, 0.2]), np.array([0.2, 0.1])[::-1], torch.tensor([0.1, 0.2])):
        chart = ff.charts.affine(point, np.eye(2))
        assert chart.point.dtype == chart.basis.dtype == torch.float64
    assert ff.charts.affine([0.1, 0.2], [[1, 0], [0, 1]])([1.0, 2]).tolist() == pytest.approx([1.1, 2.2], rel=1e-15)
    assert chart(torch.ones(2, dtype=torch.float32)).dtype == torch.float32  # the precision of the coordinates


def test_a_chart_stays_what_it_was_when_the_hidden_states_change() -> None:
    hidden, weights = random(3, 2), torch.nn.Parameter(random(2, 2))
    chart = ff.charts.token(hidden, 0, weights)
    before = chart.point.clone()
    hidden.zero_()
    assert torch.equal(chart.point, before)
    assert not chart.basis.requires_grad


@pytest.mark.parametrize("index", [1, -2])
def test_token_moves_one_token_only(index: int) -> None:
    hidden, basis, u = random(3, 4), random(2, 4, seed=1), random(2, seed=2)
    moved = ff.charts.token(hidden, index, basis)(u).numpy()
    expected = hidden.numpy().copy()
    expected[1] += u.numpy() @ basis.numpy()
    np.testing.assert_allclose(moved, expected, rtol=1e-14)


def test_simplex_has_barycentric_coordinates() -> None:
    vertices = random(3, 2, 2)
    chart = ff.charts.simplex(vertices)
    corners = chart(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64))
    np.testing.assert_allclose(corners.numpy(), vertices.numpy(), rtol=1e-14, atol=1e-15)
    middle = chart(torch.full((2,), 1 / 3, dtype=torch.float64))
    np.testing.assert_allclose(middle.numpy(), vertices.numpy().mean(0), rtol=1e-14, atol=1e-15)


def test_attention_weights_mix_values() -> None:
    values, weights = random(4, 3), np.array([0.1, 0.2, 0.3, 0.4])
    chart = ff.charts.attention_weights(values)
    assert chart.k == 3
    np.testing.assert_allclose(chart(weights[:3]).numpy(), weights @ values.numpy(), rtol=1e-14)


def test_identity_is_the_coordinates() -> None:
    u = random(5, 3)
    torch.testing.assert_close(ff.charts.identity(3)(u), u, rtol=1e-15, atol=0)


# -- principal directions ----------------------------------------------------------------------------------------------


def spread_states() -> np.ndarray:
    """Tokens with known spread: 3 along (1, 1, 0, 0) / √2, 2 along (0, 0, 1, 0), 1/2 along (0, 0, 0, 1)."""
    directions = np.array([[1, 1, 0, 0], [0, 0, 2**0.5, 0], [0, 0, 0, 2**0.5]]) / 2**0.5
    # the columns are orthogonal, sum to zero and have a sample variance of 1
    signs = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [1, 1, -1, -1, 1, 1, -1, -1], [1, -1, 1, -1, 1, -1, 1, -1]]).T
    return 5 + (signs * (7 / 8) ** 0.5 * [3, 2, 0.5]) @ directions


def test_one_unit_along_a_principal_coordinate_is_one_standard_deviation() -> None:
    states = spread_states()
    chart = ff.charts.principal(states, 2, k=3)
    expected = np.zeros((3, 8, 4))
    expected[0, 2], expected[1, 2], expected[2, 2] = [3 / 2**0.5] * 2 + [0, 0], [0, 0, 2, 0], [0, 0, 0, 0.5]
    np.testing.assert_allclose(chart.basis.numpy(), expected, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(chart.point.numpy(), states)


@pytest.mark.parametrize("shape", [(20, 6), (5, 4, 6)])
def test_principal_coordinates_are_uncorrelated_and_of_unit_variance(shape: tuple[int, ...]) -> None:
    states = random(*shape) @ random(6, 6, seed=1)
    chart = ff.charts.principal(states, -1, k=3)
    assert chart.point.shape == shape[-2:]
    np.testing.assert_array_equal(chart.point.numpy(), states.reshape(-1, *shape[-2:])[0].numpy())
    directions, rows = chart.basis[:, -1].numpy(), states.reshape(-1, 6).numpy()
    assert (chart.basis[:, :-1] == 0).all()
    # coordinates of the states themselves: least squares onto the directions
    coordinates = np.linalg.lstsq(directions.T, (rows - rows.mean(0)).T, rcond=None)[0]
    np.testing.assert_allclose(np.cov(coordinates), np.eye(3), rtol=0, atol=1e-12)
    # and no direction has more spread than the first, none orthogonal to it than the second, ...
    np.testing.assert_allclose(np.sum(directions**2, 1), np.linalg.eigvalsh(np.cov(rows.T))[::-1][:3], rtol=1e-12)


def test_principal_directions_do_not_depend_on_the_sign_that_an_algorithm_finds() -> None:
    states = random(10, 4)
    flipped = ff.charts.principal(2 * states.mean(0) - states, 0)  # mirrored: same spread
    np.testing.assert_allclose(flipped.basis.numpy(), ff.charts.principal(states, 0).basis.numpy(), atol=1e-13)
    assert (flipped.basis[:, 0].amax(-1) >= -flipped.basis[:, 0].amin(-1)).all()


def test_a_chart_shows_its_kind_and_moves_between_devices() -> None:
    chart = ff.charts.principal(random(10, 4), 0)
    assert repr(chart) == "Chart(principal, k=2, shape=[10, 4])"
    moved = chart.to("cpu")
    assert torch.equal(moved.point, chart.point) and moved.kind == "principal"


# -- bad input ---------------------------------------------------------------------------------------------------------

nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ff.charts.affine([0.0, nan], [[1.0, 0.0]]), r"point holds 1 NaN .* index \[1\]; remove"),
        (lambda: ff.charts.affine([0.0, 1.0], [[inf, 0.0]]), r"basis holds 1 NaN or infinite"),
        (lambda: ff.charts.affine([0.0, 1.0], [[1.0, 0.0, 0.0]]), r"point of shape \[2\] needs a basis of shape \[k"),
        (lambda: ff.charts.affine([0.0, 1.0], [1.0, 0.0]), r"needs a basis of shape"),
        (lambda: ff.charts.affine([0.0, 1.0], torch.zeros(0, 2)), "at least one direction"),
        (
            lambda: ff.charts.affine(torch.tensor([1, 2]), torch.eye(2)),
            r"point has dtype torch.int64.*point.double\(\)",
        ),
        (lambda: ff.charts.affine(np.array([1, 2]), torch.eye(2)), "point has dtype torch.int64"),
        (lambda: ff.charts.affine(torch.tensor([1j, 2]), torch.eye(2)), "point has dtype torch.complex64.*real"),
        (lambda: ff.charts.affine("here", torch.eye(2)), "point cannot be read as numbers"),
        (lambda: ff.charts.affine([[1.0], [1.0, 2.0]], torch.eye(2)), "point cannot be read as numbers"),
        (lambda: ff.charts.token(random(3, 4), 3, random(2, 4)), "index 3 is outside a sequence of 3 tokens"),
        (lambda: ff.charts.token(random(3, 4), 0, random(2, 3)), r"basis must be \[k, 4\] .* width 4"),
        (lambda: ff.charts.token(random(4), 0, random(2, 4)), r"hidden must be \[tokens, width\]"),
        (lambda: ff.charts.simplex(random(1, 4)), "at least two points"),
        (lambda: ff.charts.attention_weights(random(1, 4)), "values must be .* n >= 2"),
        (lambda: ff.charts.attention_weights(random(4)), "values must be"),
        (lambda: ff.charts.identity(0), "dim must be at least 1"),
        (lambda: ff.charts.principal(random(4), 0), r"hidden must be \[n, d\] or \[m, n, d\]"),
        (lambda: ff.charts.principal(random(3, 4), 0, k=3), "3 principal directions.*has 2; pass more tokens"),
        (lambda: ff.charts.principal(random(1, 4), 0, k=1), "1 hidden states has 0; pass more tokens"),
        (lambda: ff.charts.principal(random(1, 4).expand(5, 4), 0, k=1), "has 0; pass more tokens that differ"),
        (lambda: ff.charts.identity(2)(torch.zeros(3)), r"axis of length k = 2; it is torch.float32 of shape \[3\]"),
        (lambda: ff.charts.identity(2)(torch.tensor([0, 1])), "u must be floating-point"),
    ],
)
def test_bad_charts_are_refused(make, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        make()
    assert isinstance(refused.value, FisherflatError) and isinstance(refused.value, ValueError)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_half_precision_is_promoted_with_a_note(dtype: torch.dtype) -> None:
    hidden = random(3, 4).to(dtype)
    with pytest.warns(PrecisionWarning, match=f"hidden has dtype {dtype} and is promoted"):
        chart = ff.charts.token(hidden, 0, random(2, 4))
    assert torch.equal(chart.point, hidden.double())
