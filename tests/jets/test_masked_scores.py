"""Scores that are masked with -inf are so nearby too: softmax over them needs no look at values nearby."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.jets.engines import TensorAlgebra, evaluated, start

F = torch.nn.functional


class Masked(nn.Module):
    """A pre-norm causal attention, whose tokens are as small as embeddings of a fresh model are."""

    def __init__(self, mask: bool) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = nn.Parameter(torch.randn(3, 16, 16, generator=generator, dtype=torch.float64) / 4)
        future = torch.full((6, 6), -math.inf, dtype=torch.float64).triu(1)
        self.register_buffer("mask", future if mask else None)

    def forward(self, x: Tensor) -> Tensor:
        normed = F.rms_norm(x, (16,), eps=1e-6)
        q, k, v = (normed @ weight for weight in self.weights)
        if self.mask is None:
            scores = (q @ k.mT / 4).masked_fill(torch.ones(6, 6, dtype=torch.bool).triu(1), -math.inf)
            return x + scores.softmax(-1) @ v
        return x + F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=self.mask)[0]


def test_masked_scores_are_masked_nearby() -> None:
    hidden = 0.02 * torch.randn(6, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    basis = 0.02 * torch.eye(16, dtype=torch.float64)[:2]
    chart, u = ff.charts.token(hidden, 3, basis), torch.tensor([[0.0, 0.0], [0.3, -0.2]], dtype=torch.float64)
    fused = Masked(True)
    graph, algebra = ff.trace(fused, chart), TensorAlgebra()
    assert any(node.op == "aten.eq" for node in graph.nodes)
    evaluated(algebra, graph, start(chart, u))
    assert algebra.alone is not None and not algebra.alone.any()
    found, want = (ff.StatisticalManifold(m, chart).scalar_curvature(u) for m in (fused, Masked(False)))
    assert torch.allclose(found, want, rtol=1e-9)


def test_what_is_infinite_at_a_point_alone_is_looked_at() -> None:
    def spiked(x: Tensor) -> Tensor:
        return torch.where(x.log() == -math.inf, 0.0, x.square())

    algebra, chart = TensorAlgebra(), ff.charts.identity(2)
    evaluated(algebra, ff.trace(spiked, torch.ones(2)), start(chart, torch.tensor([[0.0, 1.0], [1.0, 2.0]]).double()))
    assert algebra.alone is not None and algebra.alone.tolist() == [True, False]
