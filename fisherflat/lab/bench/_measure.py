"""Timing side by side, and peak memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch

Key = TypeVar("Key")

#: a sample shorter than this is repeated within itself
SHORTEST = 0.05


def seconds(call: Callable[[], object], device: torch.device, number: int = 1) -> float:
    """Wall time of one of `number` calls in a row, with the device's queue empty before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(number):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / number


def interleaved(
    calls: Mapping[Key, Callable[[], object]], repeats: int, device: torch.device
) -> dict[Key, list[float]]:
    """Seconds of each call, `repeats` times, taken in turns (A B C A B C ...) so that all see the same disturbances."""
    number = {}
    for name, call in calls.items():
        once = seconds(call, device)  # also the warm-up
        number[name] = max(1, min(1000, round(SHORTEST / max(once, 1e-9))))
    samples: dict[Key, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            samples[name].append(seconds(call, device, number[name]))
    return samples


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum over repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """The spread of some numbers."""
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def ratio(cls, above: list[float], below: list[float], scale: float = 1.0) -> Spread:
        """The spread of `scale * above / below`, repeat by repeat."""
        return cls.of([scale * a / b for a, b in zip(above, below, strict=True)])

    def scaled(self, factor: float) -> Spread:
        """All three times `factor`."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f"{figure(self.median)} ({figure(self.low)} to {figure(self.high)})"


def figure(value: float) -> str:
    """Three digits, without an exponent for large numbers."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
