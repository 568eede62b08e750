"""2-jets by the rules of the default engine, prepared once for so many points of one map, and then only run.

Preparing takes seconds, and pays where thousands of points follow. What numbers decide is presumed: that no vector is
nearly parallel to its derivative at a norm, and that nothing is equal at one point alone. Points where it is not so are
computed by the default engine, and so is whatever has noise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fisherflat._modes import recording
from fisherflat._typing import Float
from fisherflat.errors import UnsupportedOpError
from fisherflat.jets.engines._noise import noisy
from fisherflat.jets.engines._taylor import WARM, TaylorEngine, packed, start
from fisherflat.jets.engines._tensors import TensorAlgebra
from fisherflat.jets.ops import evaluate
from fisherflat.jets.rules import Series
from fisherflat.spaces.jets import size

#: on a GPU, points are taken together up to so many bytes of live coefficients: what keeps it busy, and leaves room
BUSY = 2 * 2**30


class Presuming(TensorAlgebra):
    """The algebra while what it does is prepared.

    **Attributes:** `presumed`: the masks `[P, *shape]` of which it was presumed that no entry is true.
    """

    def __init__(self) -> None:
        super().__init__()
        self.presumed: list[Tensor] = []

    def none(self, mask: Tensor) -> bool:
        self.presumed.append(mask)
        return True


@dataclass(eq=False)
class _Kept:
    """What was prepared, of which state of the chart, and whether it was compared with the default engine."""

    state: tuple[int, int]
    program: Callable[..., tuple[Tensor, ...]]
    compared: bool = False


class PreparedEngine(TaylorEngine, ABC):
    """2-jets of `mean(chart(u))` as by `TaylorEngine`, prepared for points so many at a time.

    **Args:** those of `TaylorEngine`.

    **Raises:** `UnsupportedOpError` for an op that cannot be prepared, where numbers decide what is computed, or where
    what was prepared does not give what the default engine gives.
    """

    #: what prepares it, in sentences, and the algebra that it sees
    preparer: ClassVar[str]
    algebra: ClassVar[type[Presuming]] = Presuming

    #: by the number of points, and by whether each has directions of its own
    _programs: dict[tuple[int, bool], _Kept]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.chunk_memory is not None and self._memory is None:  # no piece of a chunk need be lengthened
            self.chunk_memory = self._fitting(self.chunk_memory, False) * self.bytes_per_point

    def _divide(self, moves: Tensor) -> None:
        super()._divide(moves)
        self._programs = {}

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_programs": {}}

    def on(self, chart: Any) -> PreparedEngine:
        other = super().on(chart)
        assert isinstance(other, PreparedEngine)
        other._programs = {}
        return other

    @abstractmethod
    def _program(
        self, course: Callable[..., tuple[Tensor, ...]], given: tuple[Tensor, ...], shared: bool
    ) -> Callable[..., tuple[Tensor, ...]]:
        """What does the same as `course` with as many points as `given`; each thread that calls is another `worker`."""

    @torch.no_grad()
    def jet(self, u: Float[Tensor, "P k"], basis: Float[Tensor, "P k *shape"] | None = None) -> Float[Tensor, "P S D"]:
        if not len(u) or u.is_meta or noisy() or self._directions(u.device) < self._chart.k:
            return super().jet(u, basis)
        self._follow(basis)
        given = tuple(x.detach() for x in (u, basis) if x is not None)
        threads = torch.get_num_threads() if u.is_cpu else 1
        count = self._at_a_time(-(-len(u) // threads), u.device, basis is None)
        kept = self._prepared(given, count)
        pieces = [tuple(_lengthened(x[i : i + count], count) for x in given) for i in range(0, len(u), count)]
        if len(pieces) == 1:
            rows, *checked = kept.program(*pieces[0])
        else:
            rows = u.new_empty(size(self._chart.k), len(pieces) * count, self._dim)
            checked = [u.new_ones(len(pieces) * count, dtype=torch.bool)]
            _put_together(kept.program, pieces, (rows, *checked), threads)
        out = rows.transpose(0, 1)[: len(u)]
        if checked or not kept.compared:
            right = checked[0][: len(u)] if checked else u.new_ones(len(u), dtype=torch.bool)
            if not kept.compared and right.any():
                some = right.nonzero()[:count, 0]
                self._compare(out[some], super().jet(*(x[some] for x in given)))
                kept.compared = True
            if not right.all():
                out[~right] = super().jet(*(x[~right] for x in given))
        return out

    def _at_a_time(self, points: int, device: torch.device, shared: bool) -> int:
        """A power of two, so that few sizes are prepared: as many points as there are, or as serve the device."""
        return min(2 ** (points - 1).bit_length(), self._fitting(WARM if device.type == "cpu" else BUSY, shared))

    def _fitting(self, memory: int, shared: bool) -> int:
        """The largest power of two of points whose live coefficients take no more memory; or one."""
        one = self._rest_per_point if shared and self._prefix is not None else self.bytes_per_point
        return 2 ** (max(1, memory // max(one, 1)).bit_length() - 1)

    def _prepared(self, given: tuple[Tensor, ...], count: int) -> _Kept:
        """What was prepared for so many points, and directions of their own where such are given."""
        shared = len(given) == 1
        key, state = (count, shared), self._chart.written
        kept = self._programs.get(key)
        if kept is None or kept.state != state:
            ends = [0, len(given[0]) - 1]  # the default engine learns of each op how it is called for many points
            super().jet(*(x[ends] for x in given))
            first = tuple(_lengthened(x[:count], count) for x in given)
            kept = self._programs[key] = _Kept(state, self._program(self._course(shared), first, shared))
        return kept

    def _course(self, shared: bool) -> Callable[..., tuple[Tensor, ...]]:
        """What is prepared: points, and their directions, to coefficients `[S, P, D]`.

        And, where something was presumed, to whether those of each point are right.
        """
        known = self._known(self._algebra()) if shared and self._shares() else None

        def course(u: Tensor, *basis: Tensor) -> tuple[Tensor, ...]:
            algebra = self.algebra()
            with recording():
                if known is None:
                    y = evaluate(self._divided, algebra, start(self._chart, u, *basis))
                else:
                    y = self._at_points(algebra, known, u)
            if not isinstance(y, Series):
                y = Series(y.expand(1, len(u), *y.shape), self._chart.k)
            wrong = [mask.reshape(len(u), -1).any(1) for mask in algebra.presumed]
            wrong += [] if algebra.alone is None else [algebra.alone]
            rows = packed(algebra, y).transpose(0, 1)
            if not wrong:
                return (rows,)
            right = u.new_ones(len(u), dtype=torch.bool)
            for mask in wrong:
                right = right & ~mask
            return rows, right

        return course

    def _compare(self, found: Tensor, truth: Tensor) -> None:
        """**Raises:** `UnsupportedOpError` where what was prepared does not give what the default engine gives."""
        k = self._chart.k
        kinds = [1, k, size(k) - 1 - k]
        for got, want in zip(found.split(kinds, 1), truth.split(kinds, 1), strict=True):
            known = want.isfinite()
            a, b = got[known], want[known]
            close = not len(b) or bool((a - b).abs().amax() <= torch.finfo(b.dtype).eps ** 0.5 * b.abs().amax())
            if not close or not torch.equal(got.isfinite(), known):
                raise UnsupportedOpError(
                    f"what {self.preparer} made of this map does not give the numbers of the default engine; use "
                    'engine="taylor", and please report the map'
                )


def _put_together(
    program: Callable[..., tuple[Tensor, ...]],
    pieces: list[tuple[Tensor, ...]],
    outs: tuple[Tensor, ...],
    threads: int,
) -> None:
    """What a program gives for each of the pieces, one behind the other along the points; several at a time.

    `outs` are coefficients `[S, P, D]` and, `[P]`, whether they are right, which a program need not say.
    """
    count = len(pieces[0][0])
    todo = iter(range(len(pieces)))

    def work(worker: int) -> None:
        for i in todo:
            taken = slice(i * count, (i + 1) * count)
            for out, found in zip(outs, program(*pieces[i], worker=worker), strict=False):
                _put(out[:, taken] if out.dim() > 1 else out[taken], found)

    others = [_pool().submit(work, worker) for worker in range(1, min(threads, len(pieces)))]
    try:
        work(0)
    finally:
        for _ in todo:  # where that was interrupted there are some left, and the others stop as well
            pass
    for other in others:
        other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that stay: to start them takes as long as a small map."""
    return ThreadPoolExecutor(thread_name_prefix="fisherflat-prepared")


def _put(out: Tensor, found: Tensor) -> None:
    """A copy without threads of torch's, which would go on waiting busily on cores that are needed next."""
    if out.is_cpu:
        np.copyto(out.numpy(), found.numpy())
    else:
        out.copy_(found)


def _lengthened(x: Tensor, count: int) -> Tensor:
    """So many points, the last of them repeated."""
    return x if len(x) == count else torch.cat([x, x[-1:].expand(count - len(x), *x.shape[1:])])
