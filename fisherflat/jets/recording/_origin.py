"""Where in the user's code an op was called, and what its constants were made of."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Origin, leaves
from fisherflat.jets.recording._buffers import key

aten = torch.ops.aten

_PRODUCTS = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.convolution}
_TORCH = str(Path(torch.__file__).parent)
_JETS = str(Path(__file__).parents[1])
#: where the user's code is called from: frames further out have no part in the map
_BOUNDARY = (str(Path(__file__).with_name("_mapping.py")), "__call__")


def origin(paths: dict[int, str]) -> tuple[str, str]:
    """The innermost submodule on the call stack, by `id` in `paths`, and the innermost line outside torch and us."""
    path, source, inside = None, None, None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        filename = code.co_filename
        if (filename, code.co_name) == _BOUNDARY:
            break
        if path is None and code.co_varnames[:1] == ("self",):
            path = paths.get(id(frame.f_locals.get("self")))
        if source is None and not filename.startswith("<"):
            if filename.startswith(_TORCH):
                inside = inside or (f"{Path(filename).name}:{frame.f_lineno}" if "/nn/modules/" in filename else None)
            elif not filename.startswith(_JETS) and "/jaxtyping/" not in filename:  # which wraps checked calls
                source = f"{Path(filename).name}:{frame.f_lineno}"
        if path is not None and source is not None:
            break
        frame = frame.f_back
    return path or "", (source if source is not None else inside) or "?"


def place(error: BaseException) -> str:
    """The innermost line outside torch and this package that an error passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = (_TORCH, _JETS, "<")
    return next(
        (f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames) if not f.filename.startswith(own)), "?"
    )


class Origins:
    """What constants were made of: those of a common origin can be keys and values of another input."""

    def __init__(self, known: Origins | None = None) -> None:
        # by the memory of a constant, which is held so that the key stays its own
        self._made: dict[int, tuple[Tensor, Origin]] = {} if known is None else dict(known._made)

    def note(self, tensor: Tensor, origin: Origin) -> None:
        """State the origin of a constant."""
        self._made[key(tensor)] = (tensor, origin)

    def of(self, tensor: Tensor) -> Origin:
        """The origin of a constant; itself, where it comes from outside the map."""
        place = key(tensor)
        if place in self._made:
            return self._made[place][1]
        return Origin(frozenset({place} if tensor.is_floating_point() and tensor.dim() > 1 else ()), False)

    def join(self, packet: Any, tensors: list[Tensor], out: Any) -> None:
        """State the origin of what an op made of constants."""
        if not tensors:
            return
        origins = [self.of(tensor) for tensor in tensors]
        joined = Origin(
            frozenset().union(*(origin.leaves for origin in origins)),
            packet in _PRODUCTS or any(origin.projected for origin in origins),
        )
        given = set(map(key, tensors))
        for tensor in leaves(out):
            if isinstance(tensor, Tensor) and key(tensor) not in given:
                self.note(tensor, joined)
