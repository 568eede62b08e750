"""Gradients of all quantities, by all that they depend on, against differences and against nested torch.func."""

from __future__ import annotations

import gc
import math
import pickle
from collections.abc import Callable
from functools import cached_property
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.geometry import Geometry
from fisherflat.lab.bench.memory import Tally

F = torch.nn.functional

#: of a five-point difference: shifts and weights
STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slope_of(f: Callable[[], Tensor], leaves: list[Tensor], along: list[Tensor], h: float = 2.0**-10) -> float:
    """The derivative of `f`, which reads `leaves` as they are, along some directions, by differences."""
    total = 0.0
    with torch.no_grad():
        for shift, weight in STENCIL:
            for leaf, v in zip(leaves, along, strict=True):
                leaf.add_(shift * h * v)
            total += weight * f().double().item() / h
            for leaf, v in zip(leaves, along, strict=True):
                leaf.sub_(shift * h * v)
    return total


def assert_gradients(f: Callable[[], Tensor], leaves: list[Tensor], tolerance: float = 1e-7) -> None:
    for leaf in leaves:
        leaf.grad = None
    f().backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves)
    along = [drawn(*leaf.shape, seed=seed) for seed, leaf in enumerate(leaves)]
    for leaf, v in zip(leaves, along, strict=True):  # each by itself: a small one would be lost among large ones
        want = slope_of(f, [leaf], [v])
        got = (leaf.grad.double() * v).sum().item()
        assert abs(got - want) <= tolerance * max(1.0, abs(want)), (tuple(leaf.shape), got, want)


class Net(nn.Module):
    """A small map without norms, whose outputs suit every family below."""

    def __init__(self, outputs: int = 5, inputs: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, 6).double()
        self.second = nn.Linear(6, outputs).double()
        with torch.no_grad():
            for seed, parameter in enumerate(self.parameters()):
                parameter.copy_(0.5 * drawn(*parameter.shape, seed=seed))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))


#: family -> how many outputs
FAMILIES: dict[str, tuple[Any, int]] = {
    "gaussian": (ff.Gaussian(0.5), 5),
    "categorical": (ff.families.Categorical(), 5),
    "bernoulli": (ff.families.Bernoulli(), 5),
    "poisson": (ff.families.Poisson(), 5),
    "diagonal": (ff.families.DiagonalGaussian(), 6),
    "isotropic": (ff.families.IsotropicGaussian(), 5),
    "full": (ff.families.FullGaussian(2), 5),
    "directions": (ff.families.VonMisesFisher(3.0), 5),
    "directions and lengths": (ff.families.VonMisesFisher(), 5),
    "next tokens": (ff.families.NextToken(drawn(9, 5, seed=21), drawn(9, seed=22)), 5),
    "capped next tokens": (ff.families.NextToken(drawn(9, 5, seed=21), softcap=3.0), 5),
    "exponential": (ff.families.ExponentialFamily(lambda t: t.exp().sum() + t.square().sum() ** 2), 5),
}


def manifold(family: str = "gaussian", k: int = 2, **options: Any) -> tuple[ff.StatisticalManifold, list[Tensor]]:
    """A differentiable manifold, and the weights of its map."""
    made, outputs = FAMILIES[family]
    net = Net(outputs)
    chart = ff.charts.affine(drawn(3, seed=11), drawn(k, 3, seed=12))
    return ff.StatisticalManifold(net, chart, made, differentiable=True, **options), list(net.parameters())


def of(M: ff.StatisticalManifold, u: Tensor, names: list[str]) -> Callable[[], Tensor]:
    """A number that depends on all entries of some quantities."""

    def total() -> Tensor:
        found = M.measure(u, names)
        return sum(((found[name] * drawn(*found[name].shape, seed=5)).sum() for name in names), torch.zeros(()))

    return total


#: all but what there is for k = 1 alone
QUANTITIES = [name for name, thing in vars(Geometry).items() if name[0] != "_" and isinstance(thing, cached_property)]
QUANTITIES.append("amari_chentsov")


