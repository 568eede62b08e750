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
from dataclasses import dataclass, replace
from itertools import islice

import torch

from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.geometry import Tangents, drawn
from fisherflat.jets import pairs
from fisherflat.jets.engines import in_chunks
from fisherflat.jets.graph import Constants
from fisherflat.spaces.charts import Chart
from fisherflat.studies.depth._apart import Apart
from fisherflat.studies.depth._stack import Stack


@dataclass
class _Behind:
    """What gives the jets behind so many maps of a stack, one block at a time: an engine of `Tangents`."""

    stack: Stack
    depth: int
    memory: int | None
    #: the passes through the maps take the points in pieces
    chunk_memory: int | None = 0
    bytes_per_point: int = 0
    tape_per_point: int = 0
    program: Constants | None = None

    def on(self, chart: Chart) -> _Behind:
        """The same maps on another chart."""
        other = copy(self.stack)
        other.chart = chart
        return replace(self, stack=other)

    @property
    def bytes_per_coefficient(self) -> int:
        """How much memory a coefficient of one point takes, roughly."""
        entries = max((stage.footprint for stage in self.stack.stages[: self.depth]), default=0)
        return entries * self.stack.chart.point.element_size()

    def jet(self, u: Float[Tensor, "P k"], basis: Float[Tensor, "P k *shape"] | None = None) -> Float[Tensor, "P S D"]:
        """The coefficients of the outputs that are measured there."""
        return self.collapsed(u, "pair", basis)

    def collapsed(
        self, u: Float[Tensor, "P k"], seconds: str, basis: Float[Tensor, "P k *shape"] | None = None
    ) -> Float[Tensor, "P C D"]:
        """The same with one sum of second derivatives, or none.

        **Raises:** `UnsupportedOpError` where that cannot be had, though all of them may be.
        """
        passed = self.stack.depths(
            u, lambda at, jets, _: jets if at == self.depth else None, self.memory, basis, seconds
        )
        return self.stack.picks[self.depth](torch.cat(list(islice(passed, self.depth + 1))[-1]))


def tangents_after(stack: Stack, depth: int, at: Float[Tensor, " k"], memory: int | None = None) -> Tangents:
    """All tangents of the chart's image behind so many maps, of which one block is in memory at a time."""
    size = (stack.chart.point.shape if not depth else stack.stages[depth - 1].shape).numel()
    shape = (stack.picks[depth].count(size),)
    return Tangents(_Behind(stack, depth, memory), stack.chart, at, stack.families[depth], shape, memory)


@torch.no_grad()
def sampled_matrices(
    stack: Stack, apart: Apart, at: Float[Tensor, " k"], planes: int, seed: int, memory: int | None
) -> tuple[Float[Tensor, "P n n"], Float[Tensor, "P n n"]]:
    """The traces and products of all pairs of parts, from each of so many planes."""
    if stack.lenses is not None:
        raise InputError("planes in all directions are those of a Gaussian; a family is attributed in few directions")
    if stack.chart.k < 2:
        raise InputError("a curve has no planes, and no intrinsic curvature; move at least k = 2 directions")
    tangents, k = tangents_after(stack, len(stack.stages), at, memory), stack.chart.k
    if tangents.problem is not None:
        raise tangents.problem
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
