"""Memory of torch in a language that has none: places that are read and written, and views of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fisherflat.jets.xla._pieces import permuted, placed, reshaped, taken


class Place:
    """What a tensor holds at the moment."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def read(self) -> Any:
        """The array."""
        return self._value

    def write(self, value: Any) -> None:
        """Another array of the same shape and dtype."""
        self._value = value


class View(Place):
    """A part of another place, or the same in another shape."""

    def __init__(self, of: Place, read: Callable[[Any], Any], write: Callable[[Any, Any], Any]) -> None:
        self._of, self._read, self._write = of, read, write

    def read(self) -> Any:
        return self._read(self._of.read())

    def write(self, value: Any) -> None:
        self._of.write(self._write(self._of.read(), value))


def reshape(of: Place, shape: tuple[int, ...]) -> View:
    """The entries in their order in another shape."""
    return View(of, lambda x: reshaped(x, shape), lambda x, value: reshaped(value, x.shape))


def permute(of: Place, axes: list[int]) -> View:
    """The axes in another order."""
    back = [int(axis) for axis in np.argsort(axes)]
    return View(of, lambda x: permuted(x, axes), lambda x, value: permuted(value, back))


def take(of: Place, axis: int, index: slice | int) -> View:
    """A part along an axis."""
    return View(of, lambda x: taken(x, axis, index), lambda x, value: placed(x, axis, index, value))
