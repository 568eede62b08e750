"""How curvature grows with depth, and which part of the layers pays for it.

One pass of 2-jets runs through a stack of blocks. After each block the jets of what has come so far are at hand, so the
geometry of every depth costs one pass and not one a depth.

The second-order terms of a jet are sums over the nodes where they are born: a nonlinear node adds a source of its own,
and all that follows passes it on linearly. Kept apart by label (role, layer, or both), they split the second fundamental
form exactly, `II = sum_a II_a`, and with it the scalar curvature by the Gauss equation:

    scal = sum_ab B_ab,    B_ab = tr II_a . tr II_b - <II_a, II_b>.

Nothing is ablated and nothing approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.charts import Chart
from fisherflat.errors import InputError, MapError
from fisherflat.family import Gaussian
from fisherflat.geometry import Geometry
from fisherflat.jets.chunks import in_chunks, memory_budget
from fisherflat.jets.graph import ROLES, Node
from fisherflat.jets.jet import Jet, pairs, size
from fisherflat.jets.mapping import Mapping
from fisherflat.jets.rules import is_affine
from fisherflat.jets.taylor import CACHED, TensorAlgebra, evaluated, footprint, packed, start
from fisherflat.jets.tracing import traced

if TYPE_CHECKING:
    import pandas

Map = Callable[[Tensor], Tensor]

#: the quantities of `Geometry` that a profile holds for each depth
QUANTITIES = (
    "scalar_curvature",
    "second_fundamental_form_norm",
    "mean_curvature_norm",
    "volume_density",
    "condition_number",
)


class Stack:
    """Blocks that feed each other, each traced where the chart's point arrives at it.

    **Args:** `blocks`, callables or graphs, the output of each an input of the next; `chart`; `family`, one Gaussian for
    all depths, or `"calibrated"`: at each depth isotropic, with the variance of that depth's own output over its first
    axis (tokens) at the chart's point.

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
        for gaussian, output in zip(self.families, outputs, strict=True):
            gaussian.check(output.numel())

    def depths(self, u: Float[Tensor, "P k"], algebra: TensorAlgebra) -> Iterator[Float[Tensor, "P C D"]]:
        """The coefficients after 0, 1, ... L blocks, in whitened units, one depth at a time."""
        series = start(self.chart, u)
        yield self.families[0].whiten(packed(algebra, series))
        for graph, family in zip(self.graphs, self.families[1:], strict=True):
            series = evaluated(algebra, graph, series)
            yield family.whiten(packed(algebra, series))

    def bytes_per_coefficient(self) -> int:
        """What one coefficient of one point takes on the way, at the most."""
        return max(footprint(graph) for graph in self.graphs) * self.chart.point.element_size()


@dataclass(frozen=True, eq=False)
class DepthProfile:
    """The geometry of a chart's image after 0, 1, ... L blocks; depth 0 is the chart itself.

    **Attributes:** `scalar_curvature` `[L+1, *batch]`, in units of 1 / covariance; `second_fundamental_form_norm`
    (its square root units), `mean_curvature_norm`, `volume_density`, `condition_number` of the metric, all
    `[L+1, *batch]`; `covariance` `[L+1]`, the covariance of each depth where it is a number, else NaN.
    """

    scalar_curvature: Float[Tensor, "depths *batch"]
    second_fundamental_form_norm: Float[Tensor, "depths *batch"]
    mean_curvature_norm: Float[Tensor, "depths *batch"]
    volume_density: Float[Tensor, "depths *batch"]
    condition_number: Float[Tensor, "depths *batch"]
    covariance: Float[Tensor, " depths"]

    @property
    def depth(self) -> int:
        """L, the number of blocks."""
        return self.scalar_curvature.shape[0] - 1

    @property
    def table(self) -> pandas.DataFrame:
        """A row for each depth and point."""
        import pandas

        columns = {name: getattr(self, name).reshape(self.depth + 1, -1) for name in QUANTITIES}
        points = columns["scalar_curvature"].shape[1]
        return pandas.DataFrame(
            {
                "depth": torch.arange(self.depth + 1).repeat_interleave(points).numpy(),
                "point": torch.arange(points).repeat(self.depth + 1).numpy(),
                **{name: values.reshape(-1).cpu().numpy() for name, values in columns.items()},
            }
        )


