"""Frames of families are made in one place, or on a tape: the same numbers, and gradients that are differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import fisherflat as ff

#: family, outputs of one member
FAMILIES = {
    "categorical": (ff.families.Categorical(), 5),
    "bernoulli": (ff.families.Bernoulli(), 5),
    "poisson": (ff.families.Poisson(), 5),
    "diagonal": (ff.families.DiagonalGaussian(), 6),
    "isotropic": (ff.families.IsotropicGaussian(), 5),
    "full": (ff.families.FullGaussian(3), 9),
    "directions": (ff.families.VonMisesFisher(2.5), 5),
    "moving directions": (ff.families.VonMisesFisher(), 5),
    "independent": (ff.families.ExponentialFamily(lambda t: t.exp() + t.square()), 5),
    "blocks": (ff.families.ExponentialFamily(lambda t: t.logsumexp(-1) + t.square().sum(-1) / 3), 5),
}


#: what a point without geometry has no number for
SOME = ["christoffel", "second_fundamental_form", "mean_curvature", "volume_density", "ricci", "scalar_curvature"]


def manifold(name: str, **options: object) -> ff.StatisticalManifold:
    family, size = FAMILIES[name]
    draw = torch.Generator().manual_seed(3)
    inner, outer = (torch.randn(*s, generator=draw, dtype=torch.float64) / 2 for s in ((3, 7), (7, 2 * size)))
    return ff.StatisticalManifold(
        lambda u: ((u @ inner).tanh() @ outer).reshape(2, size) + 0.3, ff.charts.identity(3), family, **options
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_numbers_with_a_tape_and_without_are_the_same(name: str) -> None:
    u = torch.tensor([[0.2, -0.3, 0.1], [0.7, 0.4, -0.5]], dtype=torch.float64)
    plain, taped = manifold(name).at(u), manifold(name, differentiable=True).at(u.clone().requires_grad_())
    for quantity in ("metric", "christoffel", "scalar_curvature", "ricci"):
        torch.testing.assert_close(getattr(plain, quantity), getattr(taped, quantity).detach(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_differences(name: str) -> None:
    M, u = manifold(name, differentiable=True), torch.tensor([0.2, -0.3, 0.1], dtype=torch.float64, requires_grad=True)
    for quantity in ("scalar_curvature", "volume_density"):
        (found,) = torch.autograd.grad(getattr(M, quantity)(u), u)
        h = 2.0**-9
        steps = torch.eye(3, dtype=torch.float64) * h
        with torch.no_grad():
            near, far = (
                (getattr(M, quantity)(u + n * steps) - getattr(M, quantity)(u - n * steps)) / (2 * n * h)
                for n in (1, 2)
            )
            further = (getattr(M, quantity)(u + 4 * steps) - getattr(M, quantity)(u - 4 * steps)) / (8 * h)
        once, twice = (4 * near - far) / 3, (4 * far - further) / 3
        torch.testing.assert_close(found, (16 * once - twice) / 15, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("independent", "blocks")])
def test_frames_have_a_shape_where_there_are_no_numbers(name: str) -> None:
    family, size = FAMILIES[name]
    found = family.framed(ff.Jet(torch.empty(4, 10, 2 * size, device="meta", dtype=torch.float64), 3), (2, size))
    assert found.coefficients.shape[:2] == (4, 10)
    if found.ambient.curvature is not None:
        vectors = torch.empty(4, 3, found.coefficients.shape[-1], device="meta", dtype=torch.float64)
        assert found.ambient.curvature(vectors).shape == (4, 3, 3, 3, 3)


def test_the_frame_of_a_full_gaussian_is_as_wide_as_the_family() -> None:
    jet = torch.zeros(2, 6, 27, dtype=torch.float64)
    assert ff.families.FullGaussian(3).framed(ff.Jet(jet, 2), (3, 9)).coefficients.shape == (2, 6, 27)


def test_a_jet_is_left_as_it_was() -> None:
    for family, size in FAMILIES.values():
        for shape in ((size,), (2, size)):
            jet = torch.linspace(-0.4, 0.5, 6 * size * len(shape), dtype=torch.float64).reshape(1, 6, -1)
            before = jet.clone()
            family.framed(ff.Jet(jet, 2), shape)
            assert jet.equal(before)


def test_a_log_partition_may_look_at_its_numbers() -> None:
    def looking(t: torch.Tensor) -> torch.Tensor:
        assert float(t.detach().sum()) < 100
        return t.exp().sum()

    u = torch.tensor([[0.2, -0.3], [0.7, 0.4]], dtype=torch.float64)
    mean = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5)).double()
    found, wanted = (
        ff.StatisticalManifold(mean, ff.charts.identity(2), family).scalar_curvature(u)
        for family in (ff.families.ExponentialFamily(looking), ff.families.Poisson())
    )
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-11)


def test_variables_that_are_independent_at_a_point_alone_are_not_taken_for_independent() -> None:
    """The log-partition is even in its second parameter, so that its curvature is, too: at 0 it has no slope there."""
    family = ff.families.ExponentialFamily(lambda t: t[0].exp() + t[1] ** 2 / 2 + t[0] ** 2 * t[1] ** 2 / 5)
    M = ff.StatisticalManifold(lambda u: u, ff.charts.identity(2), family)
    at, near = M.scalar_curvature([[0.7, 0.0], [0.7, 2.0**-17]]).tolist()
    assert abs(near) > 1e-3
    assert at == pytest.approx(near, rel=1e-8)


@pytest.mark.parametrize(
    ("family", "mean", "said"),
    [
        (ff.families.DiagonalGaussian(), lambda u: torch.cat([u, u - 800]), "of a standard deviation is -800.*clamp"),
        (ff.families.DiagonalGaussian(), lambda u: torch.cat([u, (u - 1).log()]), "of a standard deviation is nan"),
        (ff.families.IsotropicGaussian(), lambda u: torch.cat([u, u[:1] - 800]), "of a standard deviation is -800"),
        (ff.families.FullGaussian(1), lambda u: u - 800, "of a standard deviation is -800"),
        (
            ff.families.DiagonalGaussian(),
            lambda u: torch.cat([u, 0 * u + 800]),
            "of a standard deviation is 800.*clamp",
        ),
        (ff.families.IsotropicGaussian(), lambda u: torch.cat([u, u[:1] + 800]), "of a standard deviation is 800"),
        (ff.families.FullGaussian(1), lambda u: u + 800, "of a standard deviation is 800"),
        (ff.families.Poisson(), lambda u: u + 800, "of a rate is 800, its exponential.*is not finite"),
        (ff.families.Poisson(), lambda u: u + 2000, "of a rate is 2000, its exponential.*is not finite"),
        (ff.families.VonMisesFisher(2.0), lambda u: torch.cat([u, u[:1]]), "length 0 and points nowhere"),
        (ff.families.VonMisesFisher(), lambda u: torch.cat([u, u[:1]]), "length 0 and points nowhere"),
    ],
)
def test_outputs_that_are_no_parameters_are_named(family: Any, mean: Any, said: str) -> None:
    M = ff.StatisticalManifold(mean, ff.charts.identity(2), family)
    with pytest.raises(ff.errors.MapError, match=rf"no parameters of the family at u = \[0, 0\]: .*{said}"):
        M.metric([0.0, 0.0])
    tolerant = ff.StatisticalManifold(mean, ff.charts.identity(2), family, degenerate="nan")
    with pytest.warns(ff.errors.DegenerateImmersionWarning):
        assert all(found.isnan().all() for found in tolerant.measure([0.0, 0.0], SOME).values())


@pytest.mark.parametrize(
    ("family", "mean", "said"),
    [
        (
            ff.families.DiagonalGaussian(),
            lambda u: torch.cat([u, u - 400]),
            "of a standard deviation is -400, and powers",
        ),
        (
            ff.families.DiagonalGaussian(),
            lambda u: torch.cat([u, u - 200]),
            "of a standard deviation is -200, and powers",
        ),
        (ff.families.FullGaussian(1), lambda u: u - 400, "of a standard deviation is -400, and powers"),
        (ff.families.FullGaussian(1), lambda u: u + 400, "of a standard deviation is 400, and powers"),
        (ff.families.Poisson(), lambda u: u - 800, "of a rate is -800, and powers"),
        (ff.families.Poisson(), lambda u: u - 2000, "of a rate is -2000, and powers"),
        (
            ff.families.FullGaussian(2),
            lambda u: torch.cat([u, u[:1], u[:1] + 1e200, u[1:]]),
            "entry of a Cholesky factor is 1e\\+200, so large",
        ),
    ],
)
def test_parameters_whose_powers_are_beyond_numbers_are_named(family: Any, mean: Any, said: str) -> None:
    with pytest.raises((ff.errors.MapError, ff.errors.DegenerateImmersionError), match=rf"\[0, 0\].*{said}.*"):
        ff.StatisticalManifold(mean, ff.charts.identity(2), family).scalar_curvature([0.0, 0.0])
    tolerant = ff.StatisticalManifold(mean, ff.charts.identity(2), family, degenerate="nan")
    with pytest.warns(ff.errors.DegenerateImmersionWarning):
        found = tolerant.measure([0.0, 0.0], ["metric", *SOME])
    metric = found.pop("metric")  # which a singular point has, and a number that is none is NaN
    assert metric.isnan().all() or metric.isfinite().all()
    assert all(value.isnan().all() for value in found.values())


@pytest.mark.parametrize("length", [1e-200, 1.0, 1e200])
def test_directions_do_not_depend_on_lengths_that_have_no_square(length: float) -> None:
    """A sphere whose radius has the square `c A(c) = c coth c - 1`."""
    chart = ff.charts.affine([0.0, 0.0, 1.0], torch.eye(3)[:2])
    M = ff.StatisticalManifold(lambda y: y * length, chart, ff.families.VonMisesFisher(3.0))
    assert M.scalar_curvature([0.2, 0.1]).item() == pytest.approx(2 / (3 / math.tanh(3) - 1), rel=1e-12)


@pytest.mark.parametrize("concentration", [1e-2, 1e-5, 1e-8])
def test_small_concentrations_bend_as_little_as_their_square(concentration: float) -> None:
    """`A(c) = c / 3 - c^3 / 45 + ...` on the sphere, so that K is `-t / 75` between directions, to first order."""
    chart = ff.charts.affine([0.0, 0.0, concentration], torch.eye(3)[:2])
    found = ff.StatisticalManifold(lambda y: y, chart, ff.families.VonMisesFisher()).measure(
        [0.0, 0.0], ["ambient_scalar_curvature"], error=True
    )
    wanted = -2 * concentration**2 / 75
    assert found["ambient_scalar_curvature"].item() == pytest.approx(wanted, rel=3 * concentration**2 + 1e-11)
