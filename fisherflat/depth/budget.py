"""Who pays for the curvature: an exact split of the second fundamental form.

The second-order terms of a jet are sums over the nodes where they are born: a nonlinear node adds a source of its
own, and all that follows passes it on linearly. Kept apart by label (role, layer, or both), they split the second
fundamental form exactly, `II = sum_a II_a`, and with it the scalar curvature by the Gauss equation:

    scal = sum_ab B_ab,    B_ab = tr II_a . tr II_b - <II_a, II_b>.

Nothing is ablated and nothing approximated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.charts import Chart
from fisherflat.depth.stack import Map, Stack, as_list, in_pieces
from fisherflat.errors import InputError
from fisherflat.family import Gaussian
from fisherflat.geometry import Geometry
from fisherflat.jets.chunks import memory_budget
from fisherflat.jets.graph import ROLES, Node
from fisherflat.jets.jet import Jet, pairs
from fisherflat.jets.rules import is_affine
from fisherflat.jets.taylor import TensorAlgebra

if TYPE_CHECKING:
    import pandas


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
        """Each part's half of what it makes together with others: row sums without the diagonal.

        `own + interaction` sums to the scalar curvature.
        """
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
        """The matrix with its labels, averaged over the points that have a geometry."""
        import pandas

        n = len(self.labels)
        points = self.matrix.shape[:-2].numel()
        mean = self.matrix.reshape(points, n, n).nanmean(0).cpu().numpy()
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

    **Args:** `blocks`: a module, a callable, a graph, or a list of them that feed each other; `chart`; `u`
    `[*batch, k]`; `by`: `"role"`, `"layer"` or `"layer-role"`; `family`, `degenerate`, `memory` as in `depth_profile`.

    A part that is frozen (`fisherflat.freeze`) gets exactly zero. Where all labels do not fit into memory at a time,
    they are taken in groups, one pass a group.

    **Raises:** `InputError` for an unknown `by`, and what `depth_profile` raises.
    """
    if by not in ("role", "layer", "layer-role"):
        raise InputError(f'by must be "role", "layer" or "layer-role", got {by!r}')
    stack = Stack(as_list(blocks), chart, family if family is not None else Gaussian())
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
        groups = [active[i : i + group] for i in range(0, len(active), group)]
        parts = [_shares(stack, chunk, some, names, born, degenerate) for some in groups]
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

    pieces = in_pieces(measure, points.reshape(-1, k), per_label * (group + 2), memory)
    batch = points.shape[:-1]
    matrix = torch.cat([piece[0] for piece in pieces]).reshape(*batch, len(labels), len(labels))
    created, surviving = torch.cat([piece[1] for piece in pieces], 1).reshape(2, *batch, len(labels))
    return CurvatureBudget(tuple(labels), matrix, created, surviving)


def _name(by: str, layer: int, node: Node) -> str:
    return {"role": node.role, "layer": f"layer {layer}", "layer-role": f"layer {layer}: {node.role}"}[by]


def _shares(
    stack: Stack, u: Tensor, labels: list[str], names: dict[Node, str], born: dict[str, int], degenerate: str
) -> tuple[Tensor, Tensor]:
    """Shares `[P, n, m, D]` of the labels in the last second fundamental form, and their norms `[P, n]` at birth.

    Shares are on the orthonormal frame. What bears another label is kept in one more block, so that the total is right.
    """
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
        coefficients = stack.families[depth].whiten(coefficients)
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
