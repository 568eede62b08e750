"""Mean curvature and first-order quantities of charts of many directions, which ask for no whole 2-jets."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases.model_layers import LAYERS
from cases.roles import D, N
from cases.surfaces import random
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import DegenerateImmersionError, DegenerateImmersionWarning, FallbackWarning
from fisherflat.jets.engines import TaylorEngine

FIRST = ("metric", "volume_density", "singular_values", "condition_number", "effective_rank")
NAMES = ("mean_curvature", "mean_curvature_norm", *FIRST)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many whole 2-jets the default engine is asked for at a time."""
    found, jet = list[int](), TaylorEngine.jet

    def counted(self: Any, u: Tensor, basis: Tensor | None = None) -> Tensor:
        found.append(len(u))
        return jet(self, u, basis)

    monkeypatch.setattr(TaylorEngine, "jet", counted)
    return found


def assert_whole(M: ff.StatisticalManifold, u: Tensor, tolerance: float = 1e-12) -> None:
    """The same numbers as from whole 2-jets, relative to the largest of what is summed up."""
    found, whole = M.measure(u, NAMES), M.at(u)
    bend = whole.second_fundamental_form_norm / M.k**0.5
    for name in NAMES:
        truth = getattr(whole, name)
        axes = tuple(range(u.dim() - 1, truth.dim()))
        size = bend if name.startswith("mean") else truth.abs().amax(axes) if axes else truth.abs()
        error = (found[name] - truth).abs()
        assert bool(((error.amax(axes) if axes else error) <= tolerance * size).all()), name


# -- closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [12, 32, 64])
def test_a_layer_norm_draws_a_sphere(k: int, asked: list[int]) -> None:
    norm = torch.nn.LayerNorm(k + 6, eps=0.0, elementwise_affine=False)
    basis = torch.linalg.qr(random(k + 6, k, seed=3))[0]
    mixed = basis @ (torch.eye(k).double() + random(k, k, seed=4) / k)
    turned = ff.charts.affine(3 * random(k + 6), mixed.T.contiguous())
    u = 0.1 * random(3, k, seed=5)
    assert_whole(ff.StatisticalManifold(lambda x: torch.cat([x * 2, norm(x)]), turned), u)
    away = random(k + 2, seed=7)

    def sphere(u: Tensor) -> Tensor:
        """A great k-sphere of radius 3, as each direction of a plane is seen from elsewhere."""
        x = away + torch.cat([u, u.new_zeros(2)])
        return 3 * x / x.square().sum().sqrt()

    asked.clear()
    found = ff.StatisticalManifold(sphere, ff.charts.identity(k)).measure(u, ["mean_curvature", "mean_curvature_norm"])
    assert asked == []
    assert (found["mean_curvature"] + torch.stack([sphere(at) for at in u]) / 9).abs().max() <= 1e-13
    assert (found["mean_curvature_norm"] - 1 / 3).abs().max() <= 1e-13


@pytest.mark.parametrize("k", [12, 40])
def test_the_lowest_point_of_a_bowl(k: int, asked: list[int]) -> None:
    weights = 1 + random(k, seed=1).square()
    M = ff.StatisticalManifold(lambda u: torch.cat([2 * u, (weights * u.square()).sum()[None]]), ff.charts.identity(k))
    truth = torch.zeros(k + 1).double()
    truth[-1] = weights.sum() / 2 / k
    assert (M.mean_curvature(torch.zeros(k)) - truth).abs().max() <= 1e-14 * float(truth[-1])
    assert (M.metric(torch.zeros(2, k)) - 4 * torch.eye(k)).abs().max() <= 1e-14
    assert M.volume_density(torch.zeros(k)).item() == pytest.approx(2.0**k, rel=1e-13)
    assert asked == []


def test_a_minimal_surface_has_none(asked: list[int]) -> None:
    # products of circles of one radius in a sphere bend in the sphere by nothing
    M = ff.StatisticalManifold(lambda u: torch.cat([u.cos(), u.sin()]), ff.charts.identity(12))
    u = random(5, 12)
    found = M.mean_curvature(u)
    assert (found + torch.cat([u.cos(), u.sin()], -1) / 12).abs().max() <= 1e-15
    assert asked == []


