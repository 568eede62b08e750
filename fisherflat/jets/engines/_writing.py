"""Writing the result of an op into memory that is there, with a tape or without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def into(out: Tensor, function: Callable[..., Tensor], *args: Any) -> None:
    """`out = function(*args)`; the result is made first where gradients are recorded: torch has no tape of `out=`."""
    if torch.is_grad_enabled():
        out.copy_(function(*args))
    else:
        function(*args, out=out)
