"""To which parts curvature is attributed in all directions at once, from random planes.

For a plane of orthonormal tangents x, y, uniform on the Stiefel manifold, and the shares A and B that two parts have of
the second fundamental form, let `p = (A(x, x) . B(y, y) + B(x, x) . A(y, y)) / 2` and `q = A(x, y) . B(x, y)`. From the
moments of fourth order (see `fisherflat.geometry._planes`) follows

    E (k^2 p + 2 k q) = tr A . tr B,    E (k (k + 1) q + k p) = <A, B>,

so that both are unbiased, and the matrix of their differences is `k (k - 1) (p - q)`: on each plane it sums to
`k (k - 1)` times the sectional curvature, of which the mean is the scalar curvature.
"""

from __future__ import annotations

from copy import copy

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry import StatisticalManifold, Tangents, drawn
from fisherflat.jets import pairs
from fisherflat.jets.engines import in_chunks
from fisherflat.spaces.charts import Chart
from fisherflat.studies.depth._apart import Apart
from fisherflat.studies.depth._stack import Stack


def tangents_at_the_end(stack: Stack, at: Float[Tensor, " k"], memory: int | None) -> Tangents:
    """All tangents of the image behind the last map.

    **Raises:** what `Tangents` does, and its `problem`.
    """
    manifold = manifold_after(stack, len(stack.stages), memory)
    found = Tangents(manifold.engine, manifold.chart, at, manifold.family, manifold.output_shape, memory)
    if found.problem is not None:
        raise found.problem
    return found


def manifold_after(
    stack: Stack, depth: int, memory: int | None = None, degenerate: str = "raise"
) -> StatisticalManifold:
    """The image of the chart behind so many maps."""
    pick, after = stack.picks[depth], stack.after(depth)
    mean = after if pick.tokens is None else lambda x: pick(after(x).flatten())  # structure shows in the maps
    return StatisticalManifold(mean, stack.chart, stack.families[depth], degenerate=degenerate, memory=memory)


@torch.no_grad()
def sampled_matrices(
    stack: Stack, apart: Apart, at: Float[Tensor, " k"], planes: int, seed: int, memory: int | None
) -> tuple[Float[Tensor, "P n n"], Float[Tensor, "P n n"]]:
    """The traces and products of all pairs of parts, from each of so many planes."""
    if stack.lenses is not None:
        raise InputError("planes in all directions are those of a Gaussian; a family is attributed in few directions")
    if stack.chart.k < 2:
        raise InputError("a curve has no planes, and no intrinsic curvature; move at least k = 2 directions")
    tangents, k = tangents_at_the_end(stack, at, memory), stack.chart.k
    generator = torch.Generator().manual_seed(seed)
    xi = drawn(planes, k, generator).to(tangents.frame)
    point = stack.chart(at).detach()
    few = copy(stack)
    few.chart = Chart(point, stack.chart.basis.detach()[:2])
    one = apart.on(few)

    def piece(chunk: Float[Tensor, "P 2 k"]) -> Tensor:
        shares = one.shares(at.new_zeros(len(chunk), 2), tangents.directions(chunk))
        xx, xy, yy = tangents.normal(shares.double()).unbind(2)
        p = xx @ yy.mT
        p, q = (p + p.mT) / 2, xy @ xy.mT
        return torch.stack([k * k * p + 2 * k * q, k * (k + 1) * q + k * p])

    entries = 2 * one.widest * (3 + len(one.parts) * len(pairs(2)))
    traces, products = torch.cat(list(in_chunks(piece, xi, entries * xi.element_size(), memory)), 1)
    return traces, products
