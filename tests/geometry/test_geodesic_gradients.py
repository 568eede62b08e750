"""Gradients of geodesics: against closed forms, the first variation of length, and differences of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import NotDifferentiableError

D = torch.float64
A = torch.tensor([[0.7, 0.2], [1.0, -1.0], [1.5, 0.1]], dtype=D)
B = torch.tensor([[1.2, 1.5], [2.0, 1.0], [1.6, 0.3]], dtype=D)


def on_sphere(u: Tensor) -> Tensor:
    s, t = u[..., 0], u[..., 1]
    return 2 * torch.stack([s.sin() * t.cos(), s.sin() * t.sin(), s.cos()], -1)


def sphere(**options: Any) -> ff.StatisticalManifold:
    return ff.StatisticalManifold(on_sphere, ff.charts.identity(2), differentiable=True, **options)


class Decoder(nn.Module):
    """Means and logarithms of standard deviations."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(5)
        self.first, self.second = (
            nn.Parameter(torch.randn(*shape, generator=draw, dtype=D) / 2) for shape in ((2, 6), (6, 8))
        )

    def forward(self, z: Tensor) -> Tensor:
        return (z @ self.first).tanh() @ self.second


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_distances_on_the_sphere_have_the_gradient_of_their_closed_form(dtype: torch.dtype) -> None:
    for points in (3, 1):  # of one path the metric is not interpolated
        a, b = A[:points].clone().requires_grad_(), B[:points].clone().requires_grad_()
        found = sphere(dtype=dtype).distance(a, b)
        exact = 2 * torch.acos((on_sphere(a) * on_sphere(b)).sum(-1) / 4)
        weights = torch.tensor([1.0, -0.7, 2.0], dtype=D)[:points]
        ours, theirs = (torch.autograd.grad(value @ weights, (a, b)) for value in (found.double(), exact))
        to = 1e-8 if dtype == D else 2e-3
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=to, atol=to)


@pytest.mark.parametrize(
    "family",
    [ff.Gaussian(0.3), ff.families.DiagonalGaussian(), ff.families.Categorical()],
    ids=lambda family: type(family).__name__,
)
@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
def test_the_first_variation_of_length(family: Any, engine: str) -> None:
    """By its ends, a distance changes as the unit velocities there say (do Carmo 1992, chapter 9)."""
    M = ff.StatisticalManifold(Decoder(), ff.charts.identity(2), family, engine, differentiable=True)
    a, b = (0.5 * A).requires_grad_(), (0.5 * B).requires_grad_()
    length = M.distance(a, b)
    by_a, by_b = torch.autograd.grad(length.sum(), (a, b))
    with torch.no_grad():
        leaving, arriving = M.log(a, b), -M.log(b, a)
        for gradient, at, velocity, sign in ((by_a, a, leaving, -1), (by_b, b, arriving, 1)):
            lowered = torch.einsum("pij,pj->pi", M.metric(at), velocity) / length[:, None]
            torch.testing.assert_close(gradient, sign * lowered, rtol=1e-7, atol=1e-8)


ASKED: dict[str, Callable[[Any, Tensor, Tensor], Tensor]] = {
    "distance": lambda M, a, b: M.distance(a, b),
    "straight": lambda M, a, b: M.distance(a, b, error=True).straight,
    "log": lambda M, a, b: M.log(a, b),
    "geodesic": lambda M, a, b: M.geodesic(a, b, 6),
    "transport": lambda M, a, b: M.parallel_transport(a, b, [0.4, -0.3]),
}


