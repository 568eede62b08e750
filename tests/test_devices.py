"""What a GPU needs, without one: nothing is made on the CPU on the way, and the host waits for no value in a graph.

On the meta device shapes and devices are real and values are not; where values decide, `cases.devices.Elsewhere` marks
what the host made. What only a GPU can tell is in `fisherflat bench --device cuda --only gpu`.
"""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from cases.devices import Elsewhere, OneDevice, far_away
from torch import Tensor, nn

import fisherflat as ff
from fisherflat._arrays import some
from fisherflat.geometry import Geometry, _chebyshev, _sectional
from fisherflat.jets import pair_index, size
from fisherflat.lab.bench import gpu
from fisherflat.lab.bench.maps import subject

META, CPU = torch.device("meta"), torch.device("cpu")
MAPS = [("attention-64", 2), ("attention-64", 8), ("block-64", 4), ("norm-64", 3)]
FAMILIES = [
    (ff.families.Gaussian(0.7), 6),
    (ff.families.Gaussian(torch.arange(1.0, 7.0)), 6),
    (ff.families.Gaussian(torch.eye(6) + 1), 6),
    (ff.families.Categorical(), 6),
    (ff.families.Bernoulli(), 6),
    (ff.families.Poisson(), 6),
    (ff.families.DiagonalGaussian(), 6),
    (ff.families.IsotropicGaussian(), 6),
    (ff.families.FullGaussian(3), 9),
    (ff.families.VonMisesFisher(), 6),
    (ff.families.VonMisesFisher(2.0), 6),
    (ff.families.ExponentialFamily(lambda theta: theta.exp().sum()), 6),
]
SHAPES = {
    "metric": (3, 3),
    "christoffel": (3, 3, 3),
    "second_fundamental_form": (3, 3, 80),
    "riemann": (3, 3, 3, 3),
    "ricci": (3, 3),
    "scalar_curvature": (),
    "sectional_extremes": (2,),
    "mean_curvature": (80,),
    "volume_density": (),
    "scalar_curvature_error": (),
}


# -- the meta device -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "k"), MAPS)
def test_jets_and_geometry_run_where_the_map_is(name, k, dtype):
    made = subject(name, k, device="meta", dtype=dtype)
    manifold, u = ff.StatisticalManifold(made.module, made.chart, dtype=dtype), made.points(3)
    manifold.jet(u)  # what is made once is made: the graph, and what it knows of tokens, which is on the host
    with OneDevice() as mode:
        jet = manifold.jet(u).coefficients
        found = manifold.measure(u, ["scalar_curvature", "metric", "mean_curvature"])
    assert not mode.seen
    outputs = made.module(made.inputs(1)[0]).numel()
    assert jet.is_meta and jet.dtype == dtype and jet.shape == (3, size(k), outputs)
    assert all(value.is_meta and value.dtype == dtype for value in found.values())
    assert found["metric"].shape == (3, k, k)


def test_every_quantity_has_its_shape_there():
    module, chart, u = gpu._small(META, torch.float64)
    manifold = ff.StatisticalManifold(module, chart)
    names = [name for name in SHAPES if not name.endswith("_error")]
    found = manifold.measure(u, names, error=True)
    assert {name: (value.device.type, tuple(value.shape)) for name, value in found.items() if name in SHAPES} == {
        name: ("meta", (4, *shape)) for name, shape in SHAPES.items()
    }
    assert manifold.sectional_curvature(u, u, u).shape == (4,)
    assert manifold.amari_chentsov(u).shape == (4, 3, 3, 3)
    assert isinstance(manifold.at(u), Geometry)


@pytest.mark.parametrize(("family", "outputs"), FAMILIES, ids=lambda given: type(given).__name__)
def test_families_run_there(family, outputs):
    module, chart, u = gpu._small(META, torch.float64, 2, outputs)
    manifold = ff.StatisticalManifold(module, chart, family)
    quantities = ["metric", "scalar_curvature", "amari_chentsov"]
    manifold.measure(u, quantities)
    with OneDevice() as mode:
        found = manifold.measure(u, quantities)
    assert not mode.seen
    assert found["metric"].is_meta and found["metric"].shape == (4, 2, 2) and found["scalar_curvature"].shape == (4,)


@pytest.mark.parametrize("what", [gpu._frozen, gpu._gradient, gpu._budget, gpu._penalty], ids=lambda f: f.__name__)
def test_freezing_gradients_attribution_and_training_run_there(what):
    expected = {name: tuple(value.shape) for name, value in what(CPU, torch.float64).items()}
    found = what(META, torch.float64)
    assert {name: tuple(value.shape) for name, value in found.items()} == expected
    assert all(value.is_meta for value in found.values())


CHARTS = {
    "affine": lambda x: ff.charts.affine(x[0], x),
    "token": lambda x: ff.charts.token(x[0], -1, x[:2, 0]),
    "simplex": ff.charts.simplex,
    "attention weights": lambda x: ff.charts.attention_weights(x[0]),
    "principal": lambda x: ff.charts.principal(x, -1, 3),
    "identity": lambda x: ff.charts.identity(3).to(x.device),
}


@pytest.mark.parametrize("make", CHARTS.values(), ids=CHARTS)
def test_charts_are_made_of_such_tensors(make):
    x = torch.randn(4, 5, 8, dtype=torch.float64)
    here, there = make(x), make(x.to("meta"))
    assert there.point.is_meta and there.basis.is_meta
    assert (there.point.shape, there.basis.shape) == (here.point.shape, here.basis.shape)


