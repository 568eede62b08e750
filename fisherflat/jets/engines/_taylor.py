"""The default engine: batched 2-jets through the traced graph, in torch tensors.

A linear op acts on all S coefficients of all points in one call. No tape is kept unless it is asked for; the floor is
the cost of S plain forward passes, and what is known to be affine in the coordinates carries 1 + k coefficients instead
of S.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor

from fisherflat._arrays import on_host, some
from fisherflat._typing import Float
from fisherflat.errors import UnsupportedOpError
from fisherflat.jets.engines._chunks import keep_memory, memory_budget
from fisherflat.jets.engines._fallback import padded
from fisherflat.jets.engines._noise import noisy
from fisherflat.jets.engines._prefix import Prefix
from fisherflat.jets.engines._tensors import TensorAlgebra
from fisherflat.jets.engines._trust import trusted
from fisherflat.jets.graph import Graph, Node, most_alive
from fisherflat.jets.ops import STRUCTURAL, Standing, evaluate, evaluate_once
from fisherflat.jets.rows import divided, moved_by
from fisherflat.jets.rules import Series
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.jets import pair_index, pairs, size

#: on a CPU, so many bytes of live coefficients at a time: what a core's caches hold, so that ops meet warm data
CACHED = 16 * 2**20
#: and so many before their geometry: it should meet warm data, too, but has more to do for each chunk than for a point
WARM = 4 * CACHED


class TaylorEngine:
    """2-jets of `mean(chart(u))` by Taylor arithmetic on the graph of `mean`.

    **Args:** `graph`, of the map in its working precision; `chart`, on the device to run on; `dim`, the number D of
    outputs; `dtype`, the working precision; `memory`, a budget in bytes (default: a share of what is free). A point
    that does not fit into it is taken by pairs of directions.

    **Raises:** `UnsupportedOpError` for an op that cannot be differentiated.
    """

    def __init__(self, graph: Graph, chart: Chart, dim: int, dtype: torch.dtype, memory: int | None = None) -> None:
        self._chart, self._dim, self._memory, self._dtype = chart, dim, memory, dtype
        self.graph, self.program = graph, graph.program
        self._divide(moved_by(chart.basis, chart.point.dim()))
        if chart.point.device.type == "cpu":
            keep_memory()
        self.chunk_memory = memory
        if memory is None and chart.point.device.type == "cpu":
            self.chunk_memory = max(WARM, self.bytes_per_point)

    def _divide(self, moves: Tensor) -> None:
        """Take apart what stands still, for an input of which such entries move."""
        self._moves, self._seen = moves, self._chart.written
        self._divided = divided(self.graph, moves).graph
        self._footprints: dict[int, int] = {}  # by k: counting takes as long as some ops
        prefix = Prefix(self._divided) if isinstance(self.graph.output, Node) else None
        self._prefix = prefix if prefix is not None and prefix.saves else None
        #: what points share, and of which state of the chart
        self._polynomials: tuple[tuple[int, int], dict[Node, Any]] | None = None

    def _follow(self, basis: Tensor | None) -> None:
        """Divide anew where more moves than was known: along directions that are given, or that were written over."""
        for directions in (self._chart.basis if self._seen != self._chart.written else None, basis):
            if directions is not None and not self._moves.is_meta:
                moves = moved_by(directions, self._chart.point.dim())
                if some(moves & ~self._moves):
                    self._divide(moves | self._moves)
        self._seen = self._chart.written

    @property
    def bytes_per_coefficient(self) -> int:
        """The largest sum of what is alive on the way through the graph, in bytes for one coefficient of one point."""
        k = self._chart.k
        if k not in self._footprints:
            self._footprints[k] = footprint(self._divided, size(k))
        return self._footprints[k] * self._dtype.itemsize

    @property
    def bytes_per_point(self) -> int:
        """The largest sum of live coefficients on the way through the graph, in bytes for one point."""
        return self.bytes_per_coefficient * size(self._chart.k)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_polynomials": None}  # they are of this graph's own nodes, and soon found again

    @property
    def tape_per_point(self) -> int:
        """What a tape keeps of one point, in bytes: about a tensor a node that moves no entries alone, and a frame."""
        entries = sum(node.entries for node in self.graph.nodes[1:] if node.packet not in STRUCTURAL)
        return (entries + 3 * self._dim) * size(self._chart.k) * self._dtype.itemsize

    def on(self, chart: Chart) -> TaylorEngine:
        """The same engine along other directions, those of `chart`, among the combinations of its own."""
        other = copy(self)
        other._chart, other._polynomials = chart, None
        other._follow(chart.basis)
        return other

    def jet(self, u: Float[Tensor, "P k"], basis: Float[Tensor, "P k *shape"] | None = None) -> Float[Tensor, "P S D"]:
        """The coefficients of the 2-jets at the points `u`, along the chart's directions or others at each point."""
        k = self._chart.k
        self._follow(basis)
        directions = self._directions(u.device)
        if directions < k:
            return self._by_directions(u, directions, basis)
        shared = basis is None and self._shares()
        at = self._sharing() if shared else self._alone
        if u.device.type != "cpu":
            return at(u, basis)
        step = _step(len(u), self._rest_per_point if shared else self.bytes_per_point)
        if torch.is_grad_enabled():
            parts = (None,) * len(u.split(step)) if basis is None else basis.split(step)
            return torch.cat([at(*piece) for piece in zip(u.split(step), parts, strict=True)])
        if u.shape[0] <= step:
            return at(u, basis)
        out = u.new_empty(u.shape[0], size(k), self._dim)
        for first in range(0, u.shape[0], step):
            taken = slice(first, first + step)
            out[taken] = at(u[taken], None if basis is None else basis[taken])
        return out

    def collapsed(
        self, u: Float[Tensor, "P k"], seconds: str, basis: Float[Tensor, "P k *shape"] | None = None
    ) -> Float[Tensor, "P C D"]:
        """Value, first derivatives, and of the second ones what `Algebra.seconds` says; without a tape.

        **Raises:** `UnsupportedOpError` where that cannot be had, though all second derivatives may be.
        """
        self._follow(basis)
        algebra = TensorAlgebra(constants=self._algebra().constants, seconds=seconds)
        step = len(u)
        if u.device.type == "cpu":
            step = _step(step, self.bytes_per_coefficient * algebra.count(2, self._chart.k))
        bases = [None] * len(u.split(step)) if basis is None else basis.split(step)
        given = (start(self._chart, *piece) for piece in zip(u.split(step), bases, strict=True))
        with torch.no_grad():
            return torch.cat([packed(algebra, evaluated(algebra, self._divided, x)) for x in given])

    def _directions(self, device: torch.device) -> int:
        """How many of the chart's directions one point may move in at a time, so that it fits into memory."""
        directions = self._chart.k
        if self._memory is None and self.bytes_per_point <= CACHED:  # asking how much is free takes as long as ops do
            return directions
        budget = memory_budget(device, self._memory)
        while directions > 2 and self.bytes_per_coefficient * size(directions) > budget:
            directions -= 1
        return directions

    @property
    def _rest_per_point(self) -> int:
        """The largest sum of live coefficients of one point, in bytes, where what is shared is carried once."""
        assert self._prefix is not None
        return math.ceil(self._prefix.coefficients(self._chart.k)) * self._dtype.itemsize

    def _alone(self, u: Tensor, basis: Tensor | None) -> Tensor:
        """Each point by itself."""
        return self._packed(start(self._chart, u, basis))

    def _shares(self) -> bool:
        """Whether points share what does not depend on them: not where each has a noise of its own."""
        return self._prefix is not None and not noisy()

    def _sharing(self) -> Callable[[Tensor, Tensor | None], Tensor]:
        """What gives jets of points that share what does not depend on them."""
        algebra = self._algebra()
        known = self._known(algebra)

        def at(u: Tensor, basis: Tensor | None) -> Tensor:
            with _taped(algebra):
                y = _run(algebra, u, lambda: self._at_points(algebra, known, u))
                return packed(algebra, _settled(algebra, self._divided, y, lambda: start(self._chart, u)))

        return at

    def _known(self, algebra: TensorAlgebra) -> dict[Node, Any]:
        """What points share, of the chart as it is now."""
        prefix, chart, kept = self._prefix, self._chart, self._polynomials
        assert prefix is not None
        if kept is None or kept[0] != chart.written:
            origin = chart.point.new_zeros(1, chart.k, dtype=self._dtype)
            with _taped(algebra):
                made = _run(algebra, origin, lambda: prefix.polynomials(algebra, start(chart, origin)))
            kept = chart.written, made
        if self.program is None:  # else weights may have changed by the next call
            self._polynomials = kept
        return kept[1]

    def _at_points(self, algebra: TensorAlgebra, known: dict[Node, Any], u: Tensor) -> Any:
        """The graph at points that share what is known: a series, or a tensor where it reads only shapes."""
        assert self._prefix is not None
        return self._prefix.evaluated(algebra, known, self._chart, u)

    def _by_directions(self, u: Tensor, width: int, basis: Tensor | None) -> Tensor:
        """Where not even one point fits: so many directions at a time, until each pair has been together once."""
        k, index = self._chart.k, pair_index(self._chart.k)
        out = u.new_empty(u.shape[0], size(k), self._dim)
        groups = [range(first, min(first + width // 2, k)) for first in range(0, k, width // 2)]
        for point in range(u.shape[0]):
            at = slice(point, point + 1)
            x = start(self._chart, u[at], None if basis is None else basis[at]).data
            for one, other in combinations_with_replacement(groups, 2):
                taken = sorted({*one, *other})
                part = self._packed(Series(x[[0, *(1 + i for i in taken)]], len(taken)))
                rows = [1 + i for i in taken] + [1 + k + int(index[taken[i], taken[j]]) for i, j in pairs(len(taken))]
                out[point, [0, *rows]] = part[0]
        return out

    def _algebra(self) -> TensorAlgebra:
        program = self.program
        return TensorAlgebra(constants=None if program is None else program.constants(), tape=program is not None)

    def _packed(self, x: Series) -> Tensor:
        algebra = self._algebra()
        return packed(algebra, evaluated(algebra, self._divided, x))


def _step(points: int, bytes_per_point: int) -> int:
    """How many of so many points to take at a time on a CPU, so that no step is much smaller than the others."""
    return math.ceil(points / math.ceil(points / max(1, CACHED // max(bytes_per_point, 1))))


def start(chart: Chart, u: Float[Tensor, "P k"], basis: Float[Tensor, "P k *shape"] | None = None) -> Series:
    """The chart itself as a series: its points and its basis, or another one at each point, nothing of second order."""
    x = u.new_empty(1 + chart.k, u.shape[0], *chart.point.shape)
    x[0] = chart(u)
    x[1:] = chart.basis.to(u.dtype).unsqueeze(1) if basis is None else basis.transpose(0, 1)
    return Series(x, chart.k)


def evaluated(algebra: TensorAlgebra, graph: Graph, x: Series) -> Series:
    """The graph on a series, as a series also where the output is constant.

    Where an equality holds at a point alone, what it chooses there says nothing of what is nearby: derivatives that do
    not fit the values nearby are no number then. There is a tape where the algebra keeps one and gradients are on.
    """
    with _taped(algebra):
        y = _run(algebra, x.data, lambda: (evaluate if noisy() else evaluate_once)(graph, algebra, x))
        return _settled(algebra, graph, y, lambda: x)


def _taped(algebra: TensorAlgebra) -> torch.set_grad_enabled:
    """A tape where the algebra keeps one and gradients are on."""
    return torch.set_grad_enabled(algebra.tape and torch.is_grad_enabled())


def _run(algebra: TensorAlgebra, data: Tensor, run: Callable[[], Any]) -> Any:
    """What `run` makes of `data`; where the host is not to wait for each node, once more if a gradient may spill."""
    algebra.forget()
    algebra.spilled = [] if torch.is_grad_enabled() and not on_host(data) else None
    y = run()
    if algebra.spilled:
        spilled, algebra.spilled = torch.stack(algebra.spilled), None
        if some(spilled):
            y = run()
    return y


def _settled(algebra: TensorAlgebra, graph: Graph, y: Any, given: Callable[[], Series]) -> Series:
    """What a graph gave as a series, without derivatives where they do not fit the values nearby."""
    if not isinstance(y, Series):
        x = given()
        return Series(y.expand(1, x.data.shape[1], *y.shape), x.k)
    if algebra.alone is None or not some(algebra.alone):
        return y
    if algebra.seconds != "pair":
        raise UnsupportedOpError("an equality at a point alone is judged by derivatives of each pair")
    series, x = y, given()

    def values(at: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        out = evaluate(graph, TensorAlgebra(constants=algebra.constants), Series(at[0][None], x.k))
        return (out.data[0] if isinstance(out, Series) else out.expand(at[0].shape[0], *out.shape),)

    data, rows = padded(series.data, algebra.count(2, x.k)).clone(), padded(x.data, algebra.count(2, x.k))
    for point in algebra.alone.nonzero().flatten().split(1):
        with torch.no_grad():
            fits = trusted(values, [rows[:, point]], [data[:, point]], x.k, finite=True)
        if not fits:
            data[1:, point] = math.nan
    return Series(data, x.k)


def packed(algebra: TensorAlgebra, y: Series) -> Float[Tensor, "P C D"]:
    """All coefficients of a series, flattened, points first; what is known to vanish is filled with zeros."""
    coefficients = y.data.reshape(*y.data.shape[:2], -1).transpose(0, 1)
    missing = algebra.count(2, y.k) - coefficients.shape[1]
    return torch.nn.functional.pad(coefficients, (0, 0, 0, missing)) if missing else coefficients


def footprint(graph: Graph, coefficients: int = 1, shared: bool = False) -> int:
    """The largest number of entries alive at a time on the way through a graph, for each coefficient of one point.

    What stands still has only one of the coefficients, and where that is shared it is there once for all points.
    """
    still, share = Standing.of(graph).still, 0.0 if shared else 1 / coefficients
    return math.ceil(most_alive(graph.nodes, graph.last_use(), lambda node: share if node in still else 1))
