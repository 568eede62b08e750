"""Blocks that feed each other, and one pass of 2-jets through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from fisherflat._typing import Float, Tensor
from fisherflat.charts import Chart
from fisherflat.errors import InputError, MapError
from fisherflat.family import Gaussian
from fisherflat.jets.chunks import in_chunks
from fisherflat.jets.graph import Graph
from fisherflat.jets.mapping import Mapping
from fisherflat.jets.taylor import CACHED, TensorAlgebra, evaluated, footprint, packed, start
from fisherflat.jets.tracing import freeze, traced

Map = Callable[[Tensor], Tensor]


def as_list(blocks: Map | Sequence[Map]) -> list[Map]:
    """One map or several, as a list."""
    return list(blocks) if isinstance(blocks, (list, tuple, nn.ModuleList)) else [blocks]  # type: ignore[list-item]


class Stack:
    """Blocks that feed each other, each traced where the chart's point arrives at it.

    **Args:** `blocks`, callables or graphs, the output of each an input of the next; `chart`; `family`, one Gaussian
    for all depths, or `"calibrated"`: at each depth isotropic, with the variance of that depth's own output over its
    first axis (tokens) at the chart's point.

    **Raises:** `InputError` for an empty list or an unknown family, `MapError` naming the block that failed.
    """

    def __init__(self, blocks: Sequence[Map], chart: Chart, family: Gaussian | str) -> None:
        if not blocks:
            raise InputError("a stack needs at least one block")
        if isinstance(family, str) and family != "calibrated":
            raise InputError(f'family must be a Gaussian or "calibrated", got {family!r}')
        self.chart, self.graphs = chart, []
        outputs = [chart.point]
        for index, block in enumerate(blocks):
            x = outputs[-1]
            mapping = Mapping(block, x.dtype, x.device)
            try:
                mapping.check(x)
            except MapError as error:
                raise MapError(f"block {index}: {error}") from error
            self.graphs.append(traced(mapping, x))
            outputs.append(self.graphs[-1](x))
        self.families = [Gaussian.calibrated(y) if isinstance(family, str) else family for y in outputs]
        self.sizes = [output.numel() for output in outputs]
        self.families[-1].check(self.sizes[-1])

    def depths(self, u: Float[Tensor, "P k"], algebra: TensorAlgebra) -> Iterator[Float[Tensor, "P C D"]]:
        """The coefficients after 0, 1, ... L blocks, one depth at a time; not whitened."""
        series = start(self.chart, u)
        yield packed(algebra, series)
        for graph in self.graphs:
            series = evaluated(algebra, graph, series)
            yield packed(algebra, series)

    def bytes_per_coefficient(self) -> int:
        """What one coefficient of one point takes on the way, at the most."""
        return max(footprint(graph) for graph in self.graphs) * self.chart.point.element_size()


def freeze_stack(blocks: Sequence[Map], at: Any, roles: Sequence[str] = ("pattern",)) -> list[Graph]:
    """Every block frozen where the input `at` of the first one arrives at it: a reading of the whole stack.

    **Args:** `roles` as in `fisherflat.freeze`. **Raises:** what `fisherflat.freeze` raises.
    """
    frozen: list[Graph] = []
    x = at
    for block in blocks:
        frozen.append(freeze(block, x, roles))
        x = frozen[-1](torch.as_tensor(x, dtype=torch.float64))
    return frozen


def in_pieces(function: Callable[[Tensor], Any], u: Tensor, bytes_per_point: int, memory: int | None) -> list[Any]:
    """`function` over chunks of points: within memory, and on a CPU within its caches."""
    if memory is None and u.device.type == "cpu":
        memory = max(CACHED, bytes_per_point)
    return list(in_chunks(function, u, bytes_per_point, memory))
