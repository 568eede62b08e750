"""The scalar curvature of a differentiable manifold by the roles in which it is born, with its gradient."""

from __future__ import annotations

from typing import Any

import torch

from fisherflat._modes import unrounded
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry import Geometry, StatisticalManifold
from fisherflat.jets import Jet, pairs
from fisherflat.jets.engines import TensorAlgebra, evaluated, start
from fisherflat.jets.graph import ROLES, Graph
from fisherflat.jets.ops import is_affine
from fisherflat.spaces.families import Gaussian


@unrounded
def attributed(M: StatisticalManifold, u: Any) -> dict[str, Float[Tensor, "*batch"]]:
    """How much of the scalar curvature is born in each role: an exact split, as of `curvature_budget`, that trains.

    With `II = sum_a II_a` over roles, it is `sum_b (tr II_a . tr II_b - <II_a, II_b>)` for each a, and the sum of all
    is the scalar curvature.

    **Args:** `M`, with `differentiable=True`, the Taylor engine and a `Gaussian`; `u` `[*batch, k]`.

    **Returns:** by role, of those that have second-order terms, a tensor with gradients by all that `M` has.

    **Raises:** `InputError` for another manifold, `DegenerateImmersionError` at points without geometry.

    >>> import torch, fisherflat as ff
    >>> mlp = ff.layers.GatedMLP(4, 6)
    >>> M = ff.StatisticalManifold(mlp, ff.charts.affine(torch.ones(4), torch.eye(4)[:2]), differentiable=True)
    >>> found = ff.training.attributed(M, torch.zeros(3, 2))
    >>> bool(torch.allclose(sum(found.values()), M.scalar_curvature(torch.zeros(3, 2))))
    True
    """
    graph, program = (getattr(M.engine, name, None) for name in ("graph", "program"))
    if not isinstance(graph, Graph) or program is None or not isinstance(M.family, Gaussian):
        raise InputError(
            'attribution with gradients takes a manifold with differentiable=True, engine="taylor" and a Gaussian '
            "family; curvature_budget has it without gradients"
        )
    points = M.chart.coordinates(u) if not isinstance(u, Tensor) else u.to(M.chart.point.device)
    flat, k, m = points.reshape(-1, M.k).to(M.dtype), M.k, len(pairs(M.k))
    bending = [node for node in graph.nodes if not is_affine(node)]
    roles = [role for role in ROLES if any(node.role == role for node in bending)]
    labels = {node: roles.index(node.role) for node in bending}
    algebra = TensorAlgebra(labels, max(1, len(roles)), program.constants(), tape=True)
    data = evaluated(algebra, graph, start(M.chart, flat)).data.flatten(2).transpose(0, 1)
    missing = 1 + k + max(1, len(roles)) * m - data.shape[1]
    white = M.family.whiten(torch.nn.functional.pad(data, (0, 0, 0, missing)))
    second = white[:, 1 + k :].unflatten(1, (-1, m))
    geometry = Geometry(Jet(torch.cat([white[:, : 1 + k], second.sum(1)], 1), k), "raise", flat)
    shares = torch.stack([geometry.share(second[:, part]) for part in range(second.shape[1])], 1)
    weights = torch.tensor([1.0 if a == b else 2.0 for a, b in pairs(k)]).to(shares)
    traces = shares[:, :, [index for index, (a, b) in enumerate(pairs(k)) if a == b]].sum(2)
    whole = shares.sum(1, keepdim=True)
    found = (traces * traces.sum(1, keepdim=True)).sum(-1) - (shares * whole * weights[:, None]).sum((-2, -1))
    return {role: found[:, index].reshape(points.shape[:-1]) for index, role in enumerate(roles)}
