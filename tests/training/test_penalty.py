"""Penalties on geometry: what they estimate, their gradients, and where training with them ends."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.training import PENALTIES, CurvaturePenalty

PLANE = ff.charts.identity(2)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decoder(inputs: int = 2, outputs: int = 5) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(inputs, 6), nn.Tanh(), nn.Linear(6, outputs)).double()
    with torch.no_grad():
        for seed, parameter in enumerate(net.parameters()):
            parameter.copy_(0.6 * drawn(*parameter.shape, seed=seed))
    return net


@pytest.mark.parametrize("quantity", PENALTIES)
def test_its_gradient_is_that_of_its_value(quantity: str) -> None:
    net = decoder(3)
    penalty = CurvaturePenalty(net, ff.charts.identity(3), quantity, 0.7, 2.0, points=4)
    state = penalty.state_dict()

    def value() -> Tensor:
        penalty.load_state_dict(state)
        return penalty()

    value().backward()
    for seed, parameter in enumerate(net.parameters()):
        v, h = drawn(*parameter.shape, seed=seed), 2.0**-12
        with torch.no_grad():
            parameter.add_(h * v)
            ahead = value().item()
            parameter.sub_(2 * h * v)
            behind = value().item()
            parameter.add_(h * v)
        want = (ahead - behind) / (2 * h)
        assert math.isclose((parameter.grad * v).sum().item(), want, rel_tol=1e-4, abs_tol=1e-5)


def test_it_estimates_the_mean_over_points_without_bias() -> None:
    bowl = lambda u: torch.cat([u, 0.3 * u.square().sum()[None]])  # noqa: E731
    penalty = CurvaturePenalty(bowl, PLANE, family=ff.Gaussian(), points=256, spread=0.5)
    found = torch.stack([penalty() for _ in range(40)])
    # K = 4 a² / (1 + 4 a² r²)² of the bowl, r² exponential with mean 2 spread²
    r2 = torch.linspace(0, 12, 200_001, dtype=torch.float64)
    scal = 2 * 4 * 0.09 / (1 + 4 * 0.09 * r2) ** 2
    want = torch.trapezoid(scal.square() * torch.exp(-r2 / 0.5) / 0.5, r2).item()
    assert abs(found.mean().item() - want) < 4 * found.std().item() / 40**0.5
    assert found.std() > 0


def test_directions_are_uniform_among_those_of_the_chart() -> None:
    """The mean sectional curvature over planes is `scal / (k (k - 1))`."""
    weights = torch.tensor([0.2, 0.5, 0.9, 0.4], dtype=torch.float64)
    bowl = lambda u: torch.cat([u, (weights * u.square()).sum()[None]])  # noqa: E731
    chart = ff.charts.identity(4)
    penalty = CurvaturePenalty(bowl, chart, "sectional_curvature", family=ff.Gaussian(), points=4000, spread=0.0)
    # of the square (K - t)² = K² - 2 t K + t², two targets tell K
    values = []
    for target in (0.0, 1.0):
        penalty.target = target
        penalty.generator.manual_seed(1)
        values.append(penalty().item())
    mean = (values[0] - values[1] + 1) / 2
    want = ff.StatisticalManifold(bowl, chart).scalar_curvature([0.0] * 4).item() / 12
    assert math.isclose(mean, want, rel_tol=0.05)


def test_by_default_scale_is_nothing_to_it() -> None:
    net, larger = decoder(), decoder()
    with torch.no_grad():
        larger[2].weight.mul_(10)
        larger[2].bias.mul_(10)
    one, other = CurvaturePenalty(net, PLANE), CurvaturePenalty(larger, PLANE)
    assert math.isclose(one().item(), other().item(), rel_tol=1e-10)
    loss = one()
    loss.backward()
    along = sum((p.grad * p).sum().item() for p in net[2].parameters())  # growing all outputs changes nothing
    assert abs(along) < 1e-10 * max(p.grad.norm().item() for p in net.parameters())


def test_the_users_random_numbers_and_modules_are_untouched() -> None:
    net = nn.Sequential(nn.Linear(2, 6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
    wrapped = nn.Sequential(nn.Unflatten(0, (1, 2)), net, nn.Flatten(0)).double()
    wrapped.train()
    before = torch.random.get_rng_state()
    CurvaturePenalty(wrapped, PLANE)().backward()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(module.training for module in wrapped.modules())
    assert net[2].num_batches_tracked.item() == 0


def test_memory_is_that_of_a_few_points() -> None:
    found = []
    for memory in (None, 20_000):
        net = decoder()
        penalty = CurvaturePenalty(net, PLANE, points=16, memory=memory)
        penalty().backward()
        found.append((penalty._together, torch.cat([p.grad.reshape(-1) for p in net.parameters()])))
    assert found[0][0] >= 16 > found[1][0] >= 1
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-12, atol=1e-14)


def test_points_without_geometry_add_nothing_and_are_counted() -> None:
    w = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    at = torch.tensor([[0.5, 0.2], [0.0, 0.0], [-0.3, 0.4]], dtype=torch.float64)

    def cone(u: Tensor) -> Tensor:
        return torch.cat([u * u, w * u.square().sum().sqrt()[None]])

    penalty = CurvaturePenalty(cone, ff.charts.affine([0.5, 0.1], torch.eye(2)), family=ff.Gaussian())
    some = penalty(at)
    assert penalty.degenerate == 1 and penalty.drawn == 3
    some.backward()
    slope = w.grad.clone()
    assert slope.isfinite() and slope != 0
    w.grad = None
    penalty.generator.manual_seed(0)
    alone = penalty(at[1:2])
    assert alone.item() == 0.0 and penalty.degenerate == 2
    (alone + w.square()).backward()
    assert w.grad.item() == 2.0


def test_a_slope_that_is_no_number_stays_away() -> None:
    w = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

    def spiked(u: Tensor) -> Tensor:  # finite jets, and an infinite slope by w
        return torch.cat([u, w.abs().sqrt() * u.square().sum()[None] + u.square().sum()[None]])

    penalty = CurvaturePenalty(spiked, PLANE, family=ff.Gaussian(), points=3)
    loss = penalty()
    loss.backward()
    assert penalty.degenerate == 3 and w.grad.isfinite()


def trained(penalty: CurvaturePenalty, parameters: Any, steps: int = 300, lr: float = 3e-2) -> list[float]:
    optimiser = torch.optim.Adam(parameters, lr=lr)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = penalty()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_a_paraboloid_is_flattened() -> None:
    a = nn.Parameter(torch.tensor(0.6, dtype=torch.float64))
    bowl = lambda u: torch.cat([u, a * u.square().sum()[None]])  # noqa: E731
    trained(CurvaturePenalty.minimum_extrinsic(bowl, PLANE, family=ff.Gaussian(), spread=0.3), [a])
    assert abs(a.item()) < 1e-3


def test_a_sphere_grows_to_its_radius() -> None:
    r = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    sphere = lambda u: r * torch.cat([u, (1 - u.square().sum()).sqrt()[None]])  # noqa: E731
    penalty = CurvaturePenalty(sphere, PLANE, target=2 / 4.0, family=ff.Gaussian(), spread=0.1)
    trained(penalty, [r], 600)
    assert math.isclose(r.item(), 2.0, rel_tol=1e-3)


def test_isometric_and_volume_preserving() -> None:
    w = nn.Parameter(drawn(4, 2, seed=3))
    trained(CurvaturePenalty.isometric(lambda u: w @ u, PLANE), [w], 500)
    gram = (w.T @ w).detach()
    assert torch.allclose(gram, torch.eye(2, dtype=torch.float64), atol=2e-2)
    v = nn.Parameter(drawn(4, 2, seed=4))
    trained(CurvaturePenalty.volume_preserving(lambda u: v @ u, PLANE, target=3.0), [v])
    assert math.isclose((v.T @ v).det().sqrt().item(), 3.0, rel_tol=1e-3)


def test_base_points_of_a_batch_get_a_gradient() -> None:
    net, codes = decoder(), drawn(3, 2, seed=5).requires_grad_()
    penalty = CurvaturePenalty(net, PLANE, family=ff.Gaussian())
    penalty(codes).backward()
    assert codes.grad.shape == (3, 2) and codes.grad.abs().sum() > 0


def test_ten_lines_train_a_gated_attention_layer() -> None:
    torch.manual_seed(0)
    layer = ff.layers.SelfAttention(8, heads=2, gate=ff.layers.Gate())
    hidden = torch.randn(6, 8)
    penalty = CurvaturePenalty(layer, ff.charts.token(hidden, -1, torch.eye(8)), weight=1.0, points=4)
    losses = []
    optimiser = torch.optim.Adam(layer.parameters(), lr=3e-3)
    for _ in range(30):
        optimiser.zero_grad()
        loss = (layer(hidden) - hidden).square().mean() + penalty()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quantity": "curvature"}, "quantity must be one of"),
        ({"quantity": "metric", "target": 0.0}, "positive number"),
        ({"target": math.nan}, "finite number"),
        ({"weight": math.inf}, "weight and spread"),
        ({"directions": 3}, "has 2"),
        ({"directions": 1}, "at least two directions"),
        ({"points": 0}, "at least 1"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ff.errors.InputError, match=said):
        CurvaturePenalty(decoder(), PLANE, **options)


def test_wrong_base_points() -> None:
    penalty = CurvaturePenalty(decoder(), PLANE)
    for at in (torch.zeros(3, 5), torch.zeros(0, 2), torch.zeros(3, 2, dtype=torch.long)):
        with pytest.raises(ff.errors.InputError, match="at "):
            penalty(at)
