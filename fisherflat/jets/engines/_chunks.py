"""Running long batches in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from fisherflat._arrays import integer
from fisherflat.errors import InputError, OutOfMemoryError

T = TypeVar("T")

#: the share of the free memory that a computation takes unless it is told otherwise
SHARE = 0.4


def free_memory(device: torch.device) -> int:
    """Free memory of the device in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as lines:
            available = next(line for line in lines if line.startswith("MemAvailable"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration):
        return 4 * 2**30


def memory_budget(device: torch.device, memory: int | None = None) -> int:
    """`memory` where it is given, else a share of what is free, in bytes.

    **Raises:** `InputError` where it is no number of bytes.
    """
    return integer(memory, "memory, a budget in bytes,", 1) if memory is not None else int(SHARE * free_memory(device))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is what Python or an allocator of torch raises where memory runs out."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    # on the CPU torch raises a plain RuntimeError, worded after the operating system
    return isinstance(error, RuntimeError) and any(s in str(error) for s in ("DefaultCPUAllocator", "out of memory"))


@cache
def keep_memory() -> None:
    """Let the C library keep up to some 60 MiB of freed memory for what is computed next; once a process.

    glibc gives blocks above a threshold back to the system as soon as they are free, and takes the largest that it has
    seen freed, up to 32 MiB, as the threshold from then on. Pages that come and go with every op are up to half of the
    time of small maps. Nothing is written into the block, so that it takes no memory.
    """
    np.empty(31 * 2**20, dtype=np.uint8)  # by the same allocator, and no tensor that a tally would count


def in_chunks(
    function: Callable[[Tensor], T], u: Tensor, bytes_per_point: int, memory: int | None = None
) -> Iterator[T]:
    """`function` on consecutive pieces of `u` `[P, k]`, each within `memory` bytes (default: a share of what is free).

    On out-of-memory the piece is halved and tried again.

    **Raises:** `OutOfMemoryError` when a single point does not fit; `InputError` where that is sure before.
    """
    budget = memory_budget(u.device, memory)
    if memory is not None and budget < bytes_per_point:
        raise InputError(
            f"memory is a budget in bytes, and one point takes about {bytes_per_point} of them, more than {budget}; "
            "give more, or leave it out"
        )
    chunk = max(1, min(u.shape[0], budget // max(bytes_per_point, 1)))
    start = 0
    while start < u.shape[0]:
        try:
            result = function(u[start : start + chunk])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if chunk == 1:
                raise OutOfMemoryError(
                    f"one point needs about {bytes_per_point / 2**30:.2f} GiB and does not fit on {u.device}; "
                    "use dtype=torch.float32, fewer coordinates or a smaller layer"
                ) from error
            chunk //= 2
            continue  # leaving the handler lets go of what the failed call held
        yield result
        start += chunk