@pytest.mark.parametrize("name", QUANTITIES)
def test_every_quantity(name: str) -> None:
    k = 3 if name == "sectional_extremes" else 2
    M, leaves = manifold(k=k)
    u = (0.3 * drawn(2, k, seed=4)).requires_grad_()
    assert_gradients(of(M, u, [name]), [*leaves, u], 1e-6)


def test_the_other_engine() -> None:
    names = ["christoffel", "scalar_curvature", "mean_curvature", "volume_density"]
    M, leaves = manifold(engine="autodiff")
    u = (0.3 * drawn(2, 2, seed=4)).requires_grad_()
    assert_gradients(of(M, u, names), [*leaves, u], 1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    M, leaves = manifold(family)
    u = (0.2 * drawn(2, 2, seed=4)).requires_grad_()
    names = ["scalar_curvature", "christoffel", "amari_chentsov", "volume_density", "second_fundamental_form_norm"]
    assert_gradients(of(M, u, names), [*leaves, u], 1e-6)


#: how a chart is made of what may require a gradient
CHARTS: dict[str, Callable[..., ff.charts.Chart]] = {
    "affine": lambda x: ff.charts.affine(x[0], x[1:3]),
    "token": lambda x: ff.charts.token(x, -1, x[:2] * 2),
    "simplex": ff.charts.simplex,
    "attention_weights": ff.charts.attention_weights,
    "principal": lambda x: ff.charts.principal(x, -1, 2),
}


@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
@pytest.mark.parametrize("kind", CHARTS)
def test_by_the_chart(kind: str, engine: str) -> None:
    net, x = Net(), drawn(4, 3, seed=3).requires_grad_()
    u = torch.tensor([0.2, 0.1, 0.3][: CHARTS[kind](x).k], dtype=torch.float64)

    def f() -> Tensor:
        M = ff.StatisticalManifold(net, CHARTS[kind](x), engine=engine, differentiable=True)
        return M.scalar_curvature(u) + M.metric(u).sum()

    assert_gradients(f, [x], 1e-6)


def test_of_what_points_share() -> None:
    # values and slopes of projections, the scores' second derivatives and shapes are carried once for all points
    torch.manual_seed(0)
    layer = ff.layers.SelfAttention(4, heads=2, gate=ff.layers.Gate()).double()
    x, basis = drawn(3, 4, seed=1).requires_grad_(), drawn(3, 3, 4, seed=2).requires_grad_()
    u = (0.3 * drawn(5, 3, seed=3)).requires_grad_()
    assert ff.StatisticalManifold(layer, ff.charts.affine(x, basis)).engine._prefix.saves

    def f() -> Tensor:
        M = ff.StatisticalManifold(layer, ff.charts.affine(x, basis), differentiable=True)
        return of(M, u, ["scalar_curvature", "christoffel", "second_fundamental_form"])()

    assert_gradients(f, [*layer.parameters(), x, basis, u], 1e-6)


def test_gradients_of_gradients_of_what_points_share() -> None:
    torch.manual_seed(0)
    layer = ff.layers.SelfAttention(3, heads=1, gate=ff.layers.Gate()).double()
    M = ff.StatisticalManifold(
        layer, ff.charts.affine(drawn(2, 3, seed=1), drawn(2, 2, 3, seed=2)), differentiable=True
    )
    u = (0.2 * drawn(2, 2, seed=3)).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v: M.scalar_curvature(v), (u,), atol=1e-5)


