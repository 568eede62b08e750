"""Reading numbers from users: one place that says what is accepted, what is promoted and what is refused."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fisherflat.errors import InputError, PrecisionWarning, warn


def as_float64(value: Any, name: str, *, tape: bool = False) -> Tensor:
    """`value` as a finite float64 tensor of its own: a detached copy, which later changes of `value` do not reach.

    **Args:** a tensor, a NumPy array, a number or nested lists. Float32 is promoted silently (the promotion is exact),
    float16, bfloat16 and float8 with a `PrecisionWarning`, because such numbers were rounded to a few digits before.
    `tape`: keep the tape of a tensor that requires a gradient.

    **Raises:** `InputError` for integer, boolean or complex tensors, for NaN or infinite entries and for what is not an
    array of numbers.
    """
    try:
        if isinstance(value, Tensor):
            tensor = value if tape and value.requires_grad and torch.is_grad_enabled() else value.detach()
        elif hasattr(value, "__array__"):
            tensor = torch.from_numpy(np.array(value, order="C"))
        else:
            tensor = torch.tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name} cannot be read as numbers ({error}); pass a tensor, an array or nested lists"
        ) from error
    if not tensor.is_floating_point():
        raise InputError(
            f"{name} has dtype {tensor.dtype}, but real floating-point numbers are needed; convert it first, "
            f"e.g. {name}.double()"
        )
    if tensor.dtype.itemsize < 4:
        warn(
            f"{name} has dtype {tensor.dtype} and is promoted to float64; its digits were lost before", PrecisionWarning
        )
    with torch.inference_mode(False):  # tensors made in that mode can have no derivatives
        tensor = tensor.to(torch.float64, copy=True)
    finite = torch.isfinite(tensor)
    if not finite.all():
        where = torch.nonzero(~finite)[0].tolist()
        raise InputError(
            f"{name} holds {int((~finite).sum())} NaN or infinite entries, the first at index {where}; remove them"
        )
    return tensor


def integer(value: Any, name: str, least: int | None = None) -> int:
    """An integer of Python, of NumPy or in a tensor of one entry.

    **Raises:** `InputError` for anything else, truth values and floats among it, and for one below `least`.
    """
    try:
        if isinstance(value, (bool, np.bool_)) or (isinstance(value, Tensor) and value.dtype == torch.bool):
            raise TypeError("a truth value")
        number = operator.index(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be an integer, got {value!r}") from error
    if least is not None and number < least:
        raise InputError(f"{name} must be at least {least}, got {number}")
    return number


def integers(values: Any, name: str) -> tuple[int, ...]:
    """Several integers, from a list, a range, an array or a tensor of one axis.

    **Raises:** `InputError` for a single one, none, or what are no integers.
    """
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__") or getattr(values, "ndim", 1) != 1:
        raise InputError(f"{name} must be a list of integers, such as [{_example(values)}], got {values!r}")
    found = tuple(integer(value, f"each of {name}") for value in values)
    if not found:
        raise InputError(f"{name} must be a list that is not empty, got {values!r}")
    return found


def _example(value: Any) -> Any:
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        return 0


def product_error(a: Tensor, b: Tensor, product: Tensor) -> Tensor:
    """`a b - product`, the rounding of a product of tensors, exactly (Dekker, *A floating-point technique*, 1971)."""
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return a_low * b_low - (((product - a_high * b_high) - a_low * b_high) - a_high * b_low)


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    # into halves of as many bits as half a significand has, whose products are exact
    spread = x * (2.0 ** (27 if x.dtype == torch.float64 else 12) + 1)
    high = spread - (spread - x)
    return high, x - high
