"""Reading numbers from users: one place that says what is accepted, what is promoted and what is refused."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache, wraps
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from fisherflat._modes import lasting
from fisherflat.errors import InputError, PrecisionWarning, warn

_Maker = TypeVar("_Maker", bound=Callable[..., Tensor])


def as_float64(value: Any, name: str, *, tape: bool = False) -> Tensor:
    """`value` as a finite float64 tensor of its own: a detached copy, which later changes of `value` do not reach.

    **Args:** a tensor, a NumPy array, a number or nested lists. Float32 is promoted silently (the promotion is exact),
    float16, bfloat16 and float8 with a `PrecisionWarning`, because such numbers were rounded to a few digits before.
    `tape`: keep the tape of a tensor that requires a gradient.

    **Raises:** `InputError` for integer, boolean or complex tensors, for NaN or infinite entries and for what is not an
    array of numbers.
    """
    if isinstance(value, Tensor):
        check_dense(value, name)
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
    with lasting():
        tensor = tensor.to(torch.float64, copy=True)
    finite = torch.isfinite(tensor)
    if some(~finite):
        where = torch.nonzero(~finite)[0].tolist()
        raise InputError(
            f"{name} holds {int((~finite).sum())} NaN or infinite entries, the first at index {where}; remove them"
        )
    return tensor


def table(make: _Maker) -> _Maker:
    """A function of hashable arguments whose tensor is made once, and kept.

    It is no tensor of the inference mode, whoever asks first: such a one can enter nothing that has a gradient.
    """

    @lru_cache(maxsize=256)
    @wraps(make)
    def made(*args: Any) -> Tensor:
        with lasting(), torch.no_grad():
            return make(*args)

    return cast("_Maker", made)


def some(mask: Tensor) -> bool:
    """Whether an entry is true, which waits for the device. Of the meta device nothing is known: there none is."""
    return not mask.is_meta and bool(mask.any())


def on_host(tensor: Tensor) -> bool:
    """Whether decisions by values cost nothing; elsewhere the host would wait for the device at each of them."""
    return tensor.is_cpu


def check_dense(tensor: Tensor, name: str) -> None:
    """**Raises:** `InputError` for a sparse, quantised or nested tensor, or one inside a transform of `torch.func`."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise InputError(
            f"{name} is inside a transform of torch.func, whose tensors have no numbers that could be read; pass all "
            "points as one batch, and take gradients by backward() or torch.autograd, with differentiable=True"
        )
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        kind = "nested" if tensor.is_nested else "quantised" if tensor.is_quantized else "sparse"
        raise InputError(
            f"{name} is a tensor that is {kind}, where a plain one is needed; convert it, as by to_dense(), "
            "dequantize(), or a list of its parts"
        )


def integer(value: Any, name: str, least: int | None = None) -> int:
    """An integer of Python, of NumPy or in a tensor of one entry.

    **Raises:** `InputError` for anything else, truth values and floats among it, for one below `least` and for one of
    more than 64 bits.
    """
    try:
        if _is_truth(value):
            raise TypeError("a truth value")
        number = operator.index(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be an integer, got {value!r}") from error
    if least is not None and number < least:
        raise InputError(f"{name} must be at least {least}, got {number}")
    if not -(2**63) <= number < 2**63:
        raise InputError(f"{name} must be an integer of at most 64 bits, got {number}")
    return number


def _is_truth(value: Any) -> bool:
    """Whether it is a truth value, or an array or tensor of them."""
    kind = getattr(value, "dtype", None)
    return isinstance(value, bool) or kind == torch.bool or (isinstance(kind, np.dtype) and kind.kind == "b")


def sizes(what: str, **given: Any) -> tuple[int, ...]:
    """The sizes of a layer, by name.

    **Raises:** `InputError` for what is no integer, and where one is not positive.
    """
    found = {name: integer(value, name) for name, value in given.items()}
    if min(found.values()) < 1:
        raise InputError(f"{what} needs positive sizes, got {', '.join(f'{n}={size}' for n, size in found.items())}")
    return tuple(found.values())


def integers(values: Any, name: str) -> tuple[int, ...]:
    """Several integers, from a list, a range, an array or a tensor of one axis.

    **Raises:** `InputError` for a single one, none, a dictionary, or what are no integers.
    """
    one = isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__")
    if one or getattr(values, "ndim", 1) != 1:
        raise InputError(f"{name} must be a list of integers, such as [{_example(values)}], got {values!r}")
    found = tuple(integer(value, f"each of {name}") for value in values)
    if not found:
        raise InputError(f"{name} must be a list that is not empty, got {values!r}")
    return found


def number(value: Any, name: str, most: float = sys.float_info.max) -> float:
    """A real number, NaN among them.

    **Raises:** `InputError` for anything else, truth values among it, and for one that is larger in size than `most`.
    """
    try:
        if isinstance(value, (str, bytes)) or _is_truth(value):
            raise TypeError(f"a {type(value).__name__}")
        found = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise InputError(f"{name} must be a number, got {value!r}") from error
    if abs(found) > most:
        raise InputError(f"{name} must be finite, got {found}")
    return found


def choice(value: Any, name: str, known: Collection[str]) -> str:
    """One of some words.

    **Raises:** `InputError` for anything else; the message lists the words.
    """
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} must be one of {', '.join(map(repr, known))}; got {value!r}")
    return value


def flag(value: Any, name: str) -> bool:
    """True or False.

    **Raises:** `InputError` for anything else, so that no array or text is taken for a truth value.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def strings(values: Any, name: str) -> list[str]:
    """Several words, from a list or anything else that holds them.

    **Raises:** `InputError` for a single word, and for what holds other things.
    """
    found = None if isinstance(values, (str, bytes)) else _listed(values)
    if found is None or not all(isinstance(value, str) for value in found):
        raise InputError(f"{name} must be a list of names, got {values!r}")
    return found


def _listed(values: Any) -> list[Any] | None:
    try:
        return list(values)
    except TypeError:  # also of a tensor without axes
        return None


def tensors(**given: Any) -> None:
    """**Raises:** `InputError` where one of them is no tensor."""
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{name} must be a tensor, got {type(value).__name__}")


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