@pytest.mark.parametrize("shape", [(), (5,), (5, 5)])
def test_by_the_covariance(shape: tuple[int, ...]) -> None:
    net, chart = Net(), ff.charts.affine(drawn(3, seed=1), drawn(2, 3, seed=2))
    base = torch.tensor(0.7, dtype=torch.float64) if not shape else 0.5 + drawn(5, seed=3).square()
    leaf = base.clone().requires_grad_()
    if len(shape) == 2:
        root = (0.3 * drawn(5, 5, seed=4) + torch.eye(5, dtype=torch.float64)).requires_grad_()
        leaf = root

    def f() -> Tensor:
        covariance = leaf @ leaf.T if len(shape) == 2 else leaf
        M = ff.StatisticalManifold(net, chart, ff.Gaussian(covariance), differentiable=True)
        found = M.measure(drawn(2, 2, seed=8), ["scalar_curvature", "metric", "mean_curvature_norm"])
        return found["scalar_curvature"].sum() + found["metric"].sum() + found["mean_curvature_norm"].sum()

    assert_gradients(f, [leaf], 1e-6)


def test_sectional_curvature_by_its_vectors() -> None:
    M, leaves = manifold(k=3)
    x, y = drawn(3, seed=1).requires_grad_(), drawn(3, seed=2).requires_grad_()
    assert_gradients(lambda: M.sectional_curvature([0.1, 0.2, -0.1], x, y), [x, y, *leaves[:4]], 1e-7)