# -- layers and families, against whole 2-jets -------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_layers_as_they_are_written_in_models(name: str) -> None:
    layer: Callable[..., Tensor] = LAYERS[name]
    point = random(N, D) / 2
    mean = lambda x: torch.cat([x.flatten() / 8, layer(x, lambda role, y: y).flatten()])  # noqa: E731 - of full rank
    M = ff.StatisticalManifold(mean, ff.charts.affine(point, random(min(N * D, 16), N, D, seed=1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        assert_whole(M, 0.1 * random(2, M.k, seed=2))


def module(name: str) -> torch.nn.Module:
    layers = {
        "block": lambda: torch.nn.Sequential(
            torch.nn.LayerNorm(16), ff.layers.SelfAttention(16, heads=2, gate=ff.layers.Gate()), torch.nn.RMSNorm(16)
        ),
        "gated MLP": lambda: ff.layers.GatedMLP(16, 40),
        "attention": lambda: ff.layers.SelfAttention(16, heads=4, causal=True),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return layers[name]().double().eval()


@pytest.mark.parametrize("k", [32, 64])
@pytest.mark.parametrize("name", ["block", "gated MLP", "attention"])
def test_charts_of_many_directions(name: str, k: int, asked: list[int]) -> None:
    inner = module(name)
    chart = ff.charts.affine(random(6, 16), random(k, 6, 16, seed=1))
    M = ff.StatisticalManifold(lambda x: inner(x) + x / 4, chart, ff.Gaussian(1 + random(96, seed=2).square()))
    u = 0.05 * random(2, k, seed=3)
    M.mean_curvature(u)
    assert asked == []
    assert_whole(M, u)


FAMILIES: dict[str, ff.families.ParametricFamily] = {
    "categorical": ff.families.Categorical(),
    "Bernoulli": ff.families.Bernoulli(),
    "Poisson": ff.families.Poisson(),
    "diagonal": ff.families.DiagonalGaussian(),
    "isotropic": ff.families.IsotropicGaussian(),
    "full": ff.families.FullGaussian(4),
    "directions": ff.families.VonMisesFisher(2.0),
    "directions and concentrations": ff.families.VonMisesFisher(),
    "exponential": ff.families.ExponentialFamily(lambda t: t.exp().sum() + t.logsumexp(-1).sum()),
    "independent": ff.families.ExponentialFamily(torch.exp),
    "next token": ff.families.NextToken(random(40, 14)),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str, asked: list[int]) -> None:
    weight = random(6, 14, 16, seed=5) / 16
    inner = lambda x: torch.einsum("nij,nj->ni", weight, torch.tanh(x) + x)  # noqa: E731 - of 14 numbers a token
    M = ff.StatisticalManifold(inner, ff.charts.affine(random(6, 16), random(12, 6, 16, seed=1)), FAMILIES[name])
    u = 0.1 * random(3, 12, seed=3)
    assert_whole(M, u, 1e-11)
    asked.clear()
    M.mean_curvature(u)
    # the frames of next tokens follow the directions, and families by a log-partition function take theirs together
    assert (asked == []) == (name not in ("next token", "exponential", "independent"))


def test_a_family_of_ones_own_whose_frames_follow_the_directions() -> None:
    class Turned(ff.families.ParametricFamily):
        """Flat, in the frame of the first direction's own."""

        def ambient_dim(self, shape: tuple[int, ...]) -> int:
            return shape[-1]

        def framed(self, jet: ff.geometry.Jets, shape: tuple[int, ...]) -> ff.families.Framed:
            frame = torch.linalg.qr(jet.jacobian.mT, mode="complete")[0]
            return ff.families.Framed(jet.coefficients @ frame, ff.families.Ambient(shape[-1]))

    turned, flat = (
        ff.StatisticalManifold(torch.sin, ff.charts.affine(random(20), random(12, 20, seed=1)), family)
        for family in (Turned(), ff.Gaussian())
    )
    u = 0.1 * random(2, 12, seed=2)
    truth = flat.measure(u, ["mean_curvature_norm"])["mean_curvature_norm"]
    assert torch.allclose(turned.measure(u, ["mean_curvature_norm"])["mean_curvature_norm"], truth, rtol=1e-12)


# -- where whole 2-jets are asked for ----------------------------------------------------------------------------------


def test_points_that_are_out_of_the_ordinary(asked: list[int]) -> None:
    M = ff.StatisticalManifold(
        lambda u: torch.cat([u[:1].square(), u[1:], u.square()]), ff.charts.identity(12), degenerate="nan"
    )
    u = random(4, 12)
    u[2, 0] = 0
    with pytest.warns(DegenerateImmersionWarning, match="1 of 4 points are"):
        found = M.measure(u, NAMES)
    assert asked == [1]
    assert found["mean_curvature"].isnan().all(-1).tolist() == [False, False, True, False]
    strict = ff.StatisticalManifold(M.mean, M.chart)
    with pytest.raises(DegenerateImmersionError, match="rank 11"):
        strict.mean_curvature(u)
    assert_whole(strict, u[[0, 1, 3]])


def test_an_ill_conditioned_chart(asked: list[int]) -> None:
    basis = (random(12, 20, seed=1) * 256).round() / 256
    skew = basis.clone()
    skew[1] = basis[0] + 2.0**-20 * basis[1]  # exactly
    plain, skewed = (
        ff.StatisticalManifold(torch.sin, ff.charts.affine(random(20), vectors)) for vectors in (basis, skew)
    )
    truth = plain.mean_curvature(torch.zeros(12))
    assert asked == []
    assert torch.allclose(skewed.mean_curvature(torch.zeros(12)), truth, rtol=0, atol=1e-14)
    assert asked  # in better coordinates


def test_an_op_without_a_rule() -> None:
    M = ff.StatisticalManifold(
        lambda u: torch.cat([u, torch.special.entr(u.square() + 1), torch.nn.functional.celu(u)]),
        ff.charts.identity(12),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        assert_whole(M, random(2, 12))


@pytest.mark.parametrize("options", [{"engine": "autodiff"}, {"dtype": torch.float32}, {"differentiable": True}])
def test_other_engines_precisions_and_tapes(options: dict[str, Any]) -> None:
    weight = random(24, 20, seed=4).requires_grad_(bool(options.get("differentiable")))
    mean = lambda x: torch.tanh(weight.to(x) @ x)  # noqa: E731
    chart = ff.charts.affine(random(20), random(12, 20, seed=1))
    M, exact = (ff.StatisticalManifold(mean, chart, **given) for given in (options, {}))
    found, truth = (m.mean_curvature(torch.zeros(12)) for m in (M, exact))
    assert torch.allclose(found.double(), truth, rtol=0, atol=1e-4 if "dtype" in options else 1e-12)
    if found.requires_grad:
        (gradient,) = torch.autograd.grad(found.square().sum(), weight)
        step = 2.0**-16 * random(24, 20, seed=9)
        with torch.no_grad():
            weight += step
            ahead = M.mean_curvature(torch.zeros(12)).square().sum()
            weight -= 2 * step
            behind = M.mean_curvature(torch.zeros(12)).square().sum()
        assert float((gradient * step).sum()) == pytest.approx(float(ahead - behind) / 2, rel=1e-6)


def test_errors_are_of_whole_2_jets(asked: list[int]) -> None:
    M = ff.StatisticalManifold(torch.sin, ff.charts.affine(random(20), random(12, 20, seed=1)))
    found = M.measure(torch.zeros(12), ["mean_curvature_norm"], error=True)
    assert asked
    truth = M.measure(torch.zeros(12), ["mean_curvature_norm"])
    assert abs(found["mean_curvature_norm"] - truth["mean_curvature_norm"]) <= found["mean_curvature_norm_error"]


def test_many_points_within_a_budget() -> None:
    M, small = (
        ff.StatisticalManifold(
            module("gated MLP"), ff.charts.affine(random(6, 16), random(12, 6, 16, seed=1)), memory=m
        )
        for m in (None, 2_000_000)
    )
    u = 0.1 * random(50, 2, 12)
    assert torch.allclose(M.mean_curvature(u), small.mean_curvature(u), rtol=0, atol=1e-12)
