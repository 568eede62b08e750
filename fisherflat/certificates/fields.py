"""The values in the JSON files of certificates: how they are written, and read from a file that may be anything.

Numbers that matter are exact: floats are written in hexadecimal, large arrays as their bytes, bounds as decimals. What
is read is bounded in size, and what is wrong raises `ValueError` or `TypeError`, which `Fields` turns into a
`CertificateError` that names the field.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fisherflat.certificates import digests
from fisherflat.certificates._bounds import Bound
from fisherflat.certificates._weight import Weight
from fisherflat.errors import CertificateError, InputError

#: characters of a text, entries of a list, numbers of an array, and of one that is written number by number
MAX_TEXT, MAX_LIST, MAX_NUMBERS, MAX_HEX = 2**20, 2**16, 2**28, 64

DIGEST = re.compile(r"[0-9a-f]{64}")
DECIMAL = re.compile(r"-?\d{1,2000}(\.\d{1,2000})?(E[+-]?\d{1,4})?")


# -- writing -----------------------------------------------------------------------------------------------------------


def numbers(values: Iterable[float]) -> list[str]:
    """Floats in hexadecimal, which is exact."""
    return [float(value).hex() for value in values]


def bounds(pair: tuple[Bound, Bound] | None) -> dict[str, str] | None:
    """Exact bounds as decimals."""
    return None if pair is None else {"low": str(pair[0]), "high": str(pair[1])}


def weight(stated: Weight) -> dict[str, Any]:
    """A weight by its digest."""
    return {"name": stated.name, "shape": list(stated.shape), "sha256": stated.sha256}


def tensor(values: Tensor) -> dict[str, Any]:
    """A tensor: few numbers one by one, many as their bytes."""
    array = {"shape": list(values.shape), "sha256": digests.of_tensor(values)}
    if values.numel() <= MAX_HEX:
        return {**array, "hex": numbers(values.reshape(-1).tolist())}
    return {**array, "base64": base64.b64encode(digests.raw(values)).decode()}


# -- reading -----------------------------------------------------------------------------------------------------------


class Fields:
    """The fields of a JSON object, each read once; errors name the field."""

    def __init__(self, data: Any) -> None:
        if not isinstance(data, dict):
            raise CertificateError("the document is not a JSON object")
        self._data, self._left = data, set(data)

    def has(self, name: str) -> bool:
        """Whether there is such a field."""
        return name in self._data

    def given(self, name: str) -> Any:
        """The value of a field as it stands."""
        if name not in self._data:
            raise CertificateError(f"{name}: missing")
        self._left.discard(name)
        return self._data[name]

    def of(self, name: str, read: Callable[[Any], Any]) -> Any:
        """The value of a field, read by a function that raises `ValueError` or `TypeError`."""
        value = self.given(name)
        try:
            return read(value)
        except (ValueError, TypeError, OverflowError, InputError) as error:
            raise CertificateError(f"{name}: {error}") from error

    def optional(self, name: str, read: Callable[[Any], Any]) -> Any:
        """Likewise, or `None`."""
        return self.of(name, lambda value: None if value is None else read(value))

    def text(self, name: str, pattern: re.Pattern[str] | None = None) -> str:
        """A text."""
        return self.of(name, lambda value: as_text(value, pattern))

    def choice(self, name: str, known: Any) -> str:
        """One of the known words."""
        return self.of(name, lambda value: as_choice(value, known))

    def integer(self, name: str, low: int, high: int) -> int:
        """An integer within bounds."""
        return self.of(name, lambda value: as_integer(value, low, high))

    def finished(self) -> None:
        """**Raises:** `CertificateError` where a field was not read."""
        if self._left:
            raise CertificateError(f"{min(self._left)}: no such field")


def as_text(value: Any, pattern: re.Pattern[str] | None = None) -> str:
    """A text, of a form."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ValueError(f"a text of at most {MAX_TEXT} characters is needed")
    if pattern is not None and pattern.fullmatch(value) is None:
        raise ValueError(f"{value[:80]!r} has not the right form")
    return value


