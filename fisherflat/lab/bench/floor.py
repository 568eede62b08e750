"""The floor: as many plain forward passes of the map as a 2-jet has coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fisherflat.geometry import StatisticalManifold
from fisherflat.jets import size
from fisherflat.lab.bench._measure import SHORTEST, Spread, interleaved, seconds
from fisherflat.lab.bench.maps import Subject

#: operations of one sample, and the most points, that fill the machine
WORK = {"cpu": 3e10, "cuda": 6e12}
POINTS = {"cpu": 1024, "cuda": 4096}
#: so many of the fastest batch sizes are kept until the timing proper decides
FINALISTS = 2


def filling(subject: Subject, share: float = 1.0) -> int:
    """The number of points that fills the machine, a power of 2; `share` of it for a quick run."""
    kind = subject.device.type
    points = share * WORK[kind] / (subject.work * size(subject.chart.k))
    return min(POINTS[kind], 2 ** int(math.log2(max(points, 1))))


def floors(subject: Subject, points: int) -> dict[int, Callable[[], None]]:
    """Calls that make `points * S` forward passes, by batch size: the fastest few of all powers of 2."""
    total = points * size(subject.chart.k)
    rates: dict[int, float] = {}
    batch = min(total, 4)
    while True:
        inputs = subject.inputs(batch)
        call = _forward(subject, inputs)
        call()
        number = max(1, round(SHORTEST / 4 / seconds(call, subject.device)))
        rates[batch] = min(seconds(call, subject.device, number) for _ in range(3)) / batch
        if batch == total or inputs.numel() * inputs.element_size() > 2**30:
            break
        batch = min(total, 2 * batch)
    return {batch: _passes(subject, total, batch) for batch in sorted(rates, key=rates.__getitem__)[:FINALISTS]}


def _passes(subject: Subject, total: int, batch: int) -> Callable[[], None]:
    full, rest = divmod(total, batch)
    whole, remainder = _forward(subject, subject.inputs(batch)), _forward(subject, subject.inputs(max(rest, 1)))

    def passes() -> None:
        for _ in range(full):
            whole()
        if rest:
            remainder()

    return passes


def _forward(subject: Subject, inputs: torch.Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return subject.forward(inputs)

    return call


def fastest(samples: Mapping[Any, list[float]]) -> int:
    """The batch size, among the keys that are batch sizes, with the least median."""
    return min((key for key in samples if isinstance(key, int)), key=lambda key: Spread.of(samples[key]).median)


def over_floor(subject: Subject, points: int, repeats: int) -> dict[str, Any]:
    """Time of the Taylor engine's jets, and of jets with scalar curvature, over the floor's."""
    manifold = StatisticalManifold(subject.module, subject.chart, dtype=subject.dtype)
    u = subject.points(points)
    calls: dict[Any, Callable[[], object]] = dict(floors(subject, points))
    calls["jet"] = lambda: manifold.jet(u)
    calls["scalar_curvature"] = lambda: manifold.scalar_curvature(u)
    samples = interleaved(calls, repeats, subject.device)
    batch = fastest(samples)
    floor, jet, scalar = samples[batch], samples["jet"], samples["scalar_curvature"]
    return {
        "points": points,
        "coefficients": size(subject.chart.k),
        "floor_batch": batch,
        "seconds": {"floor": Spread.of(floor), "jet": Spread.of(jet), "scalar_curvature": Spread.of(scalar)},
        "floor_gflops": subject.work * size(subject.chart.k) * points / Spread.of(floor).median / 1e9,
        "jet_over_floor": Spread.ratio(jet, floor),
        "scalar_curvature_over_floor": Spread.ratio(scalar, floor),
    }
