"""Second-order terms of a stack, kept apart by the part where they are born, and what each makes at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from copy import copy
from functools import partial
from typing import NamedTuple

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.geometry import Geometry
from fisherflat.jets import Jet, pairs
from fisherflat.jets.engines import TensorAlgebra, evaluated, memory_budget, start
from fisherflat.jets.graph import ROLES, Graph, Node
from fisherflat.jets.rules import Series
from fisherflat.spaces.families import Ambient
from fisherflat.studies._lens import Lens
from fisherflat.studies.depth._budget import EXTRAS, Part
from fisherflat.studies.depth._stack import Stack, Stage, over_points

#: the name of the head of a model that reads states, as of a layer
READOUT = "readout"


class Amounts(NamedTuple):
    """`traces`, `products`, `born` `[P, n, n]`, `size` `[P]`: see `CurvatureBudget`; `skewness` at the end."""

    traces: Tensor
    products: Tensor
    born: Tensor
    skewness: Tensor
    size: Tensor


class Apart:
    """The maps of a stack, the head that reads its states among them, and the parts that have sources in each.

    **Args:** `stack`; `by`, as of `curvature_budget`; `degenerate`, `memory`.

    **Attributes:** `parts`, those with sources, and the extras of a family; `births`, in how many maps each has some;
    `labels`, of the maps.
    """

    def __init__(self, stack: Stack, by: str, degenerate: str, memory: int | None) -> None:
        self._stack, self._by, self._memory = stack, by, memory
        self._head = None if stack.lenses is None or stack.lenses[-1].graph is None else stack.lenses[-1]
        self._stages = list(stack.stages)
        if self._head is not None and self._head.graph is not None:
            self._stages.append(Stage.of(READOUT, 0.0, stack.chart.point, self._head.graph))
        self.births = Counter(part for stage in self._stages for part in self._bending(stage))
        self._sources = list(self.births)
        extras = [Part(role=extra) for extra in EXTRAS] if stack.lenses is not None else []
        self.parts = [*self._sources, *extras]
        self.births.update(dict.fromkeys(extras, 2))  # in no one map
        self.labels = tuple(stage.label for stage in self._stages)
        self._degenerate = degenerate

    def on(self, stack: Stack) -> Apart:
        """The same parts of a stack of the same maps on another chart."""
        other = copy(self)
        other._stack = stack
        return other

    @property
    def widest(self) -> int:
        """The largest output of a map."""
        return max(stage.shape.numel() for stage in self._stages)

    def _bending(self, stage: Stage) -> list[Part]:
        """The parts that have sources in a map."""
        return list(dict.fromkeys(self._part(stage, role) for role in ROLES if role in stage.bending))

    def _part(self, stage: Stage, role: str) -> Part:
        return Part(None if self._by == "role" else stage.label, None if self._by == "layer" else role)

    def _graphs(self) -> Iterator[Graph]:
        yield from self._stack.graphs()
        if self._head is not None and self._head.graph is not None:
            yield self._head.graph

    def shares(self, u: Float[Tensor, "P k"], basis: Float[Tensor, "P k *shape"]) -> Float[Tensor, "P n m D"]:
        """The second derivatives of each part behind the last map, along other directions at each point.

        Whitened, and with their tangential components.
        """
        stack, k, m = self._stack, self._stack.chart.k, len(pairs(self._stack.chart.k))
        n, state = len(self._sources), start(stack.chart, u, basis).data.transpose(0, 1)
        graphs = self._graphs()
        for stage in self._stages:
            graph = next(graphs)
            labels = {
                node: self._sources.index(self._part(stage, node.role))
                for node in graph.nodes
                if node.role in stage.bending
            }
            state = _through(graph, k, n, labels, n, state)
            del graph, labels  # before the next one is there
        state = _padded(stack.families[-1].whiten(stack.picks[-1](state.flatten(2))), 1 + k + n * m)
        return state[:, 1 + k :].unflatten(1, (n, m))

    def measure(self, u: Float[Tensor, "P k"], degenerate: str | None = None) -> Amounts:
        """At some points, for all parts."""
        stack, parts, degenerate = self._stack, self._sources, degenerate or self._degenerate
        k, m, count = stack.chart.k, len(pairs(stack.chart.k)), len(self.parts)
        born = u.new_zeros(len(u), count, count)
        traces = products = torch.zeros_like(born)
        state, n, graphs = start(stack.chart, u).data.transpose(0, 1), 0, self._graphs()
        for depth, stage in enumerate(self._stages, 1):
            graph = next(graphs)
            # parts take up coefficients from the first map on in which they have sources
            positions = {part: parts.index(part) for part in self._bending(stage)}
            old, n = n, max(n, *(index + 1 for index in positions.values())) if positions else n
            if state.shape[1] > 1 + k:
                state = torch.cat([state, state.new_zeros(len(u), m * (n - old), *state.shape[2:])], 1)
            labels = {
                node: positions[self._part(stage, node.role)] for node in graph.nodes if node.role in stage.bending
            }
            alone = [index for part, index in positions.items() if self.births[part] == 1]
            last = depth == len(self._stages)
            wanted = list(range(n)) if last else alone
            per_part = stage.footprint * m
            group = max(1, min(n, memory_budget(u.device, self._memory) // (per_part * u.element_size()) - 2))
            step = partial(self._step, graph, labels, group, n, wanted, min(depth, len(stack.stages)), last, degenerate)
            chunks = over_points(
                partial(step, state, u), u, stage.footprint * (1 + k) + per_part * (group + 1), self._memory
            )
            joined = (torch.cat(pieces) for pieces in zip(*chunks, strict=True))
            state, traces, products, around, skewness, size = joined
            del graph, labels, step, chunks  # before the next one is there
            if alone:
                places = (alone, [wanted.index(index) for index in alone])
                at, of = (torch.tensor(indices, device=born.device) for indices in places)
                born[:, at[:, None], at] = products[:, of[:, None], of]
        if stack.lenses is not None:  # the last part has a trace alone
            traces, products = (torch.nn.functional.pad(x, (0, 1, 0, 1)) for x in (traces, products))
            traces[:, -1, -1] = around
        return Amounts(traces, products, born, skewness, size)

    def _step(
        self,
        graph: Graph,
        labels: dict[Node, int],
        group: int,
        n: int,
        wanted: list[int],
        depth: int,
        last: bool,
        degenerate: str,
        state: Tensor,
        u: Tensor,
        chunk: Tensor,
    ) -> tuple[Tensor, ...]:
        """What a map makes of some points, and the amounts behind it."""
        k, m = self._stack.chart.k, len(pairs(self._stack.chart.k))
        after = _through(graph, k, n, labels, group, state[chunk])
        if not wanted and not last:
            nothing = after.new_zeros(len(after), 0, 0)
            zero = after.new_zeros(len(after))
            return after, nothing, nothing, zero, zero + 1, zero
        seen = after
        if self._head is not None and self._head.graph is not None and not last:
            dropped = dict.fromkeys(self._head.graph.nodes, n)
            seen = _through(self._head.graph, k, n, dropped, group, after)
        second = seen[:, 1 + k :].unflatten(1, (-1, m)) if seen.shape[1] > 1 + k else None
        kept = [
            torch.zeros_like(seen[:, :1]).expand(-1, m, *seen.shape[2:]) if second is None else second[:, part]
            for part in wanted
        ]
        first = _padded(seen[:, : 1 + k], 1 + k)
        shares, *rest = _shares(
            self._stack, depth, torch.cat([first, *kept], 1).flatten(2), k, last, degenerate, u[chunk]
        )
        return after, _traces(shares, k), _products(shares, k), *rest


def _padded(rows: Tensor, count: int) -> Tensor:
    """Zeros for coefficients that are known to vanish."""
    missing = count - rows.shape[1]
    return rows if not missing else torch.cat([rows, rows.new_zeros(len(rows), missing, *rows.shape[2:])], 1)


def _through(
    graph: Graph, k: int, n: int, labels: dict[Node, int], group: int, state: Float[Tensor, "P C *shape"]
) -> Float[Tensor, "P C2 *shape2"]:
    """Coefficients behind a map, the second-order ones of n parts apart, `group` parts at a time.

    What stems from the parts of another group, or from a part beyond n, is kept in one more block, and dropped.
    """
    m = len(pairs(k))
    foreign = any(part >= n for part in labels.values())
    seconds = []
    for first in range(0, max(n, 1), group):
        size = min(group, n - first)
        rest = size < n or foreign
        blocks = {node: part - first if first <= part < first + size else size for node, part in labels.items()}
        given = state
        if rest and state.shape[1] > 1 + k:
            taken = state[:, 1 + k + first * m : 1 + k + (first + size) * m]
            given = torch.cat(
                [state[:, : 1 + k], taken, torch.zeros_like(state[:, :1]).expand(-1, m, *state.shape[2:])], 1
            )
        algebra = TensorAlgebra(blocks, max(1, size + rest))
        after = evaluated(algebra, graph, Series(given.transpose(0, 1), k)).data.transpose(0, 1)
        seconds.append(after[:, 1 + k : 1 + k + size * m])
    return torch.cat([after[:, : 1 + k], *seconds], 1)


def _shares(
    stack: Stack, depth: int, jets: Float[Tensor, "P C D"], k: int, last: bool, degenerate: str, u: Tensor
) -> tuple[Float[Tensor, "P w m X"], Float[Tensor, " P"], Float[Tensor, " P"], Float[Tensor, " P"]]:
    """The parts' shares of II on the orthonormal frame, the scalar curvature around, the tangents' skewness, and size.

    Of a family with a metric of its own its own terms are the last share, where that is wanted.
    """
    m = len(pairs(k))
    ambient: Ambient | None = None
    if stack.lenses is None:
        jets = stack.families[depth].whiten(stack.picks[depth](jets))
    else:
        lens: Lens = stack.lenses[depth]
        framed = lens.family.apart(jets, k, lens.shape)
        jets, ambient = framed.coefficients, framed.ambient
        jets = jets if last else jets[:, :-m]
    second = (
        jets[:, 1 + k :].unflatten(1, (-1, m))
        if jets.shape[1] > 1 + k
        else jets.new_zeros(len(jets), 0, m, jets.shape[2])
    )
    surface = Jet(torch.cat([jets[:, : 1 + k], second.sum(1)], 1), k)
    geometry = Geometry(surface, degenerate, u, ambient=ambient)
    shares = [geometry.share(second[:, part]) for part in range(second.shape[1])]
    found = torch.stack(shares, 1) if shares else torch.zeros_like(second)
    return found, geometry.ambient_scalar_curvature, geometry.skewness, geometry.size


def _traces(shares: Float[Tensor, "P n m D"], k: int) -> Float[Tensor, "P n n"]:
    diagonal = [index for index, (a, b) in enumerate(pairs(k)) if a == b]
    trace = shares[:, :, diagonal].sum(2)
    return trace @ trace.mT


def _products(shares: Float[Tensor, "P n m D"], k: int) -> Float[Tensor, "P n n"]:
    # each pair a <= b stands once or twice in a full sum over a and b
    weights = torch.tensor([1.0 if a == b else 2.0 for a, b in pairs(k)], dtype=shares.dtype, device=shares.device)
    weighted = (shares * weights[:, None].sqrt()).flatten(2)
    return weighted @ weighted.mT
