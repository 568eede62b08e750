"""Blocks that feed each other, and one pass of 2-jets through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import islice
from typing import Any

import torch
from torch import nn

from fisherflat._arrays import flag, some
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError, MapError, TraceError
from fisherflat.jets.engines import (
    CACHED,
    TensorAlgebra,
    evaluated,
    exactly,
    footprint,
    in_chunks,
    noisy,
    packed,
    start,
)
from fisherflat.jets.graph import Graph
from fisherflat.jets.ops import is_affine
from fisherflat.jets.recording import Mapping
from fisherflat.jets.rows import divided, moved_by
from fisherflat.jets.rules import Series
from fisherflat.models.covariances import OUTPUTS, Pick, called
from fisherflat.parts import freeze, readings, traced
from fisherflat.parts import halves as cut_in_two
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian, ParametricFamily, check
from fisherflat.studies._lens import Lens

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Stage:
    """What is known of one map of a stack without its graph.

    **Attributes:** `label`, such as `layer 3` or `3 attention`; `passed`, how many blocks have been passed after it, a
    half counted as such; `at`, what arrives at it where the chart's point enters the stack; `shape`, of its output;
    `bending`, the roles of the nodes that add second-order terms of their own; `held`, the roles that can be frozen;
    `footprint`, the entries alive at a time on the way through, for one coefficient of one point.
    """

    label: str
    passed: float
    at: Tensor
    shape: torch.Size
    bending: frozenset[str]
    held: tuple[str, ...]
    footprint: int

    @classmethod
    def of(cls, label: str, passed: float, at: Tensor, graph: Graph) -> Stage:
        """The stage of a graph."""
        bending = frozenset(node.role for node in graph.nodes if not is_affine(node))
        return cls(label, passed, at, torch.Size(graph.shape), bending, readings.present(graph), footprint(graph))


def as_blocks(maps: Map | Sequence[Map]) -> Sequence[Map]:
    """One map or several, as a sequence: a `Sequential` is its members, and so is a list that cannot be called itself.

    A sequence stays as it is: the blocks of a model whose weights are on disk come when they are asked for.
    """
    if isinstance(maps, nn.Sequential) and type(maps).forward is nn.Sequential.forward and not _hooked(maps):
        return list(maps)
    if isinstance(maps, nn.ModuleList) and type(maps).forward is nn.ModuleList.forward:
        return list(maps)
    return maps if isinstance(maps, Sequence) else [maps]


def _hooked(module: nn.Module) -> bool:
    """Whether calling the module does more than its `forward`."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