@pytest.mark.parametrize("what", ASKED)
@pytest.mark.parametrize("points", [1, 3])  # of one the metric is not interpolated
def test_gradients_by_weights_and_ends_are_differences_of_values(what: str, points: int) -> None:
    decoder, ask = Decoder(), ASKED[what]
    M = ff.StatisticalManifold(decoder, ff.charts.identity(2), ff.families.DiagonalGaussian(), differentiable=True)
    leaves = [(0.5 * A[:points]).requires_grad_(), (0.5 * B[:points]).requires_grad_(), *decoder.parameters()]
    draw = torch.Generator().manual_seed(7)
    value = ask(M, *leaves[:2])
    cotangent = torch.randn(value.shape, generator=draw, dtype=D)
    gradients = torch.autograd.grad((value * cotangent).sum(), leaves, allow_unused=True)
    for leaf, gradient in zip(leaves, gradients, strict=True):
        direction = torch.randn(leaf.shape, generator=draw, dtype=D)

        @torch.no_grad()
        def moved(step: float, leaf: Tensor = leaf, direction: Tensor = direction) -> float:
            leaf += step * direction
            found = (ask(M, *leaves[:2]) * cotangent).sum().item()
            leaf -= step * direction
            return found

        h = 2e-3  # fourth order: what is left out and rounding are both near 1e-10
        slope = (8 * (moved(h) - moved(-h)) - moved(2 * h) + moved(-2 * h)) / (12 * h)
        assert gradient is not None
        found = (gradient * direction).sum().item()
        assert found == pytest.approx(slope, rel=1e-6, abs=1e-7) and abs(slope) > 1e-4


def test_the_gradient_by_a_covariance() -> None:
    """All lengths are inversely as standard deviations."""
    variance = torch.tensor(0.6, dtype=D, requires_grad=True)
    found = sphere(family=ff.Gaussian(variance)).distance(A, B)
    exact = -found.detach() / (2 * 0.6)
    for n in range(3):
        gradient = torch.autograd.grad(found[n], variance, retain_graph=True)[0]
        assert gradient.item() == pytest.approx(exact[n].item(), rel=1e-8)


def test_a_step_along_the_gradient_brings_two_codes_closer() -> None:
    """As in training: the manifold follows its weights."""
    decoder = Decoder()
    M = ff.StatisticalManifold(decoder, ff.charts.identity(2), differentiable=True)
    optimiser = torch.optim.SGD(decoder.parameters(), lr=1e-3)
    lengths = []
    for _ in range(4):
        optimiser.zero_grad()
        length = M.distance(A / 2, B / 2).sum()
        length.backward()
        optimiser.step()
        lengths.append(length.item())
    assert lengths == sorted(lengths, reverse=True) and lengths[-1] < lengths[0] - 1e-3


def test_points_without_a_geodesic_have_no_gradient_and_spoil_none() -> None:
    a = torch.tensor([[1.3, 0.0], [1.0, 0.3]], dtype=D, requires_grad=True)
    b = torch.tensor([[1.3, 4.0], [1.1, 0.2]], dtype=D)
    found = sphere(degenerate="nan").distance(a, b)
    assert found.isnan().tolist() == [True, False]
    all_of_them = torch.autograd.grad(found.nansum(), a)[0]
    alone = torch.autograd.grad(sphere().distance(a[1], b[1]), a)[0]
    torch.testing.assert_close(all_of_them, alone, rtol=1e-8, atol=1e-10)
    half = ff.StatisticalManifold(
        lambda u: torch.stack([u[0], u[1].sqrt(), u[1]]), ff.charts.identity(2), degenerate="nan", differentiable=True
    )
    u = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=D, requires_grad=True)
    for ask in (half.distance, half.log):
        gradient = torch.autograd.grad(ask(u, [[0.0, -1.0], [0.2, 1.5]]).nansum(), u)[0]
        assert gradient[0].tolist() == [0.0, 0.0] and gradient[1].norm() > 0.1


def test_where_there_is_no_gradient_it_is_said() -> None:
    M, a = sphere(), A.clone().requires_grad_()
    with pytest.raises(NotDifferentiableError, match=r"distance of a point from itself .* at 1 of 3 points"):
        M.distance(a, torch.cat([B[:2], A[2:]]))
    assert M.distance(A, A).tolist() == [0.0, 0.0, 0.0]
    by_end = torch.autograd.functional.jacobian(lambda b: M.log(A[0], b), A[0].clone())
    torch.testing.assert_close(by_end, torch.eye(2, dtype=D))  # near a point, logarithms are differences
    with pytest.raises(NotDifferentiableError, match="create_graph"):
        torch.autograd.grad(M.distance(a, B).sum(), a, create_graph=True)
    with pytest.raises(NotDifferentiableError, match=r"exp .* torch.no_grad"):
        M.exp(a, B - A)
    with torch.no_grad():
        torch.testing.assert_close(M.exp(a, M.log(a, B)), B, rtol=0, atol=1e-8)
    assert not M.log(A, B).requires_grad and not M.exp(A, B - A).requires_grad
