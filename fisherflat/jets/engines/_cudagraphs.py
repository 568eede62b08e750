"""2-jets by the rules of the default engine, captured once as a CUDA graph and replayed: one launch for all kernels."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

from fisherflat.errors import InputError, UnsupportedOpError
from fisherflat.jets.engines._chunks import is_out_of_memory
from fisherflat.jets.engines._prepared import PreparedEngine


class CudaGraphsEngine(PreparedEngine):
    """2-jets of `mean(chart(u))` as by `TaylorEngine`, captured for points so many at a time; on a GPU alone.

    **Args:** those of `TaylorEngine`.

    **Raises:** `UnsupportedOpError` where the host has to wait for numbers on the way, or where what was captured does
    not give what the default engine gives; `InputError` on another device.
    """

    preparer = "a CUDA graph"

    def _program(
        self, course: Callable[..., tuple[Tensor, ...]], given: tuple[Tensor, ...], shared: bool
    ) -> Callable[..., tuple[Tensor, ...]]:
        return captured(course, given)


def has_graphs(device: torch.device) -> bool:
    """Whether there are CUDA graphs on a device."""
    return device.type == "cuda"


def captured(
    function: Callable[..., tuple[Tensor, ...]], given: tuple[Tensor, ...]
) -> Callable[..., tuple[Tensor, ...]]:
    """What a function of tensors does with tensors of one shape, as one CUDA graph; what else it reads is not to move.

    **Raises:** `UnsupportedOpError` where the function waits for the GPU, or copies from the memory of the host;
    `InputError` on another device.
    """
    own, device = tuple(x.clone() for x in given), given[0].device
    if not has_graphs(device):
        raise InputError(
            f'engine="cudagraphs" is for NVIDIA GPUs, and the chart is on {device}; move layer and chart to one, or '
            'use engine="taylor"'
        )
    side, graph = torch.cuda.Stream(device), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):  # what is made once (handles, workspaces, tables) is made before
        for _ in range(3):
            function(*own)
    torch.cuda.current_stream(device).wait_stream(side)
    try:
        with torch.cuda.graph(graph):
            found = function(*own)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise UnsupportedOpError(
            "a CUDA graph cannot hold what this map does, since the host waits for numbers on the way "
            f'({str(error).splitlines()[0][:120]}); engine="taylor" computes the same without one'
        ) from error

    one = Lock()

    def replayed(*given: Tensor, worker: int = 0) -> tuple[Tensor, ...]:
        with one:  # threads of a caller share what the graph reads and writes
            for mine, x in zip(own, given, strict=True):
                mine.copy_(x)
            graph.replay()
            return tuple(x.clone() for x in found)  # the next replay writes over them

    return replayed
