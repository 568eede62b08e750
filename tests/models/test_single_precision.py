"""Parts of a loaded model in float32: what else they hold is in double, and nothing has to be converted first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases.tiny_models import save_tiny

import fisherflat as ff

IDS = [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("engine", "kind"),
    [*(("taylor", kind) for kind in ("llama", "bert", "t5", "gemma2")), ("autodiff", "llama"), ("autodiff", "t5")],
)
def test_parts_of_a_lazily_loaded_model(kind: str, engine: str, tmp_path: Path) -> None:
    """Rotary tables, masks and position biases among the captured arguments; the error covers what double says."""
    block = ff.load(save_tiny(tmp_path, kind, torch.bfloat16), lazy=True).blocks(IDS)[0]
    for part in (block, block.attention, block.mlp):
        basis = torch.randn(2, part.input.shape[-1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        chart = ff.charts.token(part.input, -1, basis)
        single, double = (
            ff.StatisticalManifold(part, chart, engine=engine, dtype=dtype).measure(
                [0.1, 0.2], ["scalar_curvature"], error=True
            )
            for dtype in (torch.float32, torch.float64)
        )
        value, error = single["scalar_curvature"], single["scalar_curvature_error"]
        assert value.dtype == torch.float32 and error <= 1e-2 * value.abs()
        assert (value - double["scalar_curvature"]).abs() <= error


@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
def test_a_function_with_constants_in_double(engine: str) -> None:
    weights = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    chart = ff.charts.affine(torch.ones(3), torch.eye(3)[:2])
    found = ff.StatisticalManifold(lambda x: torch.tanh(weights @ x), chart, engine=engine, dtype=torch.float32)
    value = found.measure([0.0, 0.0], ["scalar_curvature"], error=True)
    truth = ff.StatisticalManifold(lambda x: torch.tanh(weights @ x), chart).scalar_curvature([0.0, 0.0])
    assert (value["scalar_curvature"] - truth).abs() <= value["scalar_curvature_error"] < 1e-3 * truth.abs()
