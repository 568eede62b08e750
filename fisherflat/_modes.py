"""The modes of torch in which we are called, and ours: no half precision, no tensors that can have no gradient.

And one of our own: that what is called is only recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cached_property, wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")

#: the devices that autocast knows
_DEVICES = ("cpu", "cuda", "xpu", "mps")

_recorded: ContextVar[bool] = ContextVar("recorded", default=False)


@contextmanager
def lasting() -> Iterator[None]:
    """Where tensors are made that may enter what has a gradient, now or later: those of the inference mode cannot."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    recording = torch.is_grad_enabled()  # before it is left: outside of the inference mode torch records
    with torch.inference_mode(False), torch.set_grad_enabled(recording):
        yield


@contextmanager
def _off(devices: list[str]) -> Iterator[None]:
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def unrounded(function: Callable[P, T]) -> Callable[P, T]:
    """`function`, whose products `torch.autocast`, in which training often runs, rounds to no half precision."""

    @wraps(function)
    def plain(*args: P.args, **kwargs: P.kwargs) -> T:
        rounding = [device for device in _DEVICES if torch.is_autocast_enabled(device)]
        if not rounding:
            return function(*args, **kwargs)
        with _off(rounding):
            return function(*args, **kwargs)

    return plain


@contextmanager
def recording() -> Iterator[None]:
    """Where ops are called to be recorded, and run or compiled later: their numbers are of one case among many."""
    token = _recorded.set(True)
    try:
        yield
    finally:
        _recorded.reset(token)


def recorded() -> bool:
    """Whether that is so here."""
    return _recorded.get()


class lazy(cached_property[T]):
    """A `cached_property` that is computed as an `unrounded` function, wherever it is first read."""

    def __init__(self, function: Callable[..., T]) -> None:
        super().__init__(unrounded(function))
