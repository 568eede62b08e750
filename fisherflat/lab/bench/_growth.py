"""How time grows with the number of points, the dimension of the chart, the width, the depth and the prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fisherflat.geometry import StatisticalManifold
from fisherflat.lab.bench._measure import Spread, interleaved
from fisherflat.lab.bench.maps import Subject, subject

_PROMPTS = [32, 64, 128, 256]
#: what grows: its sizes; the map of one size; how many points (None: that is what grows)
SERIES: dict[str, tuple[list[int], Callable[..., Subject], int | None]] = {
    "points": ([128, 256, 512, 1024], lambda n, **where: subject("attention-64", 4, **where), None),
    "k": ([2, 4, 8, 16], lambda n, **where: subject("attention-64", n, **where), 128),
    "width": ([128, 256, 512, 1024], lambda n, **where: subject(f"attention-{n}", 4, tokens=16, **where), 8),
    "depth": ([1, 2, 4, 8], lambda n, **where: subject(f"block-64x{n}", 4, **where), 64),
    "tokens": (_PROMPTS, lambda n, **where: subject("llama-256", 2, tokens=n, **where), 8),
    "tokens, of which the last moves": (
        _PROMPTS,
        lambda n, **where: subject("llama-256", 2, tokens=n, moving="token", **where),
        8,
    ),
}
#: times as many points on a GPU, which the above do not fill
LARGER = {"cpu": 1, "cuda": 16}


def growth(what: str, repeats: int, share: float = 1.0, **where: Any) -> dict[str, Any]:
    """The exponent of the jets' time in one size: the slope of a line through the logarithms of the medians.

    **Args:** `what`, a key of `SERIES`; `share` of the points, for a quick run; `where`: `dtype`, `device`.
    """
    sizes, make, fixed = SERIES[what]
    calls: dict[int, Callable[[], object]] = {}
    points = []
    for size in sizes:
        made = make(size, **where)
        manifold = StatisticalManifold(made.module, made.chart, dtype=made.dtype)
        points.append(max(1, int(share * LARGER[made.device.type] * (fixed or size))))
        calls[size] = _jets(manifold, made.points(points[-1]))
    samples = interleaved(calls, repeats, made.device)
    medians = [Spread.of(samples[size]).median for size in sizes]
    return {
        "sizes": points if fixed is None else sizes,
        "points": points,
        "seconds": [Spread.of(samples[size]) for size in sizes],
        "exponent": float(np.polyfit(np.log(sizes), np.log(medians), 1)[0]),
    }


def _jets(manifold: StatisticalManifold, u: torch.Tensor) -> Callable[[], object]:
    return lambda: manifold.jet(u)
