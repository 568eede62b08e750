"""The engines by name, built for a map on a chart."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Protocol

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import FisherflatError, InputError, MapError
from fisherflat.jets.engines import AutodiffEngine, CudaGraphsEngine, TaylorEngine, XlaEngine
from fisherflat.jets.graph import Constants, Graph
from fisherflat.jets.recording import Mapping, recorded
from fisherflat.parts import trace, traced
from fisherflat.spaces.charts import Chart


class Engine(Protocol):
    """What the manifold needs of an engine.

    **Attributes:** `chunk_memory` in bytes, `None` for a share of what is free; `program`, how constants are made of
    live weights, `None` where there is no tape.
    """

    chunk_memory: int | None
    program: Constants | None

    @property
    def bytes_per_point(self) -> int:
        """How much memory the jet of one point takes, roughly."""

    @property
    def tape_per_point(self) -> int:
        """How much memory what a gradient needs of one point takes, roughly."""

    def on(self, chart: Chart) -> Engine:
        """The same engine on directions that are combinations of the chart's."""

    def jet(self, u: Float[Tensor, "P k"], basis: Float[Tensor, "P k *shape"] | None = None) -> Float[Tensor, "P S D"]:
        """The coefficients of the 2-jets at the points `u`, along the chart's directions or others at each point."""


def mapped(
    mean: Callable[[Tensor], Tensor],
    chart: Chart,
    dtype: torch.dtype,
    joined: Callable[[list[Tensor]], Tensor] | None = None,
    live: bool = False,
) -> tuple[Mapping, Tensor]:
    """A map in the working precision, and its value at the chart's point; arguments and errors are `Mapping`'s."""
    device, point = chart.point.device, chart.point.detach().to(dtype)
    mapping = Mapping(mean, dtype, device, joined, live)
    try:
        return mapping, mapping.check(point)
    except MapError:
        if dtype == torch.float64 or live or joined is not None:
            raise
        try:  # a function whose constants are in double
            graph: Graph | None = trace(mean, chart)
        except FisherflatError:
            graph = None
        if graph is None:
            raise
        mapping = Mapping(graph, dtype, device)
        return mapping, mapping.check(point)


def _graph(mapping: Mapping, chart: Chart) -> Graph:
    wide = mapping.wider()
    return traced(mapping, chart) if wide is None else traced(wide, chart).to(mapping.dtype, chart.point.device)


def _taylor(mapping: Mapping, chart: Chart, dim: int, memory: int | None) -> Engine:
    return TaylorEngine(_graph(mapping, chart), chart, dim, mapping.dtype, memory)


def _untaped(mapping: Mapping, engine: str) -> None:
    if mapping.program is not None:
        raise InputError(f'engine="{engine}" keeps no tape; with differentiable=True use "taylor" or "autodiff"')


def _cudagraphs(mapping: Mapping, chart: Chart, dim: int, memory: int | None) -> Engine:
    _untaped(mapping, "cudagraphs")
    return CudaGraphsEngine(_graph(mapping, chart), chart, dim, mapping.dtype, memory)


def _xla(mapping: Mapping, chart: Chart, dim: int, memory: int | None) -> Engine:
    _untaped(mapping, "xla")
    if importlib.util.find_spec("jax") is None:
        raise InputError("engine=\"xla\" needs jax, which is not installed: pip install 'fisherflat[xla]'")
    return XlaEngine(_graph(mapping, chart), chart, dim, mapping.dtype, memory)


def _autodiff(mapping: Mapping, chart: Chart, dim: int, memory: int | None) -> Engine:
    with mapping.writing():
        tape, points = recorded(mapping, chart)
    program = None if mapping.program is None else mapping.program.ended(tape.constants())
    return AutodiffEngine(tape, points, chart, dim, memory, program)


#: name -> how it is built from the map, the chart, the number of outputs and a budget in bytes
ENGINES: dict[str, Callable[[Mapping, Chart, int, int | None], Engine]] = {
    "autodiff": _autodiff,
    "cudagraphs": _cudagraphs,
    "taylor": _taylor,
    "xla": _xla,
}