class Stack:
    """Blocks that feed each other, each traced where the chart's point arrives at it.

    **Args:**

    - `blocks`: a callable or a graph, or several (`as_blocks`), the output of each an input of the next; `chart`.
    - `family`: one Gaussian for all depths (default `Gaussian()`), or `"calibrated"`: at each depth isotropic, with the
      variance of that depth's own output over its first axis (tokens) at the chart's point; or what makes one of that
      output.
    - `halves`: take each block in two, behind the attention's residual sum, where it comes apart there.
    - `moved`: the tokens whose outputs `[n, d]` are measured at every depth (default: all outputs).
    - `keep`: whether graphs, which hold weights in double precision, stay in memory. Without, only that of the block at
      hand is there, and each pass traces anew.

    **Attributes:** `stages`, one for each map; `families`, the Gaussian of each depth, the chart's first; `reading`,
    what is held.

    **Raises:** `InputError` for an empty list or an unknown family, `MapError` naming the block that failed,
    `TraceError`, `CovarianceError` where the family does not fit the last output.
    """

    def __init__(
        self,
        blocks: Map | Sequence[Map],
        chart: Chart,
        family: Gaussian | str | Callable[[Tensor], Gaussian] | None = None,
        *,
        halves: bool = False,
        keep: bool = True,
        moved: Sequence[int] | None = None,
    ) -> None:
        self._blocks = as_blocks(blocks)
        if not len(self._blocks):
            raise InputError("a stack needs at least one block")
        if isinstance(family, str) and family != "calibrated":
            raise InputError(
                f'family must be a Gaussian or "calibrated", for a loaded model also "next-token", "class" or '
                f'"direction"; got {family!r}'
            )
        if not isinstance(chart, Chart):
            raise InputError(f"chart must come from fisherflat.charts, got {type(chart).__name__}")
        self.chart, self.reading, self._halves = chart, readings.LIVE, flag(halves, "halves")
        self.stages: list[Stage] = []
        self._graphs: list[Graph] | None = [] if keep else None
        outputs = [chart.point]
        for index in range(len(self._blocks)):
            self._enter(index, outputs)
        given = family if family is not None else Gaussian()
        fit = Gaussian.calibrated if isinstance(given, str) else given
        self.families = [fit(y) if callable(fit) else fit for y in outputs]
        #: at each depth, which outputs are measured
        self.picks = [_pick(y, moved) for y in outputs]
        self.families[-1].check(self.picks[-1](outputs[-1].flatten()).numel())
        #: the covariance as it was asked for, and whether all outputs are measured, for tables
        self.covariance = str(called(given)) if isinstance(given, Gaussian) else getattr(given, "name", "all")
        self.output = OUTPUTS[0] if moved is None else OUTPUTS[1]

        #: what states are read as at each depth, and its name, where that is no Gaussian
        self.lenses: list[Lens] | None = None
        self.family: str | None = None

    def _enter(self, index: int, outputs: list[Tensor]) -> None:
        """Trace a block where the last of the outputs arrives at it, and add its own; nothing else of it stays here."""
        for label, passed, graph in self._parts(index, outputs[-1]):
            self.stages.append(Stage.of(label, passed, outputs[-1], graph))
            outputs.append(graph(outputs[-1]))
            if some(~outputs[-1].isfinite()):
                raise MapError(
                    f"{label} puts out numbers that are not finite where the chart's point arrives at it: the "
                    "stack overflows there; take fewer blocks, or a norm in each"
                )
            if self._graphs is not None:
                self._graphs.append(graph)

    def seen(self, lens: Lens, name: str | None = None) -> Stack:
        """The same stack with what a lens makes of the states at every depth, in the lens's family.

        A lens without a map takes the outputs as they are.

        **Raises:** `InputError` where the outputs of some depth cannot be the family's parameters.
        """
        other = copy(self)
        other.family = repr(lens.family) if name is None else name
        shapes = [self.chart.point.shape, *(stage.shape for stage in self.stages)]
        if lens.graph is None:
            other.lenses = [replace(lens, shape=tuple(shape)) for shape in shapes]
            for shape in shapes:
                check(lens.family, tuple(shape))
        else:
            taken = tuple(lens.graph.nodes[0].shape)
            if unlike := [shape for shape in shapes if tuple(shape) != taken]:
                raise InputError(f"the head reads states {list(taken)}, at some depth they are {list(unlike[0])}")
            other.lenses = [lens] * len(shapes)
        return other

    def surface(self, depth: int) -> tuple[Gaussian | ParametricFamily, Callable[[Tensor], Tensor], Any]:
        """Of the states at a depth: the family, what of their jets is its parameters, and their shape."""
        if self.lenses is None:
            return self.families[depth], self.picks[depth], None
        lens = self.lenses[depth]
        return lens.family, partial(lens.jets, k=self.chart.k), lens.shape

    def _parts(self, index: int, x: Tensor) -> list[tuple[str, float, Graph]]:
        """The graphs of a block at the input `x`, one or two, with their labels and what has been passed after them."""
        mapping = Mapping(self._blocks[index], x.dtype, x.device)
        try:
            mapping.check(x)
        except MapError as error:
            raise MapError(f"block {index}: {error}") from error
        try:
            graph = traced(mapping, x)
        except TraceError as error:
            if type(error) is not TraceError:
                raise
            raise TraceError(f"block {index}: {error}") from error
        parts = cut_in_two(graph) if self._halves else None
        if parts is None:
            return [(f"layer {index}", index + 1.0, graph)]
        return [(f"{index} attention", index + 0.5, parts[0]), (f"{index} mlp", index + 1.0, parts[1])]

    def graphs(self) -> Iterator[Graph]:
        """The graphs in order, in the reading; one that is not kept is traced when its turn comes."""
        if self._graphs is not None:
            yield from self._graphs
            return
        roles, stages = readings.roles(self.reading), iter(self.stages)
        at = self.chart.point
        for index in range(len(self._blocks)):
            with exactly():  # noise is for the jets that pass a graph, not for the graph
                parts = [graph for _, _, graph in self._parts(index, at)]
            while parts:
                graph, at = parts.pop(0), next(stages).at
                with exactly():
                    held = freeze(graph, at, roles) if roles else graph
                    at = graph(at)
                del graph
                yield held
                del held

    def first(self, depth: int) -> First:
        """The first so many maps."""
        return First(self, depth)

    def after(self, depth: int) -> Map:
        """The first so many maps as one, all of them in memory."""
        graphs = list(self.first(depth))
        return lambda x: reduce(lambda y, graph: graph(y), graphs, x + 0)

    def read(self, reading: str) -> Stack:
        """The same stack in a reading: in every block its parts are held where the chart's point arrives.

        Roles that no block has are not named: without them the reading is that of the others, or live.

        **Raises:** `InputError` for an unknown reading.
        """
        roles = tuple(role for role in readings.roles(reading) if role in self.roles)
        other = copy(self)
        other.reading = readings.name(roles)
        if not roles:
            return other
        other.stages = []
        other._graphs = [] if self._graphs is not None else None
        graphs = self.graphs()
        for stage in self.stages:
            frozen = freeze(next(graphs), stage.at, roles)
            other.stages.append(replace(Stage.of(stage.label, stage.passed, stage.at, frozen), held=stage.held))
            if other._graphs is not None:
                other._graphs.append(frozen)
            del frozen  # before the next one is there
        return other

    def at_the_end(self) -> Stack:
        """The same stack with the family of its last depth at every depth: one unit, in which all parts compare.

        **Raises:** `CovarianceError` where that is none of another depth's outputs.
        """
        other = copy(self)
        other.families = [self.families[-1]] * len(self.families)
        return other

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the live stack that can be held."""
        found = {role for stage in self.stages for role in stage.held}
        return tuple(role for role in readings.WORDS if role in found)

    @property
    def labels(self) -> tuple[str, ...]:
        """The stages' names, in order."""
        return tuple(stage.label for stage in self.stages)

    @property
    def passed(self) -> Float[Tensor, " depths"]:
        """How many blocks have been passed at each depth, 0 at the chart itself."""
        return torch.tensor([0.0, *(stage.passed for stage in self.stages)], dtype=torch.float64)

    def depths(
        self,
        u: Float[Tensor, "P k"],
        measure: Callable[[int, Float[Tensor, "P S D"], Tensor], Any],
        memory: int | None = None,
        basis: Float[Tensor, "P k *shape"] | None = None,
        seconds: str = "pair",
    ) -> Iterator[list[Any]]:
        """`measure(depth, jets, u)` of the 2-jets after 0, 1, ... L maps, a list over chunks of points each.

        All points pass one map before the next one's turn: its weights stay in the caches, and no other's are needed.
        **Args:** `basis`, other directions at each point than the chart's, `[P, k, *shape]`; `seconds`, as of
        `Algebra`: without all of them a map may raise `UnsupportedOpError`.
        """
        k, algebra, graphs = self.chart.k, TensorAlgebra(seconds=seconds), self.graphs()
        state = start(self.chart, u, basis).data.transpose(0, 1)
        yield [measure(0, packed(algebra, Series(state.transpose(0, 1), k)), u)]

        def through(graph: Graph, depth: int, state: Tensor) -> tuple[Tensor, list[Any]]:
            def step(points: Tensor) -> Any:
                series = evaluated(algebra, graph, Series(state[points].transpose(0, 1), k))
                found = measure(depth, packed(algebra, series), u[points])
                return series.data.transpose(0, 1), found

            alive = footprint(graph, algebra.count(2, k), not noisy()) * algebra.count(2, k)
            pieces = over_points(step, u, alive, memory)
            return torch.cat([data for data, _ in pieces]), [found for _, found in pieces]

        moves = moved_by(self.chart.basis if basis is None else basis, self.chart.point.dim())
        for depth in range(1, len(self.stages) + 1):
            by_rows = divided(next(graphs), moves)
            state, found = through(by_rows.graph, depth, state)
            moves = by_rows.moves
            del by_rows  # before the next one is there
            yield found


