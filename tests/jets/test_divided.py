"""Maps that are computed by rows: without derivatives where nothing moves, and not at all where nothing is read."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import rules as rule_cases
from cases.differences import dyadic, taylor_jet
from cases.model_layers import LAYERS as MODEL_LAYERS
from cases.roles import LAYERS as SMALL_LAYERS
from cases.roles import nothing, point
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

import fisherflat as ff
from fisherflat.jets.rows import _divided as division
from fisherflat.jets.rows import divided
from fisherflat.parts import trace
from fisherflat.studies.depth import Stack

N, WIDTH = 6, 4
LOWEST = torch.finfo(torch.float32).min


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps are divided, too."""
    monkeypatch.setattr(division, "_WORTH", 0)
    monkeypatch.setattr(division, "_GAIN", 1e9)


class Block(nn.Module):
    """A pre-norm block of two heads, with scores masked as `mask` does; all in double."""

    def __init__(self, mask: Callable[[Tensor], Tensor], width: int = WIDTH, hidden: int = 6, rotary: bool = False):
        super().__init__()
        self.mask, self.rotary = mask, rotary
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width, bias=False)
        self.up, self.gate, self.down = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norms = nn.ModuleList([nn.RMSNorm(width, eps=1e-5), nn.LayerNorm(width)])
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        n, width = x.shape
        q, k, v = (part.view(n, 2, -1).transpose(0, 1) for part in self.qkv(self.norms[0](x)).chunk(3, -1))
        if self.rotary:
            q, k = self._turned(q), self._turned(k)
        pattern = self.mask(q @ k.transpose(-1, -2) / 2)
        x = x + self.out((pattern @ v).transpose(0, 1).reshape(n, width))
        y = self.norms[1](x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))

    def _turned(self, x: Tensor) -> Tensor:
        angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] / 3
        a, b = x.chunk(2, -1)
        return x * angle.cos() + torch.cat([-b, a], -1) * angle.sin()


def _lower(scores: Tensor) -> Tensor:
    return torch.ones(scores.shape[-2:], dtype=torch.bool).tril()


def _added_up(scores: Tensor, number: float) -> Tensor:
    return scores + torch.full(scores.shape[-2:], number, dtype=scores.dtype).triu(1)


def _added(number: float) -> Callable[[Tensor], Tensor]:
    return lambda s: _added_up(s, number).softmax(-1)


def _lowest(scores: Tensor) -> Tensor:
    """The first token is padding: it sees nothing, and nothing sees it."""
    mask = torch.full(scores.shape[-2:], LOWEST, dtype=scores.dtype).triu(1)
    mask[:, 0] = LOWEST
    return scores + mask


def _seen(scores: Tensor) -> Tensor:
    """What is added and taken away again leaves the derivatives as they were."""
    mask = torch.full(scores.shape[-2:], -1e31, dtype=scores.dtype).triu(1)
    masked = scores + mask
    return masked.softmax(-1) + 0.1 * (masked - mask)


def _brought_back(scores: Tensor) -> Tensor:
    """Zero where a score is negative: nothing is put out any more."""
    return scores + (-scores).relu()


MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda s: s.softmax(-1),
    "infinite, filled in": lambda s: s.masked_fill(~_lower(s), -torch.inf).softmax(-1),
    "infinite, chosen": lambda s: torch.where(_lower(s), s, -torch.inf).softmax(-1),
    "infinite, added": _added(-torch.inf),
    "the lowest number, added": _added(LOWEST),
    "a low number, added": _added(-1e4),
    "added by a small factor": lambda s: s.add(torch.full_like(s, -1e31).triu(1), alpha=1e-30).softmax(-1),
    "added, by a small factor later": lambda s: s.add(_added_up(s, -1e31), alpha=1e-30).softmax(-1),
    "added and taken away": lambda s: (_added_up(s, -1e31) + torch.full_like(s, 1e31).triu(1)).softmax(-1),
    "filled in and brought back": lambda s: _brought_back(s.masked_fill(~_lower(s), -1e31)).softmax(-1),
    "padding": lambda s: _lowest(s).softmax(-1),
    "padding, flattened": lambda s: _lowest(s).reshape(-1, s.shape[-1]).softmax(-1).view_as(s),
    "a row filled in": lambda s: s.masked_fill(~_lower(s).roll(1, 0), LOWEST).softmax(-1),
    "a window": lambda s: s.masked_fill(~(_lower(s) & ~_lower(s).tril(-3)), -torch.inf).softmax(-1),
    "linear attention": lambda s: s.tril(),
    "linear attention, by a product": lambda s: s * _lower(s).to(s.dtype),
    "sigmoid attention": lambda s: s.masked_fill(~_lower(s), -torch.inf).sigmoid(),
    "logarithms": lambda s: s.masked_fill(~_lower(s), LOWEST).log_softmax(-1).exp(),
    "what else sees what is masked": _seen,
}
POSITIONS: dict[str, list[int]] = {"first": [0], "middle": [2], "last": [N - 1], "several": [1, 4], "all": [*range(N)]}
READ: dict[str, Callable[[Tensor], Tensor]] = {
    "all": lambda y: y,
    "the last": lambda y: y[-1],
    "some": lambda y: y[[4, 1, 4, -2]],
    "two in a row": lambda y: y[2:4].T,
}


def states(seed: int = 0, n: int = N, width: int = WIDTH) -> Tensor:
    return torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def chart_of(tokens: list[int], k: int = 2, n: int = N, width: int = WIDTH) -> ff.charts.Chart:
    basis = torch.zeros(k, n, width, dtype=torch.float64)
    basis[:, tokens] = states(1, k * len(tokens), width).view(k, len(tokens), width)
    return ff.charts.affine(states(n=n, width=width), basis)


