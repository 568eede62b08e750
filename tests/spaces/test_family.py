"""Gaussian families: whitening, calibration, and covariances that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fisherflat as ff
from fisherflat.errors import CovarianceError, InputError

MATRIX = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.25], [0.0, 0.25, 1.5]], dtype=torch.float64)
VECTORS = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 5, 3)))


@pytest.mark.parametrize(
    ("covariance", "matrix"),
    [(2.5, 2.5 * np.eye(3)), ([1.0, 4.0, 0.25], np.diag([1.0, 4.0, 0.25])), (MATRIX, MATRIX.numpy())],
    ids=["number", "diagonal", "full"],
)
def test_whitened_inner_products_are_those_of_the_inverse_covariance(covariance, matrix: np.ndarray) -> None:
    # the Fisher information of the mean of N(mu, Sigma) is Sigma^-1
    family = ff.Gaussian(torch.tensor(covariance) if isinstance(covariance, list) else covariance)
    white = family.whiten(VECTORS).numpy()
    expected = np.einsum("abi,ij,acj->abc", VECTORS.numpy(), np.linalg.inv(matrix), VECTORS.numpy())
    np.testing.assert_allclose(np.einsum("abi,aci->abc", white, white), expected, rtol=1e-12, atol=1e-13)
    assert family.whiten(VECTORS.float()).dtype == torch.float32


def test_dimension_and_text() -> None:
    assert ff.Gaussian().ambient_dim is None and repr(ff.Gaussian(0.25)) == "Gaussian(0.25)"
    assert ff.Gaussian(MATRIX).ambient_dim == 3 and repr(ff.Gaussian(MATRIX)) == "Gaussian(full, D=3)"
    assert repr(ff.Gaussian(torch.ones(3))) == "Gaussian(diagonal, D=3)"
    with pytest.raises(CovarianceError, match="the map has 4 outputs, the covariance is made for 3"):
        ff.Gaussian(MATRIX).check(4)
    ff.Gaussian(2.0).check(4)


def test_calibration_is_the_mean_variance_of_the_outputs() -> None:
    outputs = np.random.default_rng(1).normal(size=(50, 3, 4)) * np.linspace(0.1, 10, 4) + 7
    family = ff.Gaussian.calibrated(torch.from_numpy(outputs))
    np.testing.assert_allclose(family.covariance.item(), outputs.var(axis=0, ddof=1).mean(), rtol=1e-13)
    # dimensionless: outputs in other units have the same curvature
    chart, u = ff.charts.identity(2), [0.3, 0.4]
    points = torch.from_numpy(np.random.default_rng(2).normal(size=(9, 2)))

    def f(x):
        return torch.cat([x, x.prod(-1, keepdim=True)], -1)

    curvature = [
        ff.StatisticalManifold(g, chart, ff.Gaussian.calibrated(g(points))).scalar_curvature(u)
        for g in (f, lambda x: 1000 * f(x))
    ]
    torch.testing.assert_close(*curvature)


nan, inf = float("nan"), float("inf")
SAMPLES = torch.from_numpy(np.random.default_rng(3).normal(size=(7, 8)))


@pytest.mark.parametrize(
    ("covariance", "words"),
    [
        (0.0, "must be positive; the smallest entry is 0"),
        (-1.0, "must be positive; the smallest entry is -1"),
        (nan, "NaN or infinite"),
        (inf, "NaN or infinite"),
        ([1.0, 0.0], "must be positive"),
        ([1.0, nan], "covariance holds 1 NaN"),
        ([[1.0, 2.0], [2.0, 1.0]], "not positive definite"),
        ([[1.0, 0.0], [0.0, 0.0]], "not positive definite"),
        ([[1.0, 0.5], [0.0, 1.0]], r"not symmetric .*0.5\); pass \(C \+ C.T\) / 2"),
        ([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], r"a number, a diagonal \[D\] or a matrix \[D, D\]; .* \[2, 3\]"),
        ([[[1.0]]], "a number, a diagonal"),
        ([], "the covariance is empty"),
        (torch.zeros(0, 0), "the covariance is empty"),
        (torch.tensor([1, 2]), "covariance has dtype torch.int64"),
        (torch.cov(SAMPLES.T), "singular to rounding .*fewer samples than outputs.*add a small multiple"),
        (torch.ones(4, 4) * 0.1, "singular to rounding"),
    ],
)
def test_bad_covariances_are_refused_at_construction(covariance, words: str) -> None:
    with pytest.raises(CovarianceError, match=words) as refused:
        ff.Gaussian(torch.tensor(covariance) if isinstance(covariance, list) else covariance)
    assert isinstance(refused.value, InputError)


def test_estimated_covariances_of_too_few_samples_are_all_refused() -> None:
    # Cholesky alone lets about one in seven of these pass, and whitening then amplifies rounding by 1e8
    for seed in range(30):
        samples = np.random.default_rng(seed).normal(size=(7, 8))
        with pytest.raises(CovarianceError):
            ff.Gaussian(torch.from_numpy(np.cov(samples.T)))


def test_badly_scaled_but_regular_covariances_are_taken() -> None:
    units = torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64)
    family = ff.Gaussian(units[:, None] * MATRIX * units)
    torch.testing.assert_close(family.whiten(VECTORS * units), ff.Gaussian(MATRIX).whiten(VECTORS))


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (torch.ones(1, 3), "at least two outputs"),
        (torch.tensor(1.0), "at least two outputs"),
        (torch.ones(5, 3), "do not vary"),
        (torch.tensor([1.0, nan]), "outputs holds 1 NaN"),
    ],
)
def test_calibration_refuses_outputs_without_spread(outputs: torch.Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ff.Gaussian.calibrated(outputs)


def test_a_covariance_of_the_wrong_size_is_refused_when_it_meets_the_map() -> None:
    with pytest.raises(CovarianceError, match="the map has 2 outputs, the covariance is made for 3"):
        ff.StatisticalManifold(lambda x: x, ff.charts.identity(2), ff.Gaussian(MATRIX))


@pytest.mark.parametrize("condition", [1e2, 1e10, 1e14])
@pytest.mark.parametrize("units", ["one", "many"])
def test_whitening_is_right_to_the_last_places_whatever_the_condition(condition: float, units: str) -> None:
    import mpmath

    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64, generator=generator))[0]
    sigma = axes * torch.logspace(0, -math.log10(condition), 12, dtype=torch.float64) @ axes.T
    scales = torch.exp2(torch.arange(12.0, dtype=torch.float64) * (5 if units == "many" else 0))
    sigma = (sigma + sigma.T) / 2 * scales * scales[:, None]
    found = ff.Gaussian(sigma).whiten(torch.eye(12, dtype=torch.float64)).T
    with mpmath.workdps(80):
        root = mpmath.inverse(mpmath.cholesky(mpmath.matrix(sigma.tolist())))
        off = [abs(found[i, j].item() / root[i, j] - 1) for i in range(12) for j in range(i + 1)]
        assert max(off) < 1e-15
