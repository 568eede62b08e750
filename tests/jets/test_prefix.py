"""What points share: polynomials by their jet at the origin, against each point by itself and against other engines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases.differences import dyadic
from torch import Tensor, nn
from torch.nn import functional as F

import fisherflat as ff
from fisherflat.geometry import ENGINES
from fisherflat.jets.engines import Noise, TaylorEngine
from fisherflat.jets.ops import degrees
from fisherflat.jets.recording import Mapping
from fisherflat.spaces.charts import Chart, affine, identity

N, D = 3, 4
W = [dyadic((D, D), seed, 2.0**-4, 16) for seed in range(4)]
MASK = torch.tensor([[True, False, False], [True, True, False], [True, True, True]])
Map = Callable[[Tensor], Tensor]


def attention(x: Tensor, causal: bool = False) -> Tensor:
    scores = (x @ W[0]) @ (x @ W[1]).mT / 2
    if causal:
        scores = scores.masked_fill(~MASK, -torch.inf)
    return (scores.softmax(-1) @ (x @ W[2])) * (x @ W[3]).sigmoid()


def convolved(x: Tensor) -> Tensor:
    signal = F.conv1d(x.mT[None], W[0][:2, :, None].expand(2, 4, 2), torch.ones(2, dtype=x.dtype))
    return signal.square().sum((-1, -2)).log()


MAPS: dict[str, Map] = {
    "attention": attention,
    "causal attention": lambda x: attention(x, causal=True),
    "all linear": lambda x: F.linear(x, W[0], W[1][0]) @ W[2] - x,
    "all quadratic": lambda x: (x @ W[0]) * (x @ W[1]) + x.square(),
    "quadratic times weights": lambda x: ((x @ W[0]) * x) @ W[1],
    "cubic": lambda x: (x @ W[0]) * (x @ W[1]) * x,
    "norm": lambda x: F.layer_norm(x @ W[0], (D,)),
    "norm of what only moves": lambda x: F.rms_norm(x.flip(-1), (D,), eps=1e-3),
    "two norms and a residual": lambda x: x + F.rms_norm(x + F.layer_norm(x, (D,)) @ W[0], (D,)),
    "pieces": lambda x: torch.cat([x[:1] @ W[0], x[1:]]).relu() + torch.where(x > 0, x @ W[1], x),
    "no product": lambda x: x.tanh(),
    "multiplied away": lambda x: (x @ W[0]) * 0 + torch.zeros_like(x),
    "shapes alone in it": lambda x: (x @ W[0]) * torch.ones_like(x),
    "shapes of what only moves": lambda x: torch.cat([x @ W[0], x.new_ones(1, D), torch.full_like(x[:1], 2)]).exp(),
    "broadcast": lambda x: (x @ W[0])[:, None] * (x @ W[1])[None] + x.sum(),
    "batches": lambda x: (torch.stack([x, 2 * x]) @ torch.stack(W[:2])).exp().sum(0),
    "quotients": lambda x: (x @ W[0]) / 3 + (x @ W[1]) / (1 + x.square()),
    "divided down": lambda x: torch.div(x @ W[0], 0.5, rounding_mode="floor") * x,
    "a power": lambda x: (x @ W[0]) ** 2 + (x @ W[1]) ** 3,
    "single precision on the way": lambda x: ((x.float() @ W[0].float()) * x.float()).exp(),
    "a layer": ff.layers.SelfAttention(D, heads=2, causal=True, gate=ff.layers.Gate(), bias=True).double(),
    "convolution": convolved,
}


def chart(k: int = 2) -> Chart:
    return affine(dyadic((N, D), 7, 2.0**-8), dyadic((k, N, D), 8, 2.0**-5, 16))


def jets(f: Map, where: Chart, u: Tensor, engine: str = "taylor") -> Tensor:
    mapping = Mapping(f, torch.float64, where.point.device)
    return ENGINES[engine](mapping, where, mapping.check(where.point).numel(), None).jet(u)


def assert_close(got: Tensor, want: Tensor, k: int, bound: float) -> None:
    for order in (slice(0, 1), slice(1, 1 + k), slice(1 + k, None)):
        scale = max(1e-3, want[:, order].abs().max().item())
        assert (got[:, order] - want[:, order]).abs().max() <= bound * scale


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", MAPS)
def test_points_that_share_have_the_jets_of_the_other_engine(name: str, k: int) -> None:
    u = torch.cat([dyadic((3, k), 9, 2.0**-6, 8), torch.zeros(1, k, dtype=torch.float64)])
    u = torch.cat([u, u[:1], 8 * u[:1]])  # the origin, one point twice, one far away
    f = MAPS[name]
    if name == "single precision on the way":
        f = lambda x: ((x @ W[0]) * x).exp()  # noqa: E731
    assert_close(jets(MAPS[name], chart(k), u), jets(f, chart(k), u, "autodiff"), k, 1e-11)


@pytest.mark.parametrize("name", MAPS)
def test_a_point_has_the_same_jet_alone_and_along_its_own_directions(name: str) -> None:
    where, u = chart(), dyadic((4, 2), 9, 2.0**-6, 8)
    mapping = Mapping(MAPS[name], torch.float64, where.point.device)
    engine = ENGINES["taylor"](mapping, where, mapping.check(where.point).numel(), None)
    assert isinstance(engine, TaylorEngine)
    together = engine.jet(u)
    assert_close(torch.cat([engine.jet(point) for point in u.split(1)]), together, 2, 1e-13)
    # with a basis at each point nothing is shared
    assert_close(engine.jet(u, where.basis.expand(4, *where.basis.shape)), together, 2, 1e-12)
    engine.chunk_memory, engine._memory = 1, 1  # by pairs of directions
    assert_close(engine.jet(u), together, 2, 1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_nodes_with_a_degree_are_polynomials_of_it(name: str) -> None:
    """Differences of one order more vanish along a line."""
    graph, where = ff.trace(MAPS[name], chart().point), chart()
    found = degrees(graph)
    steps = torch.arange(4.0, dtype=torch.float64)
    along = [graph.values(where.point + 64 * t * where.basis[0]) for t in steps]
    for node, degree in found.items():
        values = torch.stack([at[node].double() for at in along])
        finite = values.isfinite()
        difference = values.where(finite, 0.0)
        for _ in range(degree + 1):
            difference = difference.diff(dim=0)
        assert difference.abs().max() <= 1e-12 * values.where(finite, 0.0).abs().max() + 1e-300


def test_degrees_are_found_where_there_are_some() -> None:
    def found(f: Map) -> list[int | None]:
        graph = ff.trace(f, chart().point)
        known = degrees(graph)
        return [known.get(graph.output), max(known.values())]

    assert found(lambda x: x @ W[0]) == [1, 1]
    assert found(MAPS["all quadratic"]) == [2, 2]
    assert found(MAPS["cubic"]) == [None, 2]
    assert found(lambda x: x.tanh() @ W[0]) == [None, 1]


def test_behind_a_curve_nothing_is_shared() -> None:
    """A curved chart is a map before the map: its queries are no polynomials, and are right."""

    def curved(x: Tensor) -> Tensor:
        return attention(x.sin())

    graph = ff.trace(curved, chart().point)
    assert [node.op for node in degrees(graph)] == ["input"]
    u = dyadic((3, 2), 5, 2.0**-6, 8)
    assert_close(jets(curved, chart(), u), jets(curved, chart(), u, "autodiff"), 2, 1e-11)


def test_a_score_that_cancels_far_from_the_origin_keeps_its_places() -> None:
    """`(1e8 - u)(u + 1)` and its root near u = 1e8, where the terms of the polynomial are 1e16 times as large."""
    f = lambda x: ((1e8 - x) * (x + 1)).exp()  # noqa: E731
    u = torch.tensor([[1e8 - 2.0**-26]], dtype=torch.float64)
    exact = (1e8 - u[0, 0]) * (u[0, 0] + 1)  # both factors are exact
    found = jets(f, identity(1), u)[0, :, 0]
    assert torch.allclose(found[0].log(), exact, rtol=1e-14)


def test_each_point_has_a_noise_of_its_own() -> None:
    mapping = Mapping(lambda x: x @ W[0], torch.float64, torch.device("cpu"))
    where = chart()
    engine = ENGINES["taylor"](mapping, where, N * D, None)
    u = torch.zeros(2, 2, dtype=torch.float64)
    with torch.no_grad(), Noise(0):
        noisy = engine.jet(u)
    assert bool((noisy[0, 1:3] != noisy[1, 1:3]).any())
    exact = torch.cat([where.point[None], where.basis]) @ W[0]  # of multiples of powers of two
    assert torch.allclose(engine.jet(u)[0, :3], exact.flatten(1), rtol=0, atol=1e-17)  # nothing of the noise was kept


def test_a_map_that_follows_its_weights_is_not_remembered() -> None:
    layer = nn.Linear(D, D, bias=False).double()
    manifold = ff.StatisticalManifold(layer, chart(), differentiable=True)
    u = torch.zeros(1, 2, dtype=torch.float64)
    with torch.no_grad():
        before = manifold.jet(u).jacobian
        layer.weight.mul_(2)
        assert torch.allclose(manifold.jet(u).jacobian, 2 * before, rtol=1e-14)
    taped = manifold.jet(u).jacobian
    (gradient,) = torch.autograd.grad(taped.sum(), layer.weight)
    assert torch.allclose(gradient, chart().basis.sum((0, 1)).expand(D, D), rtol=1e-13)


def test_a_map_without_gradients_says_that_its_weights_have_changed() -> None:
    layer = nn.Linear(D, D, bias=False).double()
    manifold = ff.StatisticalManifold(layer, chart())
    manifold.jet([0.0, 0.0])
    with torch.no_grad():
        layer.weight.mul_(2)
    with pytest.raises(ff.errors.MapError):
        manifold.jet([0.0, 0.0])


def test_other_directions_have_polynomials_of_their_own() -> None:
    where, u = chart(3), dyadic((2, 3), 5, 2.0**-6, 8)
    mapping = Mapping(attention, torch.float64, where.point.device)
    engine = ENGINES["taylor"](mapping, where, N * D, None)
    engine.jet(u)
    turned = Chart(where.point, where.basis[:2].flip(0))
    assert_close(engine.on(turned).jet(u[:, :2]), jets(attention, turned, u[:, :2], "autodiff"), 2, 1e-11)


@pytest.mark.parametrize("name", ["point", "basis"])
@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
def test_a_chart_that_was_written_into_is_the_new_one(engine: str, name: str) -> None:
    where, fresh, u = chart(), chart(), dyadic((3, 2), 5, 2.0**-6, 8)
    manifold = ff.StatisticalManifold(attention, where, engine=engine)
    ends = [0.0, 0.0], [0.1, 0.2]
    before, there = manifold.jet(u).coefficients, manifold.distance(*ends)
    for one in (where, fresh):
        getattr(one, name).mul_(1.25)
    found = manifold.jet(u).coefficients
    assert not torch.allclose(found, before, rtol=1e-3)
    assert_close(found, jets(attention, fresh, u, "autodiff"), 2, 1e-11)
    truth = ff.StatisticalManifold(attention, fresh).distance(*ends)
    assert abs(truth - there) > 1e-3 and abs(manifold.distance(*ends) - truth) < 1e-9


def test_pieces_and_the_whole_are_the_same() -> None:
    where, u = chart(), dyadic((300, 2), 5, 2.0**-9, 64)
    whole = ff.StatisticalManifold(attention, where).jet(u).coefficients
    small = ff.StatisticalManifold(attention, where, memory=2**17).jet(u).coefficients
    assert_close(small, whole, 2, 1e-13)


def test_single_precision_is_as_good_as_its_rounding() -> None:
    where, u = chart(), dyadic((5, 2), 5, 2.0**-6, 8)
    layer = MAPS["a layer"]
    single = ff.StatisticalManifold(layer, where, dtype=torch.float32).jet(u).coefficients
    assert single.dtype == torch.float32
    assert_close(single.double(), jets(layer, where, u, "autodiff"), 2, 1e-5)


def test_an_error_at_one_point_is_its_own() -> None:
    """A logarithm of a negative number is no number there, and nothing to the others."""
    f = lambda x: (x @ W[0]).log()  # noqa: E731
    where = identity(D)
    good = torch.linalg.solve(W[0].T, torch.ones(D, dtype=torch.float64))
    found = jets(f, where, torch.stack([good, -good, 2 * good]))
    assert found[1, 0].isnan().all() and found[[0, 2]].isfinite().all()
    assert_close(found[[0]], jets(f, where, good[None]), D, 1e-13)