def depth_profile(
    blocks: Sequence[Map],
    chart: Chart,
    u: Any,
    family: Gaussian | str | None = None,
    *,
    degenerate: str = "raise",
    memory: int | None = None,
) -> DepthProfile:
    """The geometry of the chart's image after every block, from one pass of 2-jets.

    **Args:** `blocks`: maps of one tensor, in order (whole blocks, or half-blocks for a finer profile); `chart`; `u`
    `[*batch, k]`; `family`: a Gaussian for all depths (default `Gaussian()`), or `"calibrated"` for the dimensionless
    profile (see `Stack`); `degenerate` as in `StatisticalManifold`; `memory`, a budget in bytes.

    **Raises:** `InputError`, `MapError`, `TraceError`, `DegenerateImmersionError`.
    """
    stack = Stack(blocks, chart, family if family is not None else Gaussian())
    points = chart.coordinates(u)

    def measure(chunk: Tensor) -> Tensor:
        with torch.no_grad():
            rows = [
                [getattr(geometry, name) for name in QUANTITIES]
                for coefficients in stack.depths(chunk, TensorAlgebra())
                for geometry in [Geometry(Jet(coefficients, chart.dim), degenerate, chunk)]
            ]
        return torch.stack([torch.stack(row) for row in rows])

    pieces = _pieces(measure, points.reshape(-1, chart.dim), stack.bytes_per_coefficient() * size(chart.dim), memory)
    values = torch.cat(pieces, -1)
    values = values.reshape(*values.shape[:2], *points.shape[:-1])
    covariances = [g.covariance.item() if g.covariance.dim() == 0 else float("nan") for g in stack.families]
    columns = {name: values[:, column] for column, name in enumerate(QUANTITIES)}
    return DepthProfile(**columns, covariance=torch.tensor(covariances, dtype=torch.float64))


@dataclass(frozen=True, eq=False)
class CurvatureBudget:
    """Who pays for the scalar curvature.

    **Attributes:** `labels`, n of them; `matrix` `[*batch, n, n]`, symmetric, `B_ab = tr II_a . tr II_b - <II_a, II_b>`
    in units of 1 / covariance, whose sum is the scalar curvature; `created` and `surviving` `[*batch, n]`, the norm of
    `II_a` after the block in which its last source is born and after the last block.
    """

    labels: tuple[str, ...]
    matrix: Float[Tensor, "*batch n n"]
    created: Float[Tensor, "*batch n"]
    surviving: Float[Tensor, "*batch n"]

    @property
    def scalar_curvature(self) -> Float[Tensor, "*batch"]:
        """The sum of the matrix."""
        return self.matrix.sum((-2, -1))

    @property
    def own(self) -> Float[Tensor, "*batch n"]:
        """The diagonal: what each part would make alone, the others' sources taken away."""
        return self.matrix.diagonal(dim1=-2, dim2=-1)

    @property
    def interaction(self) -> Float[Tensor, "*batch n"]:
        """Half of what each part makes together with others: row sums without the diagonal, so that
        `own + interaction` sums to the scalar curvature."""
        return self.matrix.sum(-1) - self.own

    @property
    def share(self) -> Float[Tensor, "*batch n"]:
        """`(own + interaction) / scal`, with sign; NaN where the scalar curvature vanishes."""
        total = self.scalar_curvature
        return self.matrix.sum(-1) / total.masked_fill(total == 0, float("nan")).unsqueeze(-1)

    @property
    def transport(self) -> Float[Tensor, "*batch n"]:
        """`surviving / created`: above 1 where later blocks amplify what a part made; NaN where it made nothing."""
        return self.surviving / self.created.masked_fill(self.created == 0, float("nan"))

    @property
    def table(self) -> pandas.DataFrame:
        """The matrix with its labels, averaged over points."""
        import pandas

        n = len(self.labels)
        mean = self.matrix.reshape(-1, n, n).mean(0).cpu().numpy()
        return pandas.DataFrame(mean, index=list(self.labels), columns=list(self.labels))


