"""A second device without one: tensors that the host made are marked, and must be moved before they meet others.

On a machine without a GPU all tensors are on the CPU. But what would be on the host is known: tensors that a factory
of torch made without being told a device, those read from numbers and arrays, and what follows from such tensors
alone. All others are where the map is. `Elsewhere` marks the former, and lists each op that gets tensors of both kinds
(numbers in tensors without axes may come along, as torch allows), and each wait of the host for a value.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace, TracebackType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fisherflat.jets.engines import _cudagraphs

FACTORIES = {
    getattr(torch, name)
    for name in [
        "arange",
        "as_tensor",
        "empty",
        "eye",
        "from_numpy",
        "full",
        "linspace",
        "logspace",
        "normal",
        "ones",
        "rand",
        "randint",
        "randn",
        "randperm",
        "tensor",
        "tril_indices",
        "triu_indices",
        "zeros",
    ]
}
MOVES = {Tensor.to, Tensor.cuda, Tensor.type_as}
HOME = {Tensor.cpu}
#: what makes the host wait for a value
WAITS = {
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.equal,
    torch.ops.aten.is_nonzero,
    torch.ops.aten.nonzero,
    torch.ops.aten.masked_select,
}
#: ops that may take a table from the host, or put numbers there
FREE = {torch.ops.aten.copy_, torch.ops.aten._to_copy, torch.ops.aten.lift_fresh}


class OneDevice(TorchDispatchMode):
    """Lists each op that makes or gets a tensor with axes on the CPU, where all that matters is elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs or {}, out))
        if any(isinstance(leaf, Tensor) and leaf.is_cpu and leaf.dim() for leaf in leaves):
            self.seen.append(f"{func} at {_place()}")
        return out


class _Factories(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in FACTORIES and kwargs.get("device") is None and not any(map(_is_away, tree_leaves((args, kwargs)))):
            _mark(out, True)
        elif func in MOVES and _told_where(args[1:], kwargs):
            if _is_home(args[0]):
                out = out.view_as(out) if out is args[0] else out  # what was moved stays where it was
            _mark(out, False)
        elif func in HOME:
            _mark(out, True)
        return out


class Elsewhere(TorchDispatchMode):
    """See the module. **Attributes:** `mixed`, ops that got tensors of both kinds; `waits`; each with its place."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed: list[str] = []
        self.waits: list[str] = []
        self._factories = _Factories()

    def __enter__(self) -> Elsewhere:
        self._from_numpy = torch.from_numpy  # which no mode of torch sees
        torch.from_numpy = _marked(torch.from_numpy)
        self._factories.__enter__()
        super().__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        super().__exit__(kind, error, tb)
        self._factories.__exit__(kind, error, tb)
        torch.from_numpy = self._from_numpy

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        out = func(*args, **(kwargs or {}))
        away = any(map(_is_away, given))
        packet = func.overloadpacket
        if packet in WAITS and away:
            self.waits.append(f"{func} at {_place()}")
        home = [tensor for tensor in given if _is_home(tensor)]
        if away and packet not in FREE and any(tensor.dim() for tensor in home):
            self.mixed.append(f"{func} at {_place()}")
        if home and not away:
            for leaf in tree_leaves(out):
                if isinstance(leaf, Tensor):
                    _mark(leaf, True)
        return out


@contextmanager
def far_away() -> Iterator[None]:
    """What is done where the host would have to wait, on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("engines._tensors", "engines._taylor", "rules._rows"):
            patch.setattr(f"fisherflat.jets.{module}.on_host", lambda tensor: False)
        yield


class Replayed(TorchDispatchMode):
    """A stand-in for a CUDA graph: what is called while it captures is called again, on the same memory.

    While it captures the host may not wait for a value. **Attributes:** `replays`, how often it was replayed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in WAITS:
            raise RuntimeError(f"{func}: operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, out in self.calls:
            if func.is_view:
                continue
            for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


@contextmanager
def cuda_graphs() -> Iterator[list[Replayed]]:
    """The CPU, with graphs as a GPU has them; those that are captured are in the list."""
    made: list[Replayed] = []

    def graph() -> Replayed:
        made.append(Replayed())
        return made[-1]

    stream = SimpleNamespace(wait_stream=lambda other: None)
    with far_away(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(_cudagraphs, "has_graphs", lambda device: True)
        patch.setattr(torch.cuda, "CUDAGraph", graph)
        patch.setattr(torch.cuda, "graph", lambda graph: graph)
        patch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        patch.setattr(torch.cuda, "Stream", lambda device: stream)
        patch.setattr(torch.cuda, "current_stream", lambda device: stream)
        yield made


def _marked(factory: Any) -> Any:
    def made(*args: Any) -> Tensor:
        out = factory(*args)
        _mark(out, True)
        return out

    return made


def _mark(thing: Any, home: bool) -> None:
    if isinstance(thing, Tensor):
        thing._at_home = home  # type: ignore[attr-defined]


def _is_home(thing: Any) -> bool:
    return isinstance(thing, Tensor) and getattr(thing, "_at_home", False)


def _is_away(thing: Any) -> bool:
    return isinstance(thing, Tensor) and not getattr(thing, "_at_home", False)


def _told_where(args: Any, kwargs: Any) -> bool:
    told = (*args, *kwargs.values())
    return any(isinstance(one, (torch.device, str)) or _is_away(one) for one in told)


def _place() -> str:
    frames = [frame for frame in traceback.extract_stack() if "/fisherflat/" in frame.filename]
    if not frames:
        return "a test"
    return f"{frames[-1].filename.rpartition('/fisherflat/')[2]}:{frames[-1].lineno}: {frames[-1].line}"