@pytest.mark.parametrize("given", [(), (3,), (3, 3)])
def test_covariances_are_made_of_such_tensors(given):
    made = ff.Gaussian(torch.empty(given, device="meta", dtype=torch.float64))
    assert made.whiten(torch.empty(2, 3, device="meta", dtype=torch.float64)).is_meta
    assert ff.Gaussian.calibrated(torch.empty(5, 3, device="meta")).covariance.is_meta


def test_nothing_is_known_of_values_that_are_not_there():
    with pytest.raises(ff.errors.InputError, match="NaN or infinite"):
        ff.charts.affine(torch.full((2,), float("nan")), torch.eye(2))
    assert not some(torch.ones(3, device="meta") > 0) and some(torch.ones(3) > 0) and not some(torch.zeros(3) > 0)


# -- a second device, as the host sees it ----------------------------------------------------------------------------


TABLES = [
    pair_index,
    _sectional._starts,
    *(getattr(_chebyshev, name) for name in ("_placed", "nodes", "derivative", "coefficients", "interpolation")),
]
CHECKS = [check for check in gpu.checks() if "256" not in check.name]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check.name}, {check.dtype}")
def test_what_the_host_makes_is_moved_before_it_is_used(check):
    for table in TABLES:  # which would have been moved before
        table.cache_clear()
    with Elsewhere() as mode:
        check.compute(CPU, check.dtype)
    assert not mode.mixed


def test_a_table_that_is_not_moved_would_be_seen():
    x = torch.ones(3)
    with Elsewhere() as mode:
        x + 1
        x * torch.tensor(2.0)  # a number may come along
        x * torch.arange(3, device=x.device)
        x * torch.arange(3).to(x)
        assert not mode.mixed and not mode.waits
        x * (torch.arange(3) + 1)
        x[torch.tensor([0, 1])]
        bool((x > 0).any())
    assert len(mode.mixed) == 2 and len(mode.waits) == 1


@pytest.mark.parametrize(("name", "k"), MAPS)
def test_the_host_waits_for_nothing_on_the_way_through_a_graph(name, k):
    made = subject(name, k)
    engine, u = ff.StatisticalManifold(made.module, made.chart).engine, made.points(3)
    with far_away():
        engine.jet(u)
        with Elsewhere() as mode:
            engine.jet(u)
    assert not mode.waits


def test_the_host_waits_once_for_each_pass_through_a_graph_with_a_tape():
    """One for what all points share, one for the points."""
    made = subject("block-64", 2)
    module = copy.deepcopy(made.module).requires_grad_(True)
    engine, u = ff.StatisticalManifold(module, made.chart, differentiable=True).engine, made.points(2)
    with far_away():
        engine.jet(u)
        with Elsewhere() as mode:
            engine.jet(u).sum().backward()
    assert len(mode.waits) == 2


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_norms_are_the_same_whether_or_not_the_host_waits(scale):
    """Of a token that moves along itself, where a norm hardly changes, and of one that stays at zero."""
    torch.manual_seed(2)
    point, basis = torch.randn(3, 6, dtype=torch.float64), torch.randn(2, 3, 6, dtype=torch.float64)
    point -= point.mean(-1, keepdim=True)
    basis[:, 1] = torch.tensor([scale, 0.5])[:, None] * point[1]
    point[2], basis[:, 2] = 0.0, 0.0
    module, chart = nn.LayerNorm(6).double(), ff.charts.affine(point, basis)
    u = 1e-4 * torch.randn(4, 2, dtype=torch.float64)
    engine = ff.StatisticalManifold(module, chart).engine
    here = engine.jet(u)
    with far_away():
        there = engine.jet(u)
    # each coefficient of the token, not of the others, which are larger
    for token in (0, 1, 2):
        a, b = (jet.unflatten(-1, (3, 6))[..., token, :] for jet in (there, here))
        for row in range(size(2)):
            torch.testing.assert_close(a[:, row], b[:, row], rtol=0, atol=1e-13 * float(b[:, row].abs().max()))


def test_gradients_are_the_same_whether_or_not_the_host_waits():
    here = gradients(torch.tensor([0.5, 1.0]))
    with far_away():
        there = gradients(torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(there, here, rtol=1e-12, atol=1e-14)


def test_gradients_that_spill_are_stopped_either_way():
    """The square root of zero is not read, and has an infinite slope."""
    here = gradients(torch.tensor([0.0, 1.0]))
    with far_away():
        there = gradients(torch.tensor([0.0, 1.0]))
    assert here.isfinite().all() and there.isfinite().all()
    torch.testing.assert_close(there, here, rtol=1e-12, atol=1e-14)


class Roots(nn.Module):
    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(start.double())
        self.other = nn.Parameter(torch.tensor([[1.0, 0.5], [-0.25, 2.0]], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.other.T
        roots = (self.weight + 0 * y).sqrt()  # of which the second alone is read
        return torch.stack([y[0], y[1], roots[1] * (y[0] ** 2 + y[1] ** 2)])


def gradients(start: Tensor) -> Tensor:
    module = Roots(start)
    manifold = ff.StatisticalManifold(module, ff.charts.identity(2), differentiable=True)
    manifold.scalar_curvature([[0.1, 0.2]]).sum().backward()
    return torch.cat([weight.grad.flatten() for weight in module.parameters()])


def test_tables_are_made_once_on_each_device():
    for k, device in itertools.product((1, 2, 5), (CPU, META)):
        assert pair_index(k, device) is pair_index(k, device) and pair_index(k, device).device == device
    assert pair_index(4).tolist() == [[0, 1, 2, 3], [1, 4, 5, 6], [2, 5, 7, 8], [3, 6, 8, 9]]
