"""Who watches over a recording: once it has refused, nothing is returned, whatever the map does with the error."""

from __future__ import annotations

import threading
from typing import NoReturn

from torch import nn

from fisherflat.errors import TraceError
from fisherflat.jets.recording._origin import origin


class Guard:
    """The thread of a call that is recorded, whether it is over, and the first reason why it cannot be recorded."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self.thread, self.finished = threading.get_ident(), False
        self.refused: TraceError | None = None
        self.paths: dict[int, str] = {}
        for root in modules:
            for name, module in root.named_modules():
                self.paths.setdefault(id(module), name)

    def refuse(self, reason: str) -> NoReturn:
        """Ends the recording: whatever the map does with the error, nothing is returned."""
        if self.refused is None:
            self.refused = TraceError(reason if self.finished else f"{reason} ({self.origin()[1]})")
        raise self.refused

    def origin(self) -> tuple[str, str]:
        """The submodule and the line of the user's that called the op."""
        return origin(self.paths)

    def met(self) -> None:
        """Refuses what does not happen in the call that is recorded."""
        if self.finished:
            self.refuse(
                "the map keeps a tensor from one call to the next, so it is not a function of its input alone; "
                "make it one"
            )
        if self.thread != threading.get_ident():
            self.refuse("the map computes in another thread, which a trace cannot follow; compute in the calling one")