def as_choice(value: Any, known: Any) -> str:
    """One of the known words."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{str(value)[:80]!r} is none of {', '.join(known)}")
    return value


def as_integer(value: Any, low: int, high: int) -> int:
    """An integer within bounds."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"an integer from {low} to {high} is needed")
    return value


def as_list(value: Any, most: int = MAX_LIST) -> list[Any]:
    """A list that is not too long."""
    if not isinstance(value, list) or len(value) > most:
        raise ValueError(f"a list of at most {most} entries is needed")
    return value


def as_parts(value: Any, *names: str) -> list[Any]:
    """The values of an object with just these fields."""
    if not isinstance(value, dict) or set(value) != set(names):
        raise ValueError(f"an object with the fields {', '.join(names)} is needed")
    return [value[name] for name in names]


def as_number(value: Any, finite: bool = True) -> float:
    """A float, written in hexadecimal."""
    number = float.fromhex(as_text(value))
    if finite and not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number


def as_nonnegative(number: float) -> float:
    """A number that is not negative."""
    if math.copysign(1.0, number) < 0:
        raise ValueError("it is negative")
    return number


def as_numbers(value: Any, count: int, finite: bool = True) -> tuple[float, ...]:
    """So many floats."""
    if len(as_list(value)) != count:
        raise ValueError(f"{count} numbers are needed")
    return tuple(as_number(number, finite) for number in value)


def as_bounds(value: Any) -> tuple[Bound, Bound]:
    """Exact bounds, in order."""
    low, high = (Bound(as_text(bound, DECIMAL)) for bound in as_parts(value, "low", "high"))
    if low > high:
        raise ValueError("the lower bound is above the upper one")
    return low, high


def as_shape(value: Any) -> tuple[int, ...]:
    """The shape of a tensor."""
    shape = tuple(as_integer(length, 0, MAX_NUMBERS) for length in as_list(value))
    if len(shape) > 32 or math.prod(shape) > MAX_NUMBERS:
        raise ValueError(f"the shape {list(shape)[:8]} is too large")
    return shape


def as_weight(value: Any) -> Weight:
    """A weight by its digest."""
    name, shape, sha256 = as_parts(value, "name", "shape", "sha256")
    return Weight(as_text(name), as_shape(shape), as_text(sha256, DIGEST))


def as_tensor(value: Any, finite: bool = True) -> Tensor:
    """A tensor, compared with its digest."""
    if not isinstance(value, dict):
        raise ValueError("an array is needed")
    form = "hex" if "hex" in value else "base64"
    shape, sha256, entries = as_parts(value, "shape", "sha256", form)
    shape = as_shape(shape)
    if form == "hex":
        numbers = np.array(as_numbers(entries, math.prod(shape), finite), dtype="<f8")
    else:
        if not isinstance(entries, str) or len(entries) != 4 * ((8 * math.prod(shape) + 2) // 3):
            raise ValueError(f"the entries are not those of an array of shape {list(shape)}")
        try:
            numbers = np.frombuffer(base64.b64decode(entries, validate=True), dtype="<f8")
        except binascii.Error as error:
            raise ValueError(f"base64: {error}") from error
    if finite and not np.isfinite(numbers).all():
        raise ValueError("an entry is not finite")
    tensor = torch.from_numpy(numbers.astype(np.float64).reshape(shape))
    if digests.of_tensor(tensor) != as_text(sha256, DIGEST):
        raise ValueError("sha256: it is not that of the entries")
    return tensor


def as_versions(value: Any) -> dict[str, str]:
    """Versions by name."""
    if not isinstance(value, dict) or len(value) > 32:
        raise ValueError("an object of at most 32 versions is needed")
    return {as_text(name): as_text(version) for name, version in value.items()}


def as_subject(value: Any) -> dict[str, Any]:
    """Where a certificate came from."""
    if not isinstance(value, dict) or not value or len(json.dumps(value)) > MAX_TEXT:
        raise ValueError(f"an object of at most {MAX_TEXT} characters is needed, and not an empty one")
    return value