def assert_same(found: Tensor, truth: Tensor, k: int, tolerance: float = 1e-12) -> None:
    """Values, first and second derivatives, each to the size of its kind."""
    kinds = [1, k, k * (k + 1) // 2]
    for got, want in zip(found.split(kinds, 1), truth.split(kinds, 1), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance * (want.abs().max().item() + 1e-300))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("tokens", POSITIONS)
@pytest.mark.parametrize("mask", MASKS)
def test_jets_of_a_block_are_those_of_automatic_differentiation(mask: str, tokens: str) -> None:
    torch.manual_seed(0)
    block = Block(MASKS[mask], rotary=True)
    chart, u = chart_of(POSITIONS[tokens]), states(2, 2, 2) * 0.1
    truth = ff.StatisticalManifold(block, chart, engine="autodiff").jet(u).coefficients.unflatten(-1, (N, WIDTH))
    for read in READ.values():
        found = ff.StatisticalManifold(lambda x, read=read: read(block(x)), chart).jet(u).coefficients
        rows = torch.stack([torch.stack([read(y).flatten() for y in point]) for point in truth])
        assert_same(found, rows, 2, 1e-11)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("causal", [True, False])
def test_a_stack_of_blocks_by_a_fused_attention(causal: bool) -> None:
    torch.manual_seed(0)
    heads = [nn.Linear(WIDTH, 3 * WIDTH).double() for _ in range(3)]

    def stack(x: Tensor) -> Tensor:
        for head in heads:
            y = head(x / x.norm(dim=-1, keepdim=True))
            q, k, v = (part.view(1, N, 2, -1).transpose(1, 2) for part in y.chunk(3, -1))
            x = x + scaled_dot_product_attention(q, k, v, is_causal=causal)[0].transpose(0, 1).flatten(1)
        return x

    for tokens in POSITIONS.values():
        chart, u = chart_of(tokens), states(2, 3, 2) * 0.1
        truth = ff.StatisticalManifold(stack, chart, engine="autodiff").jet(u).coefficients
        assert_same(ff.StatisticalManifold(stack, chart).jet(u).coefficients, truth, 2)


LAYERS = SMALL_LAYERS | MODEL_LAYERS
OPS = [
    (name, shape, function)
    for cases in (rule_cases.STRUCTURAL, rule_cases.LINEAR, rule_cases.PRODUCTS, rule_cases.CHOICES)
    for name, several in cases.items()
    for shape, function in several
]


def assert_same_map(function: Callable[[Tensor], Tensor], point: Tensor, seed: int) -> None:
    """Some of the entries of an input move, along each axis in turn: values and jets by the same rules are the same."""
    graph, generator = trace(function, point), torch.Generator().manual_seed(seed)
    for axis in range(point.dim()):
        places = torch.rand(point.shape[axis], generator=generator) < 0.4
        mask = places.view(-1, *(1,) * (point.dim() - 1 - axis)).expand(point.shape)
        series = torch.zeros(3, 2, *point.shape, dtype=torch.float64)
        series[0] = point + mask * torch.tensor([0.0, 2.0**-12]).view(-1, *(1,) * point.dim())
        series[1:] = mask * torch.randn(2, 1, *point.shape, dtype=torch.float64, generator=generator)
        other = divided(graph, mask).graph
        torch.testing.assert_close(other(point), graph(point), rtol=1e-12, atol=1e-12)
        assert_same(taylor_jet(other, series, 2), taylor_jet(graph, series, 2), 2)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_all_kinds(name: str) -> None:
    assert_same_map(lambda x: LAYERS[name](x, nothing), point(name), len(name))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(("name", "shape", "function"), OPS, ids=[f"{i}-{op[0]}" for i, op in enumerate(OPS)])
def test_ops_of_all_kinds(name: str, shape: tuple[int, ...], function: Callable[[Tensor], Tensor]) -> None:
    x = dyadic(shape, 0, 2.0**-9) + 2.0**-10
    assert_same_map(function, x, 1)
    assert_same_map(lambda x: function(x * x.sin()).cumsum(-1) if function(x).dim() else function(x), x, 2)
    assert_same_map(lambda x: function(x)[..., -1:] if function(x).dim() else function(x), x, 3)


def counted(function: Callable[[], Any]) -> int:
    """How many operations of matrix products torch counts."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def test_a_token_costs_as_much_as_its_own_row_however_long_the_prompt() -> None:
    torch.manual_seed(0)
    width, hidden, points = 64, 256, 5
    block, u = Block(MASKS["infinite, filled in"], width, hidden), torch.zeros(points, 2, dtype=torch.float64)
    row = 2 * (4 * width**2 + 3 * width * hidden)  # operations of the weights on one token
    for n in (128, 256):
        M = ff.StatisticalManifold(block, chart_of([n - 1], n=n, width=width))
        M.jet(u)  # what stands still is known from then on
        scores = 2 * 2 * n * width
        assert 6 * points * row < counted(lambda M=M: M.jet(u)) < 6 * points * (1.01 * row + 1.5 * scores)


@pytest.mark.parametrize("read", [lambda y: y[-1], lambda y: y[-1:], lambda y: y[[-1]]], ids=["one", "slice", "list"])
def test_what_is_not_read_is_not_computed(read: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    n, width, hidden, points = 128, 64, 256, 5
    block, u = Block(MASKS["none"], width, hidden), torch.zeros(points, 2, dtype=torch.float64)
    attended = 2 * width**2 * 3 * n + 4 * n * width  # all keys, values and queries, and the scores of one
    row = 2 * (width**2 + 3 * width * hidden)
    M = ff.StatisticalManifold(lambda x: read(block(x)), chart_of([*range(n)], n=n, width=width))
    M.jet(u)
    assert counted(lambda: M.jet(u)) < 6 * points * (row + 1.2 * attended)


@pytest.mark.usefixtures("always")
def test_other_directions_move_what_stood_still() -> None:
    block, u = Block(MASKS["infinite, added"]), states(2, 3, 2) * 0.1
    chart, wide = chart_of([N - 1]), chart_of([0, 2])
    engine = ff.StatisticalManifold(block, chart).engine
    engine.jet(u)
    at = ff.charts.affine(chart.point, wide.basis)
    truth = ff.StatisticalManifold(block, at, engine="autodiff").jet(u * 0).coefficients
    assert_same(engine.jet(u * 0, wide.basis.expand(3, *wide.basis.shape)), truth, 2)
    other = ff.StatisticalManifold(block, chart).engine.on(at)
    assert_same(other.jet(u * 0), truth, 2)
    engine = ff.StatisticalManifold(block, chart).engine
    engine.jet(u)
    chart.basis.copy_(wide.basis)
    assert_same(engine.jet(u * 0), truth, 2)


@pytest.mark.usefixtures("always")
def test_the_same_in_other_engines_precisions_and_copies() -> None:
    pytest.importorskip("jax")
    block, u = Block(MASKS["infinite, added"]), states(2, 3, 2) * 0.1
    chart = chart_of([2])
    truth = ff.StatisticalManifold(block, chart, engine="autodiff").jet(u).coefficients
    assert_same(ff.StatisticalManifold(block, chart, engine="xla").jet(u).coefficients, truth, 2)
    assert_same(ff.StatisticalManifold(block, chart, dtype=torch.float32).jet(u).coefficients.double(), truth, 2, 1e-4)
    assert_same(pickle.loads(pickle.dumps(ff.StatisticalManifold(block, chart).engine)).jet(u), truth, 2)
    tight = ff.StatisticalManifold(block, chart, memory=2**15)  # a few directions at a time
    assert_same(tight.jet(u).coefficients, truth, 2)


@pytest.mark.usefixtures("always")
@pytest.mark.filterwarnings("ignore::fisherflat.errors.PrecisionWarning")
@pytest.mark.parametrize("seed", range(4))
def test_errors_are_those_of_the_map_and_more_bits_read_it_as_traced(seed: int) -> None:
    """Along directions that are nearly parallel the curvature is what it is along others in the same plane."""
    torch.manual_seed(seed)
    block, u = Block(MASKS["infinite, added"]), torch.zeros(1, 2, dtype=torch.float64)
    one, two = (chart_of([3]).basis * 2.0**24).round() / 2.0**24  # so that the sum below is exact: the same plane
    straight, skewed = (ff.charts.affine(states(), torch.stack([one, other])) for other in (two, one + 2.0**-20 * two))
    truth = ff.StatisticalManifold(block, straight, engine="autodiff").measure(u, ["scalar_curvature"])
    M = ff.StatisticalManifold(block, skewed)
    found = M.measure(u, ["scalar_curvature"], error=True)
    difference = (found["scalar_curvature"] - truth["scalar_curvature"]).abs()
    assert difference <= found["scalar_curvature_error"] <= 1e-12
    assert not any(node.op == "aten.detach" for node in M.engine.graph.nodes)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("tokens", POSITIONS)
def test_depth_by_depth(tokens: str) -> None:
    """In a stack what moves after a block is what enters the next one; a map of all blocks is the truth."""
    torch.manual_seed(0)
    blocks = [Block(MASKS["infinite, added"]) for _ in range(3)]
    chart, u = chart_of(POSITIONS[tokens]), states(2, 3, 2) * 0.1
    depths = Stack(blocks, chart).depths(u, lambda depth, jets, u: jets)
    for count, (found, *_) in enumerate(depths):
        truth = ff.StatisticalManifold(nn.Sequential(*blocks[:count]), chart, engine="autodiff").jet(u[: len(found)])
        assert_same(found, truth.coefficients, 2, 1e-11)


@pytest.mark.usefixtures("always")
def test_a_map_is_divided_once_and_let_go() -> None:
    graph = trace(Block(MASKS["infinite, added"]), states())
    mask = torch.zeros(N, WIDTH, dtype=torch.bool)
    mask[-1] = True
    found = divided(graph, mask)
    assert divided(graph, mask).graph is found.graph is not graph
    assert torch.equal(found.moves, mask)
    whole = divided(graph, ~torch.zeros_like(mask))
    assert whole.moves.all()
    seen = weakref.ref(graph)
    del graph, whole
    gc.collect()
    assert seen() is None


def test_where_little_is_saved_a_map_stays_as_it_is() -> None:
    graph = trace(Block(MASKS["none"], 64, 256), states(n=64, width=64))
    assert divided(graph, torch.ones(64, 64, dtype=torch.bool)).graph is graph
    small = trace(Block(MASKS["infinite, added"]), states())
    one = torch.zeros(N, WIDTH, dtype=torch.bool)
    one[-1] = True
    assert divided(small, one).graph is small
    assert divided(graph, torch.ones(64, 64, dtype=torch.bool, device="meta")).graph is graph
