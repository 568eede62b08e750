"""Timings of the hot paths, by pytest-benchmark; `pytest --benchmark-only` measures them, elsewhere they run once."""

from __future__ import annotations

import pytest
import torch

import fisherflat as ff


@pytest.mark.parametrize("engine", ["taylor", "autodiff", "xla"])
@pytest.mark.parametrize("gate", [None, ff.layers.Gate()], ids=["ungated", "gated"])
def test_scalar_curvature_of_attention(benchmark, engine, gate):
    torch.manual_seed(0)
    layer = ff.layers.SelfAttention(32, heads=4, gate=gate)
    chart = ff.charts.principal(torch.randn(8, 32), index=-1, k=2)
    manifold = ff.StatisticalManifold(layer, chart, engine=engine)
    u = torch.randn(16, 2, dtype=torch.float64)
    manifold.jet(u)  # tracing is not what is timed
    assert benchmark(manifold.scalar_curvature, u).isfinite().all()
