"""Where decompositions register."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

#: ATen op, or one overload of it -> the same in simpler ops
TABLE: dict[Any, Callable[..., Any]] = {}


def decomposes(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register for ops (`"square"`, all overloads) or single overloads (`"masked_fill.Tensor"`)."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            packet, _, overload = name.partition(".")
            op = getattr(torch.ops.aten, packet, None)  # some are newer than the oldest torch that is supported
            if op is not None:
                TABLE[getattr(op, overload) if overload else op] = function
        return function

    return register
