"""Curvature in all directions from random planes, against exact curvature and closed forms."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import pytest
import torch
from cases.surfaces import random
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import DegenerateImmersionError, DegenerateImmersionWarning, InputError, PrecisionWarning
from fisherflat.geometry import Bounded

#: enough for a bias of a tenth of a standard error of one run
SEEDS = 1000


def sphere(radius: float) -> object:
    return lambda u: torch.cat([u, (radius**2 - u.square().sum()).sqrt()[None]])


def torus(u: Tensor) -> Tensor:
    return torch.cat([u.cos(), 2 * u.sin() + u.cos()])


def spheres(u: Tensor) -> Tensor:
    """Of dimension 20 and radius 1, and of dimension 30 and radius 2."""
    a, b = u[:20], u[20:]
    return torch.cat([a, (1 - a.square().sum()).sqrt()[None], b, (4 - b.square().sum()).sqrt()[None]])


def bowl(u: Tensor) -> Tensor:
    """Bent in all directions, in some of them more."""
    return torch.cat([u, (u[::2].square().sum() + 2 * u[1::2].square().sum())[None] / 2])


def mixed(u: Tensor) -> Tensor:
    """Bent to either side, so that planes nearly cancel."""
    a, b = u[::2], u[1::2]
    return torch.cat([u, torch.stack([(a @ a - b @ b) / 2, a.sum() * b.sum() / 3, u @ u / 6])])


@cache
def layer(name: str) -> ff.StatisticalManifold:
    """Reference layers of k = 8, 12 and 24."""
    generator = torch.Generator().manual_seed(0)
    if name == "bowl":
        return ff.StatisticalManifold(bowl, ff.charts.identity(24))
    module = {"gated MLP": ff.layers.GatedMLP(20, 30), "attention": ff.layers.SelfAttention(12, heads=2)}[name].double()
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) / weight.shape[-1] ** 0.5)
    if name == "gated MLP":
        return ff.StatisticalManifold(module, ff.charts.affine(random(20), random(12, 20, seed=1)))
    return ff.StatisticalManifold(module, ff.charts.token(random(4, 12), 1, random(8, 12, seed=1)))


@pytest.mark.parametrize("name", ["attention", "gated MLP", "bowl"])
def test_it_is_unbiased_and_its_interval_holds_the_truth(name: str) -> None:
    M = layer(name)
    u = torch.zeros(M.k)
    exact = M.scalar_curvature(u).item()
    found = [M.sampled_scalar_curvature(u, error=0.1, seed=seed) for seed in range(SEEDS)]
    values = torch.tensor([one.value for one in found], dtype=torch.float64)
    assert all(one.reached and one.standard_error <= 0.1 * abs(one.value) for one in found)
    assert abs(values.mean().item() - exact) < 3 * values.std().item() / SEEDS**0.5
    held = sum(one.interval[0] <= exact <= one.interval[1] for one in found) / SEEDS
    assert 0.92 <= held <= 0.98
    assert {one.estimator for one in found} <= {"pairs", "exact trace and pairs"}


def test_no_more_planes_are_measured_than_the_error_takes() -> None:
    """Of 100 seeds, beside what the spread of their planes takes; 32 planes as a pilot would ask for 80 times more."""
    M = ff.StatisticalManifold(mixed, ff.charts.identity(10))
    exact = M.scalar_curvature(torch.zeros(10)).item()
    found = [M.sampled_scalar_curvature(torch.zeros(10), error=0.1, seed=seed) for seed in range(100)]
    taken = torch.tensor([one.pairs for one in found], dtype=torch.float64)
    needed = torch.tensor([one.pairs * (one.standard_error / (0.1 * exact)) ** 2 for one in found]).median()
    assert taken.mean() < 2 * needed and taken.max() < 4 * needed


def test_both_estimators_are_chosen_where_they_pay() -> None:
    assert layer("bowl").sampled_scalar_curvature(torch.zeros(24), 0.01).estimator == "exact trace and pairs"
    M = ff.StatisticalManifold(spheres, ff.charts.identity(50))
    assert M.sampled_scalar_curvature(torch.zeros(50)).estimator == "pairs"


@pytest.mark.parametrize("basis", ["its own", "nearly parallel"])
def test_a_sphere_of_dimension_300(basis: str) -> None:
    chart = ff.charts.identity(300)
    if basis == "nearly parallel":  # about a common direction, condition of the metric 3e10
        chart = ff.charts.affine(torch.zeros(300), 1e-3 * random(300, 300) + 0.1 * torch.ones(300))
    M = ff.StatisticalManifold(sphere(2.0), chart)
    found = M.sampled_scalar_curvature(torch.zeros(300))
    assert found.value == pytest.approx(300 * 299 / 4, rel=1e-9)
    assert found.reached and found.standard_error < 1e-9 * found.value
    assert found.positive.value == 1 and found.negative.value == 0
    assert found.mean_sectional.value == pytest.approx(0.25) and found.quantile(0.1).value == pytest.approx(0.25)
    assert found.verdict == "curved" and found.rank == 300


def test_a_product_of_spheres() -> None:
    M = ff.StatisticalManifold(spheres, ff.charts.identity(50))
    found = M.sampled_scalar_curvature(torch.full((50,), 0.05), 0.01)
    assert abs(found.value - (20 * 19 + 30 * 29 / 4)) < 4 * found.standard_error
    assert found.standard_error <= 0.01 * found.value
    # between that of a plane of two spheres and that of the smaller sphere
    assert float(found.planes.min()) > 0 and float(found.planes.max()) < 1
    low, median, high = (found.quantile(q) for q in (0.05, 0.5, 0.95))
    assert low.high < median.low < median.high < high.low


def test_a_flat_torus_is_flat_to_its_error() -> None:
    found = ff.StatisticalManifold(torus, ff.charts.identity(40)).sampled_scalar_curvature(torch.linspace(-1, 2, 40))
    assert abs(found.value) < 1e-10 and found.reached and found.verdict == "flat to its error"
    assert (found.positive.value, found.negative.value) == (0, 0)
    assert str(found).endswith("flat to its error")


def test_as_many_directions_as_outputs_are_flat_by_proof() -> None:
    found = ff.StatisticalManifold(lambda u: u + u**3, ff.charts.identity(9)).sampled_scalar_curvature(torch.ones(9))
    assert (found.value, found.pairs, found.verdict, found.interval) == (0, 0, "flat (proved)", (0, 0))
    assert found.positive == Bounded(0, 0, 0) and "proved" in str(found)


@pytest.mark.parametrize(
    ("last", "scal", "is_open"),
    [
        (lambda u: u[0] ** 3, 0.0, False),
        (lambda u: u[1] ** 2, 0.0, False),  # a cylinder
        (lambda u: u[0] ** 2 + u[1] ** 2, 8.0, False),
        (lambda u: u[2] ** 5 * u[0], 0.0, False),
        (lambda u: 0 * u[0] + 7, 0.0, True),
    ],
)
def test_an_open_piece_of_space_is_one_where_no_other_output_moves_nearby(
    last: object, scal: float, is_open: bool
) -> None:
    """At 0, where the derivative of none of the last outputs is other than zero."""
    surface = lambda u: torch.cat([u.sinh(), last(u)[None]])  # noqa: E731
    found = ff.StatisticalManifold(surface, ff.charts.identity(3)).sampled_scalar_curvature(torch.zeros(3))
    assert found.value == pytest.approx(scal, abs=1e-12 + 3 * found.standard_error)
    assert found.verdict == ("curved" if scal else "flat to its error")
    assert found.open == is_open == ("open piece of space" in str(found))


@pytest.mark.parametrize("memory", [2_000, 200_000])
def test_blocks_do_not_matter(memory: int) -> None:
    whole, chart = layer("gated MLP"), layer("gated MLP").chart
    M = ff.StatisticalManifold(whole.mean, chart, memory=40 * memory)
    u = torch.zeros(12)
    one, other = (m.sampled_scalar_curvature(u, seed=3) for m in (whole, M))
    assert one.value == pytest.approx(other.value, rel=1e-9) and one.pairs == other.pairs


def test_the_engines_agree_plane_by_plane() -> None:
    M = layer("attention")
    other = ff.StatisticalManifold(M.mean, M.chart, engine="autodiff")
    one, two = (m.sampled_scalar_curvature(torch.zeros(8), 0.5, seed=5) for m in (M, other))
    assert torch.allclose(one.planes, two.planes, rtol=1e-9, atol=1e-12)


def test_a_seed_says_which_planes_and_no_global_state_is_touched() -> None:
    M, u = layer("gated MLP"), torch.zeros(12)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (M.sampled_scalar_curvature(u, seed=seed).value for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(before, torch.get_rng_state())


# -- families ----------------------------------------------------------------------------------------------------------


def test_classes_that_are_reached_freely_have_the_curvature_of_their_simplex() -> None:
    chart = ff.charts.affine(torch.zeros(41), torch.eye(41)[:40])
    M = ff.StatisticalManifold(lambda z: z, chart, ff.families.Categorical())
    found = M.sampled_scalar_curvature(torch.linspace(-1, 1, 40))
    assert found.value == pytest.approx(40 * 39 / 4, rel=1e-9)
    assert found.mean_sectional.value == pytest.approx(0.25)


def test_moving_gaussians_are_hyperbolic_planes() -> None:
    M = ff.StatisticalManifold(lambda z: z, ff.charts.identity(6), ff.families.DiagonalGaussian())
    found = M.sampled_scalar_curvature(torch.linspace(-1, 1, 6), 0.02)
    assert abs(found.value + 3) < 4 * found.standard_error
    assert found.positive.value == 0 and float(found.planes.min()) > -0.5 - 1e-12


@pytest.mark.parametrize(
    "family", [ff.families.Categorical(), ff.families.Poisson(), ff.families.DiagonalGaussian()], ids=repr
)
def test_a_layer_in_a_family_with_a_metric_of_its_own(family: ff.families.ParametricFamily) -> None:
    mean = layer("gated MLP").mean
    chart = ff.charts.affine(random(20), random(6, 20, seed=1))
    M = ff.StatisticalManifold(mean, chart, family)
    found = M.sampled_scalar_curvature(torch.zeros(6), 0.05)
    assert abs(found.value - M.scalar_curvature(torch.zeros(6)).item()) < 4 * found.standard_error


def test_a_family_whose_frames_follow_the_directions_is_refused() -> None:
    M = ff.StatisticalManifold(lambda u: u.sin(), ff.charts.identity(5), ff.families.NextToken(random(30, 5)))
    with pytest.raises(InputError, match="frames that follow"):
        M.sampled_scalar_curvature(torch.ones(5))


# -- a trained layer ---------------------------------------------------------------------------------------------------


def test_a_trained_attention_layer(minilm_path: Path) -> None:
    block = ff.load(minilm_path).blocks("The committee that reviewed the proposals was not entirely convinced.")[2]
    x = block.attention_input.double()
    family = ff.Gaussian.calibrated(block.attention(x).detach())
    some = ff.StatisticalManifold(block.attention, ff.charts.token(x, 1, random(16, 384)), family)
    found = some.sampled_scalar_curvature(torch.zeros(16), 0.03)
    assert abs(found.value - some.scalar_curvature(torch.zeros(16)).item()) < 4 * found.standard_error
    together = ff.charts.token(x, range(len(x)), torch.eye(384, dtype=torch.float64))
    every = ff.StatisticalManifold(block.attention, together, family).sampled_scalar_curvature(torch.zeros(384))
    assert every.reached and every.k == every.rank == 384
    assert -3 < every.value < -0.3 and every.verdict == "curved"


# -- what cannot be measured -------------------------------------------------------------------------------------------


def test_a_budget_that_ends_first_is_said() -> None:
    M, u = layer("gated MLP"), torch.zeros(12)
    with pytest.warns(PrecisionWarning, match="1 of 1 points the budget of 50 planes ended"):
        found = M.sampled_scalar_curvature(u, 1e-4, budget=50)
    assert not found.reached and found.pairs == 50 and "0.01 % was asked for" in str(found)
    assert found.standard_error > 1e-4 * abs(found.value)


def normed(x: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(x, [10])


def test_what_a_degenerate_jacobian_leaves_is_reported() -> None:
    M = ff.StatisticalManifold(normed, ff.charts.affine(random(10), torch.eye(10)))
    with pytest.raises(DegenerateImmersionError, match=r"rank \d of k = 10 .* effective dimension \d"):
        M.sampled_scalar_curvature(torch.zeros(10))
    M = ff.StatisticalManifold(normed, ff.charts.affine(random(10), torch.eye(10)), degenerate="nan")
    with pytest.warns(DegenerateImmersionWarning):
        found = M.sampled_scalar_curvature(torch.zeros(10))
    assert math.isnan(found.value) and found.estimator == "none" and found.verdict is None
    assert found.rank in (8, 9) and 1 < found.effective_dimension <= found.rank
    assert math.isnan(found.positive.value) and "tells" in str(found)


def test_points_come_back_nested_as_they_were_given() -> None:
    M = ff.StatisticalManifold(sphere(1.0), ff.charts.identity(3), degenerate="nan")
    u = torch.zeros(2, 2, 3)
    u[1, 0] = 2.0  # outside
    with pytest.warns(DegenerateImmersionWarning, match="1 "):
        found = M.sampled_scalar_curvature(u)
    values = torch.tensor([[one.value for one in row] for row in found])
    assert values.isnan().tolist() == [[False, False], [True, False]]
    assert values[0].tolist() == pytest.approx([6, 6])


@pytest.mark.parametrize("error", [0, -0.1, 1e-17, math.nan, math.inf, True])
def test_an_error_that_cannot_be_reached_is_refused(error: float) -> None:
    with pytest.raises(InputError, match="standard error"):
        layer("attention").sampled_scalar_curvature(torch.zeros(8), error)


def test_a_jacobian_that_does_not_fit_is_refused() -> None:
    M = ff.StatisticalManifold(sphere(1.0), ff.charts.identity(200), memory=500_000)
    with pytest.raises(ff.errors.OutOfMemoryError, match="k = 200"):
        M.sampled_scalar_curvature(torch.zeros(200))
