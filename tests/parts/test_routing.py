"""Mixtures of experts: where their routing is fixed, and that leaving it is said."""

from __future__ import annotations

import warnings

import pytest
import torch
from cases.tiny_models import tiny_model
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import RoutingWarning
from fisherflat.models import Model
from fisherflat.parts import choices, rerouted
from fisherflat.parts._routing import warn_where_rerouted

IDS = [5, 6, 7, 8]


class Experts(nn.Module):
    """The larger of two scores picks the matrix: the first where `x[0] > x[1]`."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("matrices", torch.randn(2, 3, 3, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        weight, expert = torch.topk(x[:, :2].softmax(-1), 1)
        return weight * torch.tanh(torch.bmm(self.matrices[expert[:, 0]], x[:, :, None])[:, :, 0])


def test_where_another_expert_is_chosen() -> None:
    x = torch.tensor([[0.3, 0.0, 1.0]], dtype=torch.float64)
    chart = ff.charts.affine(x, torch.tensor([[[0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]], dtype=torch.float64))
    u = torch.tensor([[[0.0, 0.0], [0.29, 3.0]], [[0.31, 0.0], [1.0, -2.0]]], dtype=torch.float64)
    graph = ff.trace(Experts(), x)
    assert len(choices(graph)) == 1
    assert rerouted(graph, chart, u).tolist() == [[False, False], [True, True]]
    with pytest.warns(RoutingWarning, match=r"the layer chooses other experts at 2 of 4 points"):
        warn_where_rerouted(graph, chart, u, "the layer")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_where_rerouted(graph, chart, u[0])
    # jets at a point are those of its own routing: of the module itself, in the other engine
    for point in u.reshape(-1, 2):
        ours, theirs = (ff.StatisticalManifold(Experts(), chart, engine=e).jet(point) for e in ("taylor", "autodiff"))
        torch.testing.assert_close(ours.hessian, theirs.hessian, rtol=1e-9, atol=1e-12)


def test_a_tie_at_the_base_point_has_the_geometry_of_one_side() -> None:
    """`topk` prefers one of two equal scores, as the forward pass does."""
    x = torch.tensor([[0.5, 0.5, 1.0]], dtype=torch.float64)
    chart = ff.charts.affine(x, torch.eye(3, dtype=torch.float64)[:2, None])
    at_tie = ff.StatisticalManifold(Experts(), chart).scalar_curvature(torch.zeros(2))
    sides = [ff.StatisticalManifold(Experts(), chart).scalar_curvature(torch.tensor([s, 0.0])) for s in (1e-9, -1e-9)]
    assert any(torch.isclose(at_tie, side, rtol=1e-6) for side in sides)
    assert not torch.isclose(sides[0], sides[1], rtol=1e-2)


@pytest.mark.parametrize("kind", ["mixtral", "olmoe"])
def test_routing_of_checkpoints(kind: str) -> None:
    block = Model(tiny_model(kind)).blocks(IDS)[0]
    graph = ff.trace(block.mlp, block.mlp_input)
    assert choices(graph) and not choices(ff.trace(block.attention, block.attention_input))
    chart = ff.charts.principal(block.mlp_input, -1, 2)
    far = 10 * torch.randn(12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert not rerouted(graph, chart, 1e-7 * far).any()
    # ten units away the router's scores are others, at some points: by hand, from its own weights
    token = chart(far)[:, -1]
    router = next(m for name, m in block.root.named_modules() if name.endswith((".gate", ".router")))
    weight = next(router.parameters())
    chosen = [set((rows @ weight.T).topk(2).indices[0].tolist()) for rows in (block.mlp_input[-1:], *token[:, None])]
    expected = [other != chosen[0] for other in chosen[1:]]
    assert rerouted(graph, chart, far).tolist() == expected and sum(expected) > 0


def test_an_analysis_says_so() -> None:
    model = Model(tiny_model("mixtral"))
    options = {"layers": [0], "parts": ["mlp"], "readings": ["live"], "positions": "last", "progress": False}
    with pytest.warns(RoutingWarning, match=r"In layer 0 a mixture of experts chooses others at \d+ of 24 points"):
        found = ff.analyze(model, IDS, points=24, **options)
    assert 0 < found.table["rerouted"].sum() < 24 and not found.table["rerouted"][0]
    assert any("experts chooses others" in note for note in found.notes)
    dense = ff.analyze(Model(tiny_model("llama")), IDS, points=2, **options)
    assert dense.table["rerouted"].tolist() == [False, False]
