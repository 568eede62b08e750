"""The floor: as many plain forward passes of the map as a 2-jet has coefficients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fisherflat.bench.maps import Subject
from fisherflat.bench.measure import SHORTEST, Spread, interleaved, seconds
from fisherflat.jets.jet import size
from fisherflat.manifold import StatisticalManifold

#: operations of one sample, enough to fill the machine
WORK = {"cpu": 3e10, "cuda": 6e12}
#: so many of the fastest batch sizes are kept until the timing proper decides
FINALISTS = 2


def filling(subject: Subject, work: float | None = None) -> int:
    """The number of points whose S forward passes make `work` operations; at least 2, at most 1024."""
    wanted = work if work is not None else WORK[subject.device.type]
    return int(min(1024, max(2, wanted / (subject.work * size(subject.chart.dim)))))


def floors(subject: Subject, points: int) -> dict[int, Callable[[], None]]:
    """Calls that make `points * S` forward passes, by batch size: the fastest few of all powers of 2."""
    total = points * size(subject.chart.dim)
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
            return subject.module(inputs)

    return call


def over_floor(subject: Subject, points: int, repeats: int, engine: str = "taylor") -> dict[str, Any]:
    """Time of the jets, and of jets with scalar curvature, over the floor's."""
    manifold = StatisticalManifold(subject.module, subject.chart, engine=engine, dtype=subject.dtype)
    u = subject.points(points)
    calls: dict[Any, Callable[[], object]] = dict(floors(subject, points))
    calls["jet"] = lambda: manifold.jet(u)
    calls["scalar_curvature"] = lambda: manifold.scalar_curvature(u)
    samples = interleaved(calls, repeats, subject.device)
    batch = min((key for key in samples if isinstance(key, int)), key=lambda key: Spread.of(samples[key]).median)
    samples = {"floor": samples[batch], "jet": samples["jet"], "scalar_curvature": samples["scalar_curvature"]}
    return {
        "points": points,
        "coefficients": size(subject.chart.dim),
        "floor_batch": batch,
        "seconds": {name: Spread.of(taken) for name, taken in samples.items()},
        "gflops_of_floor": subject.work * size(subject.chart.dim) * points / Spread.of(samples["floor"]).median / 1e9,
        "jet_over_floor": Spread.ratio(samples["jet"], samples["floor"]),
        "scalar_curvature_over_floor": Spread.ratio(samples["scalar_curvature"], samples["floor"]),
    }
