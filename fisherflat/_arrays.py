"""Reading numbers from users: one place that says what is accepted, what is promoted and what is refused."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from fisherflat.errors import InputError, PrecisionWarning


def as_float64(value: Any, name: str) -> Tensor:
    """`value` as a finite float64 tensor, detached.

    **Args:** a tensor, a NumPy array, a number or nested lists. Float32 is promoted silently (the promotion is exact),
    float16 and bfloat16 with a `PrecisionWarning`, because such numbers were rounded to 3 or 4 digits before.

    **Raises:** `InputError` for integer, boolean or complex tensors and for NaN or infinite entries.
    """
    tensor = (
        value if isinstance(value, Tensor) or hasattr(value, "__array__") else torch.tensor(value, dtype=torch.float64)
    )
    tensor = torch.as_tensor(tensor).detach()
    if not tensor.is_floating_point():
        raise InputError(f"{name} has dtype {tensor.dtype}; real coordinates are needed: pass {name}.double()")
    if tensor.dtype in (torch.float16, torch.bfloat16):
        warnings.warn(
            f"{name} has dtype {tensor.dtype} and is promoted to float64; its digits were lost before",
            PrecisionWarning,
            stacklevel=3,
        )
    tensor = tensor.to(torch.float64)
    finite = torch.isfinite(tensor)
    if not finite.all():
        where = torch.nonzero(~finite)[0].tolist()
        raise InputError(
            f"{name} holds {int((~finite).sum())} NaN or infinite entries, the first at index {where}; remove them"
        )
    return tensor