@dataclass(frozen=True)
class First:
    """The first maps of a stack, which can be gone through again and again; what is not kept is traced anew."""

    stack: Stack
    depth: int

    def __iter__(self) -> Iterator[Graph]:
        return islice(self.stack.graphs(), self.depth)


def _pick(outputs: Tensor, moved: Sequence[int] | None) -> Pick:
    """All outputs, or those of some tokens."""
    if moved is None:
        return Pick(outputs.numel())
    if outputs.dim() != 2 or len(outputs) <= max(moved):
        raise InputError(
            f'output="moved" needs outputs [n, d], a row a token; they are {list(outputs.shape)}: take output="all"'
        )
    return Pick(outputs.shape[-1], tokens=tuple(moved))


def freeze_stack(blocks: Map | Sequence[Map], at: Any, roles: Sequence[str] = ("pattern",)) -> list[Graph]:
    """Every block frozen where the input of the first one arrives at it: a reading of the whole stack.

    **Args:**

    - `blocks`: maps of one tensor, in order, as a sequence, a `ModuleList` or a `Sequential`.
    - `at`: the input of the first block, at which parts are held.
    - `roles`: which parts, as in `fisherflat.freeze`.

    **Returns:** the frozen graph of each block. **Raises:** what `fisherflat.freeze` raises.

    >>> import torch, fisherflat as ff
    >>> layers = [ff.layers.SelfAttention(4) for _ in range(2)]
    >>> [graph.frozen for graph in ff.freeze_stack(layers, torch.randn(3, 4))]
    [('pattern',), ('pattern',)]
    """
    frozen: list[Graph] = []
    x = at
    for block in as_blocks(blocks):
        frozen.append(freeze(block, x, roles))
        x = frozen[-1](torch.as_tensor(x, dtype=torch.float64))
    return frozen


def over_points(
    function: Callable[[Tensor], Any], u: Float[Tensor, "P k"], entries: int, memory: int | None
) -> list[Any]:
    """`function` of the indices of chunks of the points: within memory, and on a CPU within its caches.

    **Args:** `entries`, how many numbers a point takes on the way; `memory`, a budget in bytes.
    """
    bytes_per_point = entries * u.element_size()
    if memory is None and u.device.type == "cpu":
        memory = max(CACHED, bytes_per_point)
    return list(in_chunks(function, torch.arange(len(u), device=u.device), bytes_per_point, memory))
