"""2-jets by the rules of the default engine, compiled by XLA."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fisherflat.jets.engines._prepared import PreparedEngine, Presuming
from fisherflat.jets.engines._taylor import CACHED
from fisherflat.jets.engines._writing import into
from fisherflat.jets.graph import Node
from fisherflat.jets.rules import Series
from fisherflat.spaces.jets import size

#: on a CPU, points go through what is compiled so many bytes of live coefficients at a time: a core's own cache
CLOSE = 2**20
#: so many points at least, unless they outgrow all caches: fewer make products too small
FEWEST = 4


class _Course(Presuming):
    """The algebra while what it does is recorded for XLA."""

    def matmul(self, a: Tensor, b: Tensor, out: Tensor) -> None:
        into(out, torch.matmul, a, b)

    def contracted(self, node: Node, a: Series, b: Series) -> Series:
        # the same products, but summed by coefficients: sums of single entries cost nothing here, and memory does
        k, left, right = a.k, a.data, b.data
        ca, cb, mixing = left.shape[0], right.shape[0], bool(a.order and b.order)
        columns = node.shape[-1]
        out = left.new_zeros(self.count(2 if mixing else max(a.order, b.order), k), left.shape[1], *node.shape)
        whole = left.movedim(0, -3).flatten(-3, -2) @ right[0]
        out[:ca] += whole.unflatten(-2, (ca, -1)).movedim(-3, 0)
        if cb > 1:
            rows = left[: 1 + k if mixing else 1]
            more = rows.movedim(0, -3).flatten(-3, -2) @ right[1:].movedim(0, -2).flatten(-2)
            more = more.unflatten(-2, (len(rows), -1)).unflatten(-1, (cb - 1, columns)).movedim((-4, -2), (0, 1))
            out[1:cb] += more[0]
            for i in range(k if mixing else 0):
                row = self.row(node, Series(out, k), i)
                row += more[1 + i, i:k] + more[1 + i : 1 + k, i]
        return Series(out, k)


class XlaEngine(PreparedEngine):
    """2-jets of `mean(chart(u))` as by `TaylorEngine`, compiled for points so many at a time.

    **Args:** those of `TaylorEngine`.

    **Raises:** `UnsupportedOpError` for an op that is not compiled, where numbers decide what is computed, or where
    what was compiled does not give what the default engine gives; `ImportError` without jax.
    """

    preparer, algebra = "XLA", _Course

    def _program(
        self, course: Callable[..., tuple[Tensor, ...]], given: tuple[Tensor, ...], shared: bool
    ) -> Callable[..., tuple[Tensor, ...]]:
        from fisherflat.jets.xla import Program  # jax is needed here alone

        k, count = self._chart.k, len(given[0])
        piece = count
        if given[0].is_cpu:
            piece = min(count, self._fitting(CACHED, shared), max(FEWEST, self._fitting(CLOSE, shared)))
        rows = {1 + k, size(k)}
        return Program(course, tuple(x[:piece] for x in given), rows, count // piece, axes=(1, 0))
