"""Warnings that point at the line of the user's that they are about, and are silenced in one thread alone."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: packages that are not the user's: this one, and those through which it calls itself
_PASSED = {"fisherflat", "torch", "beartype", "jaxtyping", "contextlib", "functools"}
_silenced: ContextVar[tuple[type[Warning], ...]] = ContextVar("silenced", default=())


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the innermost line that is the user's; at the outermost where none is, as in the shell."""
    if issubclass(category, _silenced.get()):
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _passed(frame.f_globals.get("__name__"), frame.f_code.co_filename):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def without(*categories: type[Warning]) -> Iterator[None]:
    """Without warnings of some kinds in this thread; the filters of `warnings` are those of all threads."""
    before = _silenced.set((*_silenced.get(), *categories))
    try:
        yield
    finally:
        _silenced.reset(before)


def _passed(module: str | None, file: str) -> bool:
    return (module or "").partition(".")[0] in _PASSED or file.startswith("<@")  # what checks types writes code
