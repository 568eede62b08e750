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
#: a call shorter than this is made once more before each sample of it, after a rest: threads of torch wait busily for
#: some milliseconds after each op
BRIEF, REST = 0.5, 0.02
#: wall time; that of all threads of the process, which other processes do not disturb as much
CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


def elapsed(call: Callable[[], object], device: torch.device, number: int = 1) -> dict[str, float]:
    """Seconds of one of `number` calls in a row by each of `CLOCKS`, with the device's queue empty before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = {name: clock() for name, clock in CLOCKS.items()}
    for _ in range(number):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return {name: (clock() - start[name]) / number for name, clock in CLOCKS.items()}


def seconds(call: Callable[[], object], device: torch.device, number: int = 1) -> float:
    """Wall time of one of `number` calls in a row."""
    return elapsed(call, device, number)["wall"]


def by_clock(
    calls: Mapping[Key, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, dict[Key, list[float]]]:
    """Seconds of each call by each clock, `repeats` times, taken in turns (A B C A B C ...).

    All of them thus see the same disturbances, but not each other: caches, freed memory and cores are their own before
    a sample begins, unless that would take long.
    """
    number, brief = {}, set()
    for name, call in calls.items():
        once = seconds(call, device)  # also the warm-up
        number[name] = max(1, min(1000, round(SHORTEST / max(once, 1e-9))))
        brief |= {name} if once < BRIEF else set()
    samples: dict[str, dict[Key, list[float]]] = {clock: {name: [] for name in calls} for clock in CLOCKS}
    for _ in range(repeats):
        for name, call in calls.items():
            if name in brief:
                time.sleep(REST)
                call()
            for clock, taken in elapsed(call, device, number[name]).items():
                samples[clock][name].append(taken)
    return samples


def interleaved(
    calls: Mapping[Key, Callable[[], object]], repeats: int, device: torch.device
) -> dict[Key, list[float]]:
    """Wall seconds of each call, `repeats` times, taken in turns."""
    return by_clock(calls, repeats, device)["wall"]


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
