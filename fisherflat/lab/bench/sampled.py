"""Curvature in all directions: seconds and memory of estimates from random planes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from fisherflat._typing import Tensor
from fisherflat.errors import PrecisionWarning
from fisherflat.geometry import SampledCurvature, StatisticalManifold
from fisherflat.lab.bench import minilm
from fisherflat.lab.bench._measure import elapsed
from fisherflat.lab.bench.memory import of_one
from fisherflat.layers import Gate, SelfAttention
from fisherflat.spaces.charts import Chart, affine, token
from fisherflat.spaces.families import Gaussian

#: the layer of MiniLM, its prompt of 14 tokens, and which of them moves alone
LAYER, PROMPT, MOVED = 2, "The river bank was flooded and the bank moved its money.", 4
#: what moves, and how many seconds that may take on two cores
MOVING = {"token": 15, "all": 6}
#: what either may take, in GB
MOST = 1.5
#: of a layer of random weights: how many tokens, the standard error asked for, and how many planes at most
TOKENS, ERROR, BUDGET = 4, 0.2, 160
#: widths of a quick run
QUICK = (32,)


def of_minilm(moving: str, device: torch.device) -> dict[str, Any]:
    """The attention of a layer of MiniLM where one token moves, or all of them by one vector, to 5 %."""
    from fisherflat.models import load

    part = load(str(minilm.folder()), device=str(device)).blocks(PROMPT)[LAYER].attention
    directions = torch.eye(part.input.shape[-1], dtype=torch.float64, device=device)
    together = affine(part.input, directions[:, None].expand(-1, *part.input.shape))
    chart = token(part.input, MOVED, directions) if moving == "token" else together
    return {"map": f"minilm-{LAYER}, attention", "moving": moving} | _measured(part, chart, 0.05, None)


def of_width(width: int, device: torch.device) -> dict[str, Any]:
    """A gated attention of random weights, of which one token moves in all of its directions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = SelfAttention(width, heads=max(1, width // 128), gate=Gate()).to(device, torch.float64)
        hidden = torch.randn(TOKENS, width, dtype=torch.float64).to(device)
    chart = token(hidden, 1, torch.eye(width, dtype=torch.float64, device=device))
    return {"map": f"attention-{width}", "moving": "token"} | _measured(layer, chart, ERROR, BUDGET)


def _measured(layer: Callable[[Tensor], Tensor], chart: Chart, error: float, budget: int | None) -> dict[str, Any]:
    """By both clocks, from the layer to the estimate, once; what all tensors took at their peak; what came out."""
    found: list[SampledCurvature] = []

    def estimate() -> None:
        with torch.no_grad():
            family = Gaussian.calibrated(layer(chart.point))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PrecisionWarning)  # the table has what was reached
            manifold = StatisticalManifold(layer, chart, family)
            found.append(manifold.sampled_scalar_curvature(torch.zeros(chart.k), error, budget=budget))

    taken, device = dict[str, float](), chart.point.device
    peak = of_one(lambda: taken.update(elapsed(estimate, device)), device)
    (one,) = found
    return {
        "tokens": len(chart.point),
        "k": chart.k,
        "outputs": chart.point.numel(),
        **taken,
        "peak_bytes": peak,
        "scalar_curvature": one.value,
        "interval": one.interval,
        "error": one.standard_error / abs(one.value),
        "planes": one.pairs,
        "estimator": one.estimator,
    }


def table(rows: list[dict[str, Any]]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Title, header and rows for reading."""
    return (
        "Curvature in all directions, from random planes, once: seconds by both clocks, and tensors at their peak",
        ("map", "moving", "tokens", "k", "outputs", "planes", "scal", "standard error", "wall, s", "process, s", "GB"),
        [
            (
                *(str(row[key]) for key in ("map", "moving", "tokens", "k", "outputs", "planes")),
                f"{row['scalar_curvature']:.4g}",
                f"{row['error']:.1%}",
                *(f"{row[clock]:.1f}" for clock in ("wall", "process")),
                f"{row['peak_bytes'] / 1e9:.2f}",
            )
            for row in rows
        ],
    )