class Normed(nn.Module):
    """Norms and a softmax, through which nested transforms are wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = ff.layers.SelfAttention(6, heads=2, gate=ff.layers.Gate()).double()
        self.norm, self.rms = nn.LayerNorm(6).double(), nn.RMSNorm(6).double()
        self.mlp = ff.layers.GatedMLP(6, 8).double()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm(x))
        return x + self.mlp(self.rms(x))


def test_through_norms() -> None:
    torch.manual_seed(0)
    block = Normed()
    chart = ff.charts.token(drawn(4, 6, seed=1), -1, drawn(2, 6, seed=2))
    M = ff.StatisticalManifold(block, chart, differentiable=True)
    u = (0.3 * drawn(2, 2, seed=3)).requires_grad_()
    assert_gradients(lambda: M.scalar_curvature(u).sum(), [*block.parameters(), u], 1e-6)


def test_along_a_norms_own_direction() -> None:
    """Where the rule of norms takes another way."""
    scale = drawn(6, seed=1).requires_grad_()
    point = drawn(6, seed=2)
    basis = torch.stack([point * (1 + 1e-9) + 1e-4 * drawn(6, seed=5), drawn(6, seed=3)])

    def rms(x: Tensor) -> Tensor:
        y = x * torch.rsqrt(x.square().mean() + 1e-3) * scale
        return torch.cat([y, y[:2] * y[1:3]])

    M = ff.StatisticalManifold(rms, ff.charts.affine(point, basis), differentiable=True)
    assert_gradients(lambda: M.volume_density([0.0, 0.0]) + M.christoffel([0.0, 0.0]).sum(), [scale], 1e-6)


def nested(f: Callable[[Tensor, Tensor], Tensor], weights: Tensor, u: Tensor) -> Tensor:
    """The scalar curvature by the textbook, from Christoffel symbols of a metric that is differentiated twice more."""
    from torch.func import jacfwd

    def metric(v: Tensor) -> Tensor:
        jacobian = jacfwd(lambda w: f(weights, w))(v)
        return jacobian.T @ jacobian

    def christoffel(v: Tensor) -> Tensor:
        d = jacfwd(metric)(v)  # [i, j, m] = d_m g_ij
        lowered = (d.permute(0, 2, 1) + d - d.permute(2, 0, 1)) / 2  # [l, i, j]
        return torch.einsum("ml,lij->mij", torch.linalg.inv(metric(v)), lowered)

    gamma, slope = christoffel(u), jacfwd(christoffel)(u)  # [m, i, j, l]
    ricci = torch.einsum("mijm->ij", slope) - torch.einsum("mimj->ij", slope)
    ricci = ricci + torch.einsum("mml,lij->ij", gamma, gamma) - torch.einsum("mil,lmj->ij", gamma, gamma)
    return (torch.linalg.inv(metric(u)) * ricci).sum()


def test_as_nested_torch_func_on_a_map_without_norms() -> None:
    weights = drawn(4, 2, seed=1).requires_grad_()

    def f(w: Tensor, u: Tensor) -> Tensor:
        return torch.tanh(w @ u) * torch.exp(0.3 * (w @ u))

    u = torch.tensor([0.2, -0.3], dtype=torch.float64)
    M = ff.StatisticalManifold(lambda v: f(weights, v), ff.charts.identity(2), differentiable=True)
    value = M.scalar_curvature(u)
    (got,) = torch.autograd.grad(value, weights)
    want, slope = nested(f, weights.detach(), u), torch.func.grad(lambda w: nested(f, w, u))(weights.detach())
    assert torch.allclose(value, want, rtol=1e-11)
    assert torch.allclose(got, slope, rtol=1e-10, atol=1e-11)


def test_float32_weights_have_gradients_in_float32() -> None:
    net, chart = Net().float(), ff.charts.affine(drawn(3, seed=1), drawn(2, 3, seed=2))
    found = {}
    for dtype in (torch.float32, torch.float64):
        net.zero_grad()
        ff.StatisticalManifold(net, chart, dtype=dtype, differentiable=True).scalar_curvature([0.1, 0.2]).backward()
        assert all(p.grad.dtype == torch.float32 for p in net.parameters())
        found[dtype] = torch.cat([p.grad.reshape(-1) for p in net.parameters()])
    assert torch.allclose(found[torch.float32], found[torch.float64], rtol=1e-3, atol=1e-4)
    assert found[torch.float64].norm() > 0


def test_steps_of_an_optimiser_are_seen() -> None:
    net, chart = Net(), ff.charts.affine(drawn(3, seed=1), drawn(2, 3, seed=2))
    M, u = ff.StatisticalManifold(net, chart, differentiable=True), drawn(3, 2, seed=3)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        (M.scalar_curvature(u).square().sum() + net(chart.point).square().sum()).backward()  # mixed with any loss
        optimiser.step()
        fresh = ff.StatisticalManifold(net, chart)
        assert torch.allclose(M.scalar_curvature(u), fresh.scalar_curvature(u), rtol=1e-12, atol=1e-14)


def test_buffers_are_followed_too() -> None:
    norm = nn.BatchNorm1d(3).double()
    net = nn.Sequential(nn.Linear(3, 3).double(), nn.Unflatten(0, (1, 3)), norm, nn.Tanh(), nn.Flatten(0))
    M = ff.StatisticalManifold(net, ff.charts.affine(drawn(3), drawn(2, 3, seed=2)), differentiable=True)
    before = M.scalar_curvature([0.1, 0.2])
    with torch.no_grad():
        norm.running_var.mul_(4.0)
    fresh = ff.StatisticalManifold(net, M.chart)
    assert torch.allclose(M.scalar_curvature([0.1, 0.2]), fresh.scalar_curvature([0.1, 0.2]), rtol=1e-12)
    assert not torch.allclose(M.scalar_curvature([0.1, 0.2]), before)


def test_tensors_of_a_closure_and_what_is_made_of_them() -> None:
    theta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

    def bowl(u: Tensor) -> Tensor:
        a = (theta * 2).exp().reshape(1)  # made inside of the map of theta alone
        return torch.cat([u, a * u.square().sum()[None]])

    M = ff.StatisticalManifold(bowl, ff.charts.identity(2), differentiable=True)
    value = M.scalar_curvature([0.0, 0.0])
    value.backward()
    assert math.isclose(value.item(), 8 * math.exp(1.6), rel_tol=1e-12)
    assert math.isclose(theta.grad.item(), 4 * 8 * math.exp(1.6), rel_tol=1e-12)


def test_ten_lines_of_training_reach_what_is_known() -> None:
    """A paraboloid is flattened, and a sphere grows to a radius."""
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    bowl = ff.StatisticalManifold(
        lambda u: torch.cat([u, a * u.square().sum()[None]]), ff.charts.identity(2), differentiable=True
    )
    optimiser = torch.optim.SGD([a], lr=2e-3)
    for _ in range(300):
        optimiser.zero_grad()
        bowl.scalar_curvature([0.0, 0.0]).square().backward()
        optimiser.step()
    assert abs(bowl.scalar_curvature([0.0, 0.0]).item()) < 1.0 < 8 * 0.7**2
    r = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    sphere = ff.StatisticalManifold(
        lambda u: r * torch.cat([u, (1 - u.square().sum()).sqrt()[None]]), ff.charts.identity(2), differentiable=True
    )
    optimiser = torch.optim.Adam([r], lr=5e-2)
    for _ in range(200):
        optimiser.zero_grad()
        (sphere.scalar_curvature([0.1, 0.2]).log() - math.log(2 / 9)).square().backward()
        optimiser.step()
    assert math.isclose(r.item(), 3.0, rel_tol=1e-3)


def test_nothing_is_recorded_without_being_asked_for() -> None:
    net, chart = Net(), ff.charts.affine(drawn(3, seed=1), drawn(2, 3, seed=2).requires_grad_())
    M = ff.StatisticalManifold(net, chart)
    assert not M.scalar_curvature(drawn(2).requires_grad_()).requires_grad
    live = ff.StatisticalManifold(net, chart, differentiable=True)
    with torch.no_grad():
        assert not live.scalar_curvature([0.1, 0.2]).requires_grad
    assert live.scalar_curvature([0.1, 0.2]).requires_grad
    assert not pickle.loads(pickle.dumps(chart)).taped.basis.requires_grad


def test_a_degenerate_point_has_no_gradient_and_no_harm() -> None:
    w = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)

    def cone(u: Tensor) -> Tensor:  # no tangent plane at its tip, and infinite derivatives
        return torch.cat([u * u, w * u.square().sum().sqrt()[None]])

    M = ff.StatisticalManifold(cone, ff.charts.affine([0.0, 0.0], torch.eye(2)), differentiable=True, degenerate="nan")
    u = torch.tensor([[0.5, 0.3], [0.0, 0.0], [0.7, -0.2]], dtype=torch.float64, requires_grad=True)
    with pytest.warns(ff.errors.DegenerateImmersionWarning, match="1 of 3"):
        found = M.scalar_curvature(u)
    assert found[1].isnan()
    found.nansum().backward()
    assert w.grad.isfinite() and u.grad.isfinite().all() and not u.grad[1].any() and u.grad[[0, 2]].any()
    with pytest.raises(ff.errors.FisherflatError, match="not finite"):
        ff.StatisticalManifold(cone, M.chart, differentiable=True).scalar_curvature(u)


def test_repeated_calls_hold_no_memory() -> None:
    net, chart = Net(), ff.charts.affine(drawn(3, seed=1), drawn(2, 3, seed=2))
    M, u = ff.StatisticalManifold(net, chart, differentiable=True), drawn(3, 2, seed=3)

    def count() -> int:
        gc.collect()
        return sum(isinstance(thing, Tensor) for thing in gc.get_objects())

    def step() -> None:
        net.zero_grad()
        M.scalar_curvature(u).sum().backward()

    for _ in range(2):
        step()
    before = count()
    for _ in range(5):
        step()
    assert count() == before


@pytest.mark.parametrize("covariance", [1.0, [1.0, 2.0, 0.5, 1.0, 1.0]])
def test_after_values_in_inference_mode(covariance: Any) -> None:
    net, chart, u = Net(), ff.charts.affine(drawn(3, seed=1), drawn(2, 3, seed=2)), drawn(3, 2, seed=3)
    with torch.inference_mode():
        M = ff.StatisticalManifold(net, chart, ff.Gaussian(covariance), differentiable=True)
        want = M.scalar_curvature(u)
    found = M.scalar_curvature(u)
    assert torch.equal(found, want)
    assert_gradients(lambda: M.scalar_curvature(u).sum(), list(net.parameters()))


@pytest.mark.parametrize("made_inside", [False, True])
def test_autocast_rounds_nothing(made_inside: bool) -> None:
    net, chart, u = Net().float(), ff.charts.affine(drawn(3, seed=1), drawn(2, 3, seed=2)), drawn(3, 2, seed=3)

    def gradients(inside: bool) -> list[Tensor]:
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=inside and made_inside):
            M = ff.StatisticalManifold(net, chart, dtype=torch.float32, differentiable=True)
            penalty = ff.training.CurvaturePenalty(net, chart, dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            loss = M.scalar_curvature(u).sum() + penalty()
        loss.backward()
        return [parameter.grad.clone() for parameter in net.parameters()]

    for one, other in zip(gradients(True), gradients(False), strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-5 * other.abs().max().item())


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.jacrev, torch.func.jacfwd])
def test_transforms_of_torch_func_are_refused(transform: Any) -> None:
    M, _ = manifold()
    with pytest.raises(ff.errors.InputError, match=r"torch\.func"):
        transform(M.scalar_curvature)(drawn(3, 2, seed=3))


# -- refusals ------------------------------------------------------------------------------------------------------


def test_a_map_without_a_path_to_its_parameters() -> None:
    net = Net()
    chart = ff.charts.affine(drawn(3, seed=1), drawn(2, 3, seed=2))

    class Copied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            w = torch.tensor(self.net.first.weight.tolist(), dtype=torch.float64)
            return torch.tanh(x @ w.T)

    with pytest.raises(ff.errors.MapError, match=r"no gradient can reach 'net\.first\.weight'"):
        ff.StatisticalManifold(Copied(), chart, differentiable=True).scalar_curvature([0.0, 0.0])
    with pytest.raises(ff.errors.MapError, match="differentiable=True"):
        ff.StatisticalManifold(ff.trace(net, chart), chart, differentiable=True).scalar_curvature([0.0, 0.0])


def test_writes_into_weights() -> None:
    class Clipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(drawn(4, 3))

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.weight.clamp_(-1, 1)
            return torch.tanh(self.weight @ x)

    chart = ff.charts.affine(drawn(3, seed=1), drawn(2, 3, seed=2))
    with pytest.raises(ff.errors.TraceError, match="writes into a weight"):
        ff.StatisticalManifold(Clipped(), chart, differentiable=True).scalar_curvature([0.0, 0.0])


def test_third_derivatives_that_torch_has_not_or_has_wrong() -> None:
    chart = ff.charts.affine(drawn(6, seed=1), drawn(2, 6, seed=2))
    torch.manual_seed(0)
    normed = nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 4)).double()
    ff.StatisticalManifold(normed, chart, engine="autodiff").scalar_curvature([0.1, 0.2])
    with pytest.raises(ff.errors.UnsupportedOpError, match="third derivative in reverse mode"):
        ff.StatisticalManifold(normed, chart, engine="autodiff", differentiable=True).scalar_curvature([0.1, 0.2])


@pytest.mark.parametrize("roles", [["pattern"], ["norm", "mlp_gate"], ["activation", "attention_gate"]])
def test_frozen_readings_follow_their_weights(roles: list[str]) -> None:
    torch.manual_seed(0)
    block, point = Normed(), drawn(4, 6, seed=1)
    chart = ff.charts.token(point, -1, drawn(2, 6, seed=2))
    M = ff.StatisticalManifold(ff.freeze(block, point, roles, differentiable=True), chart, differentiable=True)
    u = 0.3 * drawn(2, 2, seed=3)
    with torch.no_grad():
        for seed, parameter in enumerate(block.parameters()):
            parameter.add_(0.1 * drawn(*parameter.shape, seed=seed))
    fresh = ff.StatisticalManifold(ff.freeze(block, point, roles), chart)
    assert torch.allclose(M.scalar_curvature(u), fresh.scalar_curvature(u), rtol=1e-10, atol=1e-12)
    assert_gradients(lambda: M.scalar_curvature(u).sum(), [*block.parameters()], 1e-6)


#: where a quantity is not differentiable, and what is said
KINKS: dict[str, tuple[int, Callable[[Tensor], Tensor], str]] = {
    "second_fundamental_form_norm": (2, lambda u: torch.cat([u, u[:1] + 2 * u[1:]]), "second fundamental form is zero"),
    "mean_curvature_norm": (2, lambda u: torch.cat([u, u.prod()[None]]), "mean curvature is zero"),
    "singular_values": (2, lambda u: torch.cat([u, u.square().sum()[None]]), "two singular values are equal"),
    "condition_number": (3, lambda u: torch.cat([u, u.square().sum()[None]]), "attained twice"),
    "sectional_extremes": (3, lambda u: torch.cat([u, u.square().sum()[None]]), "of two planes"),
    "sectional_extremes ": (4, lambda u: torch.cat([u, u.square().sum()[None]]), "of two planes"),
}


@pytest.mark.parametrize("name", KINKS)
def test_quantities_that_are_not_differentiable_here(name: str) -> None:
    k, f, said = KINKS[name]
    a = torch.ones((), dtype=torch.float64, requires_grad=True)
    M = ff.StatisticalManifold(lambda u: a * f(u), ff.charts.identity(k), differentiable=True)
    with pytest.raises(ff.errors.NotDifferentiableError, match=said):
        M.measure([0.0] * k, [name.strip()])
    with torch.no_grad():
        assert M.measure([0.0] * k, [name.strip()])[name.strip()].shape[-1:] in ((), (k,), (2,))


def test_extremes_over_planes_of_four_coordinates() -> None:
    net = Net(7, 4)
    M = ff.StatisticalManifold(net, ff.charts.identity(4), differentiable=True)
    u = (0.3 * drawn(2, 4, seed=4)).requires_grad_()
    assert_gradients(of(M, u, ["sectional_extremes"]), [*net.parameters(), u], 1e-5)


def test_a_long_tape_is_computed_again_piece_by_piece() -> None:
    net, chart = Net(), ff.charts.affine(drawn(3, seed=1), drawn(2, 3, seed=2))
    u, found = drawn(40, 2, seed=3), []
    for memory in (None, 20_000):
        M = ff.StatisticalManifold(net, chart, differentiable=True, memory=memory)
        leaf = u.clone().requires_grad_()
        net.zero_grad()
        with Tally() as tally:
            M.scalar_curvature(leaf).sum().backward()
        found.append((torch.cat([leaf.grad.reshape(-1), *(p.grad.reshape(-1) for p in net.parameters())]), tally.peak))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-11, atol=1e-13)
    assert found[1][1] < 0.5 * found[0][1]


def test_the_tape_of_a_block_is_not_much_larger_than_what_it_is_of() -> None:
    torch.manual_seed(0)
    d = 192
    block = nn.Sequential(nn.LayerNorm(d), ff.layers.SelfAttention(d, heads=4), ff.layers.GatedMLP(d, 4 * d)).double()
    chart = ff.charts.token(drawn(8, d, seed=1), -1, drawn(2, d, seed=2))
    weights = sum(parameter.numel() * 8 for parameter in block.parameters())
    u, peaks = drawn(8, 2, seed=3), []
    for M in (ff.StatisticalManifold(block, chart), ff.StatisticalManifold(block, chart, differentiable=True)):
        found = M.scalar_curvature(u)
        if M.differentiable:
            found.sum().backward()
        with Tally() as tally:
            found = M.scalar_curvature(u)
            if M.differentiable:
                found.sum().backward()
        peaks.append(tally.peak + weights)
    assert peaks[1] < 4 * peaks[0]


def test_gradients_of_gradients() -> None:
    net, chart = Net(), ff.charts.affine(drawn(3, seed=1), drawn(2, 3, seed=2))
    M = ff.StatisticalManifold(net, chart, differentiable=True)
    u = (0.2 * drawn(1, 2, seed=3)).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v: M.scalar_curvature(v), (u,), atol=1e-5)
