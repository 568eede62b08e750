"""What a model's curvature is in the midst of its training, without touching it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from fisherflat._arrays import integer
from fisherflat._display import displayed
from fisherflat._typing import Tensor
from fisherflat.errors import DegenerateImmersionWarning, FallbackWarning, InputError, PrecisionWarning, without
from fisherflat.geometry import StatisticalManifold
from fisherflat.jets.graph import Graph
from fisherflat.models import load
from fisherflat.parts import readings
from fisherflat.spaces import charts
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian
from fisherflat.studies.depth import curvature_budget

#: a submodule by its path in the model, or a function from the model to the map
Where = str | Callable[[nn.Module], Callable[[Tensor], Tensor]]


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever random numbers are drawn meanwhile, those that come after are as if none had been."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002  (what the user's code may draw from)
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002


@displayed
class Watch:
    """Numbers of some parts of a model.

    **Args:**

    - `parts`: by name, where a part is (the path of a submodule, such as `"decoder"`, or a function of the model) and
      its chart. Or `prompt`: a text (then with `tokenizer`), or token ids: the blocks of `layers` are measured where
      this prompt takes them, along the `k` principal directions of its hidden states, the last token moving.
    - `quantities`, names as in `StatisticalManifold.measure`; `readings`, such as `"live"` and `"frozen pattern"`;
      `attribution`: also the scalar curvature by roles.
    - `points`: at how many, the chart's own among them; `family`: default, the spread of the outputs there.

    **Raises:** `InputError` where neither parts nor a prompt are given, or both.
    """

    def __init__(
        self,
        parts: Mapping[str, tuple[Where, Chart]] | None = None,
        *,
        prompt: Any = None,
        tokenizer: Any = None,
        layers: Sequence[int] = (0, -1),
        k: int = 2,
        quantities: Sequence[str] = ("scalar_curvature",),
        readings: Sequence[str] = ("live",),
        attribution: bool = False,
        points: int = 4,
        family: Gaussian | None = None,
    ) -> None:
        if (parts is None) == (prompt is None):
            raise InputError("give either parts, by name (where, chart), or a prompt on which blocks are measured")
        self._parts, self._prompt, self._tokenizer = dict(parts or {}), prompt, tokenizer
        self._layers, self._k = tuple(layers), integer(k, "k", 1)
        self._quantities, self._readings = tuple(quantities), tuple(map(_canonical, readings))
        self._attribution, self._points, self._family = attribution, integer(points, "points", 1), family

    def measure(self, model: nn.Module) -> dict[str, float]:
        """By `part/reading/quantity`, the mean over the points that have a geometry."""
        found: dict[str, float] = {}
        with untouched(), without(DegenerateImmersionWarning, PrecisionWarning, FallbackWarning):
            for name, part, chart in self._maps(model):
                for reading in self._readings:
                    held = readings.held(part, chart.point, reading)
                    found |= {f"{name}/{reading}/{key}": value for key, value in self._numbers(held, chart).items()}
        return found

    def _maps(self, model: nn.Module) -> Iterator[tuple[str, Any, Chart]]:
        for name, (where, chart) in self._parts.items():
            yield name, model.get_submodule(where) if isinstance(where, str) else where(model), chart
        if self._prompt is not None:
            blocks = load(model, tokenizer=self._tokenizer).blocks(self._prompt)
            for layer in self._layers:
                block = blocks[layer]
                yield f"layer {block.index}", block, charts.principal(block.hidden_states, -1, self._k)

    def _numbers(self, graph: Graph, chart: Chart) -> dict[str, float]:
        generator = torch.Generator().manual_seed(0)
        u = torch.randn(self._points, chart.k, generator=generator, dtype=torch.float64)
        u[0] = 0
        outputs = torch.stack([graph(x) for x in chart(u.to(chart.point.device))])
        varies = len(u) > 1 and bool((outputs != outputs[0]).any())
        family = self._family or (Gaussian.calibrated(outputs) if varies else Gaussian())
        measured = StatisticalManifold(graph, chart, family, degenerate="nan").measure(u, self._quantities)
        found = {name: values.reshape(len(u), -1).nanmean().item() for name, values in measured.items()}
        if self._attribution:
            budget = curvature_budget(graph, chart, u, family=family, degenerate="nan")
            means = budget.attributed.nanmean(0).tolist()
            found |= {f"attributed/{label}": mean for label, mean in zip(budget.labels, means, strict=True) if mean}
        return found


def _canonical(reading: str) -> str:
    return readings.canonical(reading)
