"""Peak memory of a call.

On a GPU it is what torch's allocator counts. On a CPU it is a tally: every op's new storages are added when they are
made and subtracted when they are freed. Unlike the resident set of the process it leaves out what the allocator keeps
for later, and is the same in every run; it does not see workspace inside a kernel.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fisherflat._typing import Tensor
from fisherflat.geometry import StatisticalManifold
from fisherflat.jets import size
from fisherflat.lab.bench.floor import floors
from fisherflat.lab.bench.maps import Subject


class Tally(TorchDispatchMode):
    """Bytes of the storages that ops make while this mode is on: `live` now, and their `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {self._key(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and not leaf.is_meta and self._key(leaf) not in before:
                self._add(leaf)
        return out

    @staticmethod
    def _key(tensor: Tensor) -> int:
        return tensor.untyped_storage()._cdata

    def _add(self, tensor: Tensor) -> None:
        storage, key = tensor.untyped_storage(), self._key(tensor)
        if key not in self._storages:
            self._storages[key] = weakref.ref(storage, partial(self._remove, key, storage.nbytes()))
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)

    def _remove(self, key: int, nbytes: int, _: Any) -> None:
        del self._storages[key]
        self.live -= nbytes


def peak(call: Callable[[], object], device: torch.device) -> int:
    """Peak bytes that `call` allocates beyond what is there before it, its result included."""
    call()  # what is made once (graphs, constants) is not counted
    return of_one(call, device)


def of_one(call: Callable[[], object], device: torch.device) -> int:
    """The same of the first call, and what is made once with it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        kept = call()
        torch.cuda.synchronize(device)
        del kept
        return torch.cuda.max_memory_allocated(device) - before
    with Tally() as tally:
        kept = call()
        del kept
    return tally.peak


def over_floor(subject: Subject, points: int) -> dict[str, Any]:
    """Peak bytes of the jets of `points` points, and of S forward passes for each of them, inputs and outputs included.

    The forward passes are made in one batch, and again in their fastest batch with all outputs kept.
    """
    manifold = StatisticalManifold(subject.module, subject.chart, dtype=subject.dtype)
    u = subject.points(points)
    total, batch = points * size(subject.chart.k), next(iter(floors(subject, points)))

    def passes(batch: int) -> Callable[[], object]:
        def call() -> object:
            with torch.no_grad():
                outputs = None
                for start in range(0, total, batch):
                    part = subject.forward(subject.inputs(min(batch, total - start)))
                    if outputs is None:
                        outputs = part if len(part) == total else part.new_empty(total, *part.shape[1:])
                    if outputs is not part:
                        outputs[start : start + batch] = part
                return outputs

        return call

    jet = peak(lambda: manifold.jet(u), subject.device)
    scalar = peak(lambda: manifold.scalar_curvature(u), subject.device)
    at_once, in_batches = (peak(passes(b), subject.device) for b in (total, batch))
    return {
        "points": points,
        "floor_batch": batch,
        "bytes": {"jet": jet, "scalar_curvature": scalar, "floor_at_once": at_once, "floor_in_batches": in_batches},
        "jet_over_floor_at_once": jet / at_once,
        "jet_over_floor_in_batches": jet / in_batches,
    }