def curvature_budget(
    blocks: Map | Sequence[Map],
    chart: Chart,
    u: Any,
    by: str = "role",
    family: Gaussian | str | None = None,
    *,
    degenerate: str = "raise",
    memory: int | None = None,
) -> CurvatureBudget:
    """The exact split of the scalar curvature by the parts where second-order terms are born.

    **Args:** `blocks`: a module, a callable, a graph, or a list of them that feed each other; `chart`; `u` `[*batch, k]`;
    `by`: `"role"`, `"layer"` or `"layer-role"`; `family`, `degenerate`, `memory` as in `depth_profile`.

    A part that is frozen (`fisherflat.freeze`) gets exactly zero. Where all labels do not fit into memory at a time, they
    are taken in groups, one pass a group.

    **Raises:** `InputError` for an unknown `by`, and what `depth_profile` raises.
    """
    if by not in ("role", "layer", "layer-role"):
        raise InputError(f'by must be "role", "layer" or "layer-role", got {by!r}')
    several = isinstance(blocks, (list, tuple)) or (isinstance(blocks, torch.nn.ModuleList))
    stack = Stack(list(blocks) if several else [blocks], chart, family if family is not None else Gaussian())  # type: ignore[arg-type,list-item]
    points = chart.coordinates(u)
    names = {node: _name(by, layer, node) for layer, graph in enumerate(stack.graphs) for node in graph.nodes}
    born = {  # label -> the last block in which a source of it is born
        name: layer
        for layer, graph in enumerate(stack.graphs)
        for node in graph.nodes
        if not is_affine(node)
        for name in [names[node]]
    }
    labels = ROLES if by == "role" else tuple(dict.fromkeys(names.values())) if by == "layer" else tuple(born)
    active = [label for label in labels if label in born]
    k, pairs_ = chart.dim, len(pairs(chart.dim))
    per_label = stack.bytes_per_coefficient() * pairs_
    budget = memory_budget(points.device, memory)
    group = max(1, min(len(active), (budget - per_label * 2) // max(per_label, 1))) if active else 1

    def measure(chunk: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            parts = [_shares(stack, chunk, active[i : i + group], names, born, degenerate) for i in range(0, len(active), group)]
        if not parts:
            shape = (chunk.shape[0], len(labels))
            return chunk.new_zeros(*shape, len(labels)), chunk.new_zeros(2, *shape)
        shares, created = torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1)
        position = [labels.index(label) for label in active]
        matrix = chunk.new_zeros(chunk.shape[0], len(labels), len(labels))
        matrix[:, torch.tensor(position)[:, None], torch.tensor(position)] = _matrix(shares, k)
        norms = chunk.new_zeros(2, chunk.shape[0], len(labels))
        norms[0][:, position], norms[1][:, position] = created, _norm(shares, k)
        return matrix, norms

    pieces = _pieces(measure, points.reshape(-1, k), per_label * (group + 2), memory)
    batch = points.shape[:-1]
    matrix = torch.cat([piece[0] for piece in pieces]).reshape(*batch, len(labels), len(labels))
    created, surviving = torch.cat([piece[1] for piece in pieces], 1).reshape(2, *batch, len(labels))
    return CurvatureBudget(tuple(labels), matrix, created, surviving)


def _name(by: str, layer: int, node: Node) -> str:
    return {"role": node.role, "layer": f"layer {layer}", "layer-role": f"layer {layer}: {node.role}"}[by]


def _shares(
    stack: Stack, u: Tensor, labels: list[str], names: dict[Node, str], born: dict[str, int], degenerate: str
) -> tuple[Tensor, Tensor]:
    """Shares `[P, n, m, D]` of the labels in the second fundamental form after the last block, on the orthonormal frame,
    and their norms `[P, n]` right after the blocks where they were born. What has another label is kept in one more block."""
    k, m = stack.chart.dim, len(pairs(stack.chart.dim))
    position = {label: index for index, label in enumerate(labels)}
    blocks = {node: position.get(name, len(labels)) for node, name in names.items()}
    algebra = TensorAlgebra(blocks, len(labels) + 1)
    created = u.new_zeros(u.shape[0], len(labels))
    shares = u.new_zeros(0)
    last = len(stack.graphs)
    for depth, coefficients in enumerate(stack.depths(u, algebra)):
        here = [index for index, label in enumerate(labels) if born[label] + 1 == depth]
        if not here and depth < last:
            continue
        second = coefficients[:, 1 + k :].unflatten(1, (len(labels) + 1, m))
        total = torch.cat([coefficients[:, : 1 + k], second.sum(1)], 1)
        geometry = Geometry(Jet(total, k), degenerate, u)
        parts = torch.stack([geometry.share(second[:, index]) for index in range(len(labels))], 1)
        created[:, here] = _norm(parts, k)[:, here]
        shares = parts
    return shares, created


def _weights(k: int, like: Tensor) -> Tensor:
    """How often each pair `a <= b` stands in a full sum over a and b."""
    return torch.tensor([1.0 if a == b else 2.0 for a, b in pairs(k)], dtype=like.dtype, device=like.device)


def _matrix(shares: Float[Tensor, "P n m D"], k: int) -> Float[Tensor, "P n n"]:
    diagonal = [index for index, (a, b) in enumerate(pairs(k)) if a == b]
    trace = shares[:, :, diagonal].sum(2)
    weighted = (shares * _weights(k, shares)[:, None].sqrt()).flatten(2)
    return trace @ trace.transpose(1, 2) - weighted @ weighted.transpose(1, 2)


def _norm(shares: Float[Tensor, "P n m D"], k: int) -> Float[Tensor, "P n"]:
    return (shares.square().sum(-1) @ _weights(k, shares)).sqrt()


def _pieces(function: Callable[[Tensor], Any], u: Tensor, bytes_per_point: int, memory: int | None) -> list[Any]:
    """`function` over chunks of points: within memory, and on a CPU within its caches."""
    if memory is None and u.device.type == "cpu":
        memory = max(CACHED, bytes_per_point)
    return list(in_chunks(function, u, bytes_per_point, memory))
