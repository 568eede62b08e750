"""Random numbers that are not the user's."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class drawn_from(TorchDispatchMode):
    """Lets all that this thread draws be drawn from a generator, so that torch's random state stays as it is.

    torch can only fork its random state for the whole process, whose other threads may be drawing from it.

    **Args:** `generator`, one of the CPU.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self._generator = generator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if not any(argument.name == "generator" for argument in func._schema.arguments):
            overload = _with_generator(func)
            return func(*args, **kwargs) if overload is None else self._on_cpu(overload, args, kwargs)
        if args and isinstance(args[0], torch.Tensor) and args[0].device.type != "cpu":
            if args[0].is_meta:
                return args[0]  # nothing is drawn there
            drawn = self._on_cpu(func, (args[0].to("cpu"), *args[1:]), kwargs)
            return args[0].copy_(drawn)
        return self._on_cpu(func, args, kwargs)

    def _on_cpu(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return func(*args, **{**kwargs, "generator": self._generator})


@cache
def _with_generator(func: Any) -> Any:
    """The overload of an op that makes a random tensor, such as `aten.randn`, that takes a generator besides."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return None
    names = {argument.name for argument in func._schema.arguments} | {"generator"}
    overloads = (getattr(func.overloadpacket, name) for name in func.overloadpacket.overloads())
    return next((o for o in overloads if {argument.name for argument in o._schema.arguments} == names), None)
