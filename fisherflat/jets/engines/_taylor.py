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
from torch.utils._pytree import tree_flatten, tree_unflatten

from fisherflat._arrays import on_host, some
from fisherflat._typing import Float
from fisherflat.jets.engines._affine import applied
from fisherflat.jets.engines._batched import batched
from fisherflat.jets.engines._chunks import keep_memory, memory_budget
from fisherflat.jets.engines._fallback import differentiated, padded
from fisherflat.jets.engines._matrices import MATRICES
from fisherflat.jets.engines._noise import noisy
from fisherflat.jets.engines._norms import norm_in, normalised
from fisherflat.jets.engines._prefix import Prefix
from fisherflat.jets.engines._trust import EQUALITIES, trusted
from fisherflat.jets.engines._writing import into
from fisherflat.jets.graph import Graph, Node
from fisherflat.jets.ops import OPS, evaluate
from fisherflat.jets.rules import Adjoint, Algebra, Recorded, Series, Unknown, aligned, leibniz_adjoint
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.jets import pair_index, pairs, size

aten = torch.ops.aten


#: on a CPU, so many bytes of live coefficients at a time: what a core's caches hold, so that ops meet warm data
CACHED = 16 * 2**20


class TaylorEngine:
    """2-jets of `mean(chart(u))` by Taylor arithmetic on the graph of `mean`.

    **Args:** `graph`, of the map in its working precision; `chart`, on the device to run on; `dim`, the number D of
    outputs; `dtype`, the working precision; `memory`, a budget in bytes (default: a share of what is free). A point
    that does not fit into it is taken by pairs of directions.

    **Raises:** `UnsupportedOpError` for an op that cannot be differentiated.
    """

    def __init__(self, graph: Graph, chart: Chart, dim: int, dtype: torch.dtype, memory: int | None = None) -> None:
        self._chart, self._dim, self._memory = chart, dim, memory
        self.graph, self.program = graph, graph.program
        self._dtype, self._bytes = dtype, footprint(self.graph) * dtype.itemsize
        prefix = Prefix(graph) if isinstance(graph.output, Node) else None
        self._prefix = prefix if prefix is not None and prefix.saves else None
        self._polynomials: dict[Node, Any] | None = None
        if chart.point.device.type == "cpu":
            keep_memory()
        # on a CPU geometry too should meet warm data, but has more to do for each chunk than for each point
        self.chunk_memory = memory if memory is not None or chart.point.device.type != "cpu" else 4 * CACHED

    @property
    def bytes_per_point(self) -> int:
        """The largest sum of live coefficients on the way through the graph, in bytes for one point."""
        return self._bytes * size(self._chart.k)

    @property
    def tape_per_point(self) -> int:
        """What a tape keeps of one point, in bytes: about two tensors a node."""
        entries = sum(_entries(node.shape) for node in self.graph.nodes)
        return 2 * entries * size(self._chart.k) * self._dtype.itemsize

    def on(self, chart: Chart) -> TaylorEngine:
        """The same engine along other directions, those of `chart`, among the combinations of its own."""
        other = copy(self)
        other._chart, other._polynomials = chart, None
        return other

    def jet(self, u: Float[Tensor, "P k"], basis: Float[Tensor, "P k *shape"] | None = None) -> Float[Tensor, "P S D"]:
        """The coefficients of the 2-jets at the points `u`, along the chart's directions or others at each point."""
        k = self._chart.k
        budget = memory_budget(u.device, self._memory)
        directions = k
        while directions > 2 and self._bytes * size(directions) > budget:
            directions -= 1
        if directions < k:
            return self._by_directions(u, directions, basis)
        at = self._sharing() if basis is None and self._shares() else self._alone
        if u.device.type != "cpu":
            return at(u, basis)
        step = max(1, CACHED // max(self.bytes_per_point, 1))
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

    def _alone(self, u: Tensor, basis: Tensor | None) -> Tensor:
        """Each point by itself."""
        return self._packed(start(self._chart, u, basis))

    def _shares(self) -> bool:
        """Whether points share what does not depend on them: not with a tape, nor where each has a noise of its own."""
        return self._prefix is not None and not noisy() and (self.program is None or not torch.is_grad_enabled())

    def _sharing(self) -> Callable[[Tensor, Tensor | None], Tensor]:
        """What gives jets of points that share what does not depend on them."""
        prefix, chart, algebra = self._prefix, self._chart, self._algebra()
        assert prefix is not None
        with torch.no_grad():
            known = self._polynomials
            if known is None:
                origin = chart.point.new_zeros(1, chart.k, dtype=self._dtype)
                known = prefix.polynomials(algebra, start(chart, origin))
            if self.program is None:  # else weights may have changed by the next call
                self._polynomials = known

        @torch.no_grad()
        def at(u: Tensor, basis: Tensor | None) -> Tensor:
            algebra.forget()
            y = prefix.evaluated(algebra, known, chart, u)
            return packed(algebra, _settled(algebra, self.graph, y, lambda: start(chart, u)))

        return at

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
        return packed(algebra, evaluated(algebra, self.graph, x))


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
    with torch.set_grad_enabled(algebra.tape and torch.is_grad_enabled()):
        algebra.forget()
        algebra.spilled = [] if torch.is_grad_enabled() and not on_host(x.data) else None
        y = evaluate(graph, algebra, x)
        if algebra.spilled:
            spilled, algebra.spilled = torch.stack(algebra.spilled), None
            if some(spilled):
                y = evaluate(graph, algebra, x)
        return _settled(algebra, graph, y, lambda: x)


def _settled(algebra: TensorAlgebra, graph: Graph, y: Any, given: Callable[[], Series]) -> Series:
    """What a graph gave as a series, without derivatives where they do not fit the values nearby."""
    if not isinstance(y, Series):
        x = given()
        return Series(y.expand(1, x.data.shape[1], *y.shape), x.k)
    if algebra.alone is None or not some(algebra.alone):
        return y
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


def footprint(graph: Graph) -> int:
    """The largest number of entries alive at a time on the way through the graph, for one coefficient of one point."""
    last, live, peak = graph.last_use(), 0, 0
    for node in graph.nodes:
        live += _entries(node.shape)
        peak = max(peak, live + _entries(node.shape))
        live -= sum(_entries(dead.shape) for dead in last.get(node, ()))
    return peak


def _expanded(data: Tensor, batch: list[int]) -> Tensor:
    missing = len(batch) - (data.dim() - 4)
    data = data.reshape(*data.shape[:2], *(1,) * missing, *data.shape[2:])
    return data.expand(*data.shape[:2], *batch, *data.shape[-2:])


def _alone(a: Any, b: Any = None) -> Tensor:
    """At which points entries of two series or numbers are equal, but not all their derivatives; or one is NaN."""
    if b is None:
        return a.data[0].isnan().reshape(a.data.shape[1], -1).any(1)
    given = [s.data if isinstance(s, Series) else torch.as_tensor(s)[None, None] for s in (a, b)]
    rank, count = (max(sizes) for sizes in zip(*((s.dim() - 2, s.shape[0]) for s in given), strict=True))
    one, two = (padded(aligned(s, rank), count) for s in given)
    equal = one == two
    return (equal[0] & ~equal[1:].all(0)).reshape(equal.shape[1], -1).any(1)


def _entries(shape: Any) -> int:
    if shape and isinstance(shape[0], tuple):
        return sum(math.prod(part) for part in shape)
    return math.prod(shape)


#: the gradient of a matrix product by each factor
_BY_FACTOR = (lambda g, other: g @ other.mT, lambda g, other: other.mT @ g)


class TensorAlgebra(Algebra):
    """The algebra of `fisherflat.jets.rules` in torch tensors.

    **Attributes:** `alone`: the points where an equality of things that move holds, or an entry is not a number, and
    may not be nearby; `tape`: whether gradients may be recorded, see `into`; `spilled`: where the host is not to wait
    for each node, whether each may spill gradients (`spilling`), to be asked at the end.
    """

    alone: Tensor | None = None
    spilled: list[Tensor] | None = None

    def __init__(
        self,
        labels: dict[Node, int] | None = None,
        blocks: int = 1,
        constants: dict[int, Tensor] | None = None,
        tape: bool = False,
    ) -> None:
        super().__init__(labels, blocks, constants)
        self.tape = tape

    @property
    def _taping(self) -> bool:
        return self.tape and torch.is_grad_enabled()

    def empty(self, coefficients: int, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        return like.new_empty(coefficients, like.shape[1], *shape)

    def recorded(self, forward: Callable[..., Any], adjoint: Adjoint, *arrays: Any) -> Any:
        if not self._taping or not any(array.requires_grad for array in arrays):
            return forward(*arrays)
        return Recorded.apply(forward, adjoint, *arrays)

    def shifted(self, rows: Tensor, value: Any) -> Tensor:
        if not self._taping:
            return super().shifted(rows, value)
        return torch.cat([rows[:1] + value, rows[1:]])

    def kept(self, rows: Tensor) -> Tensor:
        return rows.clone() if self._taping else rows

    def spilling(self, value: Any) -> bool:
        # an infinite slope times a gradient of zero, where an entry is not read or masked behind
        parts = value if isinstance(value, tuple) else (value,)
        data = (part.data for part in parts if isinstance(part, Series) and not isinstance(part, Unknown))
        if not self._taping:
            return False
        finite = [d.detach().sum().isfinite() for d in data]
        if self.spilled is None:
            return any(some(~one) for one in finite)
        self.spilled += [~one for one in finite]
        return False

    def shielded(self, value: Any) -> Any:
        if not isinstance(value, Series) or isinstance(value, Unknown) or not value.data.requires_grad:
            return value
        data = value.data.view_as(value.data)
        data.register_hook(lambda gradient: gradient.masked_fill(gradient.isnan(), 0.0))
        return Series(data, value.k)

    def constant(self, tensor: Tensor) -> Tensor:
        return tensor

    def mul(self, a: Tensor, b: Any, out: Tensor) -> None:
        into(out, torch.mul, a, b)

    def add(self, a: Tensor, b: Any, out: Tensor) -> None:
        into(out, torch.add, a, b)

    def div(self, a: Tensor, b: Any, out: Tensor) -> None:
        into(out, torch.div, a, b)

    def fma(self, out: Tensor, a: Tensor, b: Tensor) -> None:
        out.addcmul_(a, b)

    def normalised(self, node: Node, a: Series, b: Series) -> Series | None:
        found = norm_in(node) if self.blocks == 1 else None
        if found is None:
            return None
        position, norm = found
        return normalised(self, norm, node, *((a, b) if position == 0 else (b, a)), self.count(2, a.k))

    def anchor(self, rows: Tensor, index: Tensor, axis: int) -> None:
        rows.sub_(self.kept(rows).gather(axis, index.expand(rows.shape[0], *index.shape)))

    def matmul(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        into(out, torch.matmul, a, b)

    def solve_triangular(self, a: Tensor, rows: Tensor, upper: bool, unitriangular: bool) -> None:
        rows.copy_(torch.linalg.solve_triangular(a, rows, upper=upper, unitriangular=unitriangular))

    def convolve(self, node: Node, a: Tensor, b: Tensor, options: tuple[Any, ...]) -> Tensor:
        rank = len(node.shape)
        lead = torch.broadcast_shapes(*(x.shape[: x.dim() - rank] for x in (a, b)))
        flat = [x.expand(*lead, *x.shape[-rank:]).flatten(0, len(lead) - 1) for x in (a, b)]
        out = batched(node, lambda x, w: aten.convolution(x, w, None, *options), (True, True), flat)
        return out.unflatten(0, lead)

    def matrix(self, node: Node, what: str, *arrays: Tensor) -> tuple[Any, ...]:
        return MATRICES[what](*arrays)

    def contract(self, node: Node, a: Series, b: Series) -> Series:
        """All products of coefficients in a few large products.

        Those of the left factor are stacked as rows, those of the right one as columns, behind the batch axes.
        """
        batch = list(node.shape[:-2])
        adjoint = leibniz_adjoint(a.k, self.sources(node, a.k), bool(a.order and b.order), _BY_FACTOR)

        def forward(*arrays: Tensor) -> Tensor:
            return self._contracted(node, *(Series(_expanded(array, batch), a.k) for array in arrays)).data

        rank = len(node.shape)
        return Series(self.recorded(forward, adjoint, aligned(a.data, rank), aligned(b.data, rank)), a.k)

    def _contracted(self, node: Node, a: Series, b: Series) -> Series:
        k, (*batch, rows, columns) = a.k, node.shape
        left, right = a.data, b.data
        (ca, points), cb, inner = left.shape[:2], right.shape[0], left.shape[-1]
        mixing = bool(a.order and b.order)
        every = points * math.prod(batch)
        # [batch, C, rows, inner] and [batch, inner, C, columns]
        left = left.movedim(0, -3).reshape(every, ca * rows, inner)
        right = right.movedim(0, -2).reshape(every, inner, cb * columns)
        count = self.count(2 if mixing else max(a.order, b.order), k)
        out = left.new_empty(every, count, rows, columns)
        result = Series(out.view(points, *batch, count, rows, columns).movedim(-3, 0), k)
        if cb == 1:
            torch.bmm(left, right, out=out.view(every, ca * rows, columns))
            return result
        out[:, 0].zero_()
        # value and slopes of the left one with slopes of the right one
        more = torch.bmm(left[:, : (1 + k if mixing else 1) * rows], right[:, :, columns:])
        more = more.view(points, *batch, -1, rows, cb - 1, columns).movedim((-4, -2), (0, 1))
        result.data[1:cb] = more[0]
        result.data[cb:].zero_()
        if mixing:
            cross, blank = more[1:, :k], self.blank(result, cb)
            for i in range(k):
                row = self.row(node, result, i)
                if blank:
                    into(row, torch.add, cross[i, i:], cross[i:, i])
                else:
                    row.add_(cross[i, i:]).add_(cross[i:, i])
        if ca == count:
            whole = out.view(every, ca * rows, columns)
            torch.baddbmm(whole, left, right[:, :, :columns], out=whole)
        else:
            out[:, :ca] += torch.bmm(left, right[:, :, :columns]).view(every, ca, rows, columns)
        return result

    def linear(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], order: int, k: int) -> Series:
        return Series(applied(node, args, kwargs, self.count(order, k)), k)

    @torch.no_grad()
    def values(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        return self._values(node, args, kwargs, k)

    def still(self, node: Node, rule: Any, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        op = OPS.get(node.packet)
        if not self._taping or (op is not None and op.kind == "constant"):  # what jumps has no gradient
            return self.values(node, args, kwargs, k)
        return self._values(node, args, kwargs, k)

    def _values(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        op = OPS.get(node.packet)
        if op is not None and op.shape_only:  # a constant, the same for all points
            return node.target(args[0].data[0, 0], *args[1:], **kwargs)
        if node.packet in EQUALITIES:
            with torch.no_grad():
                self._note(_alone(*args))
        leaves, structure = tree_flatten((args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Series))

        def call(*filled: Any) -> Any:
            full_args, full_kwargs = tree_unflatten(filled, structure)
            out = node.target(*full_args, **full_kwargs)
            return out if isinstance(out, Tensor) else tuple(out)

        moving = tuple(isinstance(leaf, Series) for leaf in leaves)
        out = batched(node, call, moving, [leaf.data[0] if isinstance(leaf, Series) else leaf for leaf in leaves])
        return tuple(Series(o[None], k) for o in out) if isinstance(out, tuple) else Series(out[None], k)

    def forget(self) -> None:
        """No point is known to be alone."""
        self.alone = None

    def _note(self, points: Tensor) -> None:
        self.alone = points if self.alone is None else self.alone | points

    def fallback(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        return differentiated(node, args, kwargs, k, self.count(2, k), self.sources(node, k))
