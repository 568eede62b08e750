"""The engine that captures CUDA graphs, on a stand-in that calls again what was called, on the same memory."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases.devices import Replayed, cuda_graphs
from torch import Tensor

import fisherflat as ff
from fisherflat.jets.engines import _prepared
from fisherflat.lab.bench.maps import subject


@pytest.fixture
def graphs() -> Iterator[list[Replayed]]:
    with cuda_graphs() as made:
        yield made


def jets(f: object, chart: ff.charts.Chart, u: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients by the default engine and by replay; twice, since the first call captures."""
    ours, manifold = (
        ff.StatisticalManifold(f, chart, engine=engine)  # type: ignore[arg-type]
        for engine in ("taylor", "cudagraphs")
    )
    first = manifold.jet(u).coefficients
    manifold.jet(u + 0.1)  # writes over what the graph holds, and not over what was given before
    agree(ours.jet(u).coefficients, first)
    return ours.jet(u).coefficients, manifold.jet(u).coefficients


def agree(ours: Tensor, replayed: Tensor) -> None:
    assert (ours - replayed).abs().max() <= 1e-14 * ours.abs().max()


@pytest.mark.parametrize(
    ("name", "k", "points"), [("attention-64", 2, 37), ("attention-64", 8, 3), ("block-64", 3, 5), ("norm-64", 3, 4)]
)
def test_a_replay_gives_what_the_default_engine_gives(graphs, name, k, points):
    made = subject(name, k)
    agree(*jets(made.module, made.chart, made.points(points)))
    assert [graph.replays for graph in graphs] == [3]


def test_points_in_several_pieces(graphs, monkeypatch):
    made = subject("attention-4", 2)
    monkeypatch.setattr(_prepared, "WARM", 2**14)
    agree(*jets(made.module, made.chart, made.points(37)))
    (graph,) = graphs
    assert graph.replays > 3


def test_several_threads_ask_at_a_time(graphs):
    made = subject("attention-4", 2)
    ours, manifold = (
        ff.StatisticalManifold(made.module, made.chart, engine=engine) for engine in ("taylor", "cudagraphs")
    )
    points = [made.points(8) + 0.1 * i for i in range(16)]
    manifold.jet(points[0])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda u: manifold.jet(u).coefficients, points))
    for u, replayed in zip(points, found, strict=True):
        agree(ours.jet(u).coefficients, replayed)


def test_points_at_which_numbers_decide_are_the_default_engines(graphs):
    """The second point moves along itself before a norm, where the rule of norms is another one."""
    x = torch.tensor([0.21, 0.4, 0.55, 0.7, 0.83, 0.33], dtype=torch.float64)
    x -= x.mean()
    chart = ff.charts.affine(torch.zeros_like(x), torch.stack([x, torch.linspace(-1, 1, 6, dtype=x.dtype) ** 3]))
    points = torch.tensor([[1.0, 0.5], [1.0, 0.0], [0.7, -0.4]], dtype=torch.float64)
    ours, replayed = (
        ff.StatisticalManifold(torch.nn.LayerNorm(6, eps=1e-12).double(), chart, engine=engine).jet(points).coefficients
        for engine in ("taylor", "cudagraphs")
    )
    assert torch.equal(ours[1], replayed[1]) and (ours - replayed).abs().max() <= 1e-13 * ours.abs().max()


@pytest.mark.filterwarnings("ignore::fisherflat.errors.FallbackWarning")
def test_what_the_host_waits_for_is_refused(graphs):
    chart = ff.charts.affine(torch.tensor([0.3, 0.5, 0.9], dtype=torch.float64), torch.eye(3, dtype=torch.float64)[:2])
    with pytest.raises(ff.errors.UnsupportedOpError, match=r"host waits.*engine=\"taylor\""):
        ff.StatisticalManifold(torch.special.i0e, chart, engine="cudagraphs").jet([0.0, 0.0])


def test_it_wants_a_gpu_and_keeps_no_tape():
    for options, message in (({}, "NVIDIA GPUs.*chart is on cpu"), ({"differentiable": True}, "keeps no tape")):
        manifold = ff.StatisticalManifold(torch.sin, ff.charts.identity(2), engine="cudagraphs", **options)
        with pytest.raises(ff.errors.InputError, match=message):
            manifold.jet([0.0, 0.0])
