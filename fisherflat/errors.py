"""Every exception and warning that fisherflat raises on purpose.

Each message says what was wrong, where, and what to do about it. All of them derive from `FisherflatError`, and from
the built-in exception that fits, so that `except ValueError` still works.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = [
    "CertificateError",
    "CheckpointError",
    "CheckpointWarning",
    "ClusterError",
    "CovarianceError",
    "DegenerateImmersionError",
    "DegenerateImmersionWarning",
    "EnclosureError",
    "FallbackWarning",
    "FisherflatError",
    "FisherflatWarning",
    "InputError",
    "MapError",
    "NotDifferentiableError",
    "OutOfMemoryError",
    "PrecisionWarning",
    "RoutingWarning",
    "TraceError",
    "UnsupportedOpError",
]


class FisherflatError(Exception):
    """Base class of all exceptions of this library."""


class InputError(FisherflatError, ValueError):
    """An argument has the wrong shape, dtype, range, or holds NaN or infinite values."""


class CovarianceError(InputError):
    """A covariance is not positive definite, not finite, or does not fit the map's output."""


class MapError(InputError):
    """The map cannot be used as the mean of a family: it failed on the chart's point, or returned no single tensor."""


class DegenerateImmersionError(FisherflatError, ArithmeticError):
    """The Jacobian has rank below k, so that the metric is singular and curvature is not defined there."""


class NotDifferentiableError(FisherflatError, ArithmeticError):
    """A gradient was asked of a quantity where it has none: a norm at zero, an extreme that is attained twice."""


class TraceError(FisherflatError, RuntimeError):
    """A module call could not be read as a graph (data-dependent control flow, random numbers, ...)."""


class UnsupportedOpError(TraceError, NotImplementedError):
    """An op has no rule in the engine that was asked for."""


class EnclosureError(FisherflatError, ArithmeticError):
    """A ball is too wide to decide what a proof needs: a sign, an order, the regularity of a metric."""


class OutOfMemoryError(FisherflatError, MemoryError):
    """One point does not fit into the memory budget, also after halving the chunk down to a single point."""


class CheckpointError(FisherflatError, OSError):
    """A checkpoint could not be read: no weights, pickled weights, truncated files, unknown architecture."""


class ClusterError(FisherflatError, RuntimeError):
    """A cluster does not answer, has not what tasks take, or its workers are not like this process."""


class CertificateError(FisherflatError, ValueError):
    """A certificate file is malformed; the message names the field."""


class FisherflatWarning(UserWarning):
    """Base class of all warnings of this library."""


class PrecisionWarning(FisherflatWarning):
    """Numbers of low precision were promoted, or a result cannot have the precision that was asked for."""


class CheckpointWarning(FisherflatWarning):
    """A checkpoint was read in another way than was asked for."""


class RoutingWarning(FisherflatWarning):
    """A mixture of experts chooses others at some points than at the base point, so that its routing is not fixed."""


class DegenerateImmersionWarning(FisherflatWarning):
    """Points with a degenerate metric were returned as NaN."""


class FallbackWarning(FisherflatWarning):
    """An op without a rule was differentiated on its own by torch: right, but slower."""


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
