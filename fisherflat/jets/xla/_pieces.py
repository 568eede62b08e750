"""Arrays as equal pieces along their first axis.

Rules write the coefficients of a series one after the other into one array. XLA has no memory to write into: each write
would copy the whole. So such an array is kept as the pieces that were written, ops of single entries and of rows act on
each piece, and pieces are put together only where an op needs them so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import lax, tree_util


@dataclass(frozen=True)
class Pieces:
    """An array as two or more `parts` of one shape, one behind the other along the first axis."""

    parts: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole."""
        first = self.parts[0].shape
        return (first[0] * len(self.parts), *first[1:])

    @property
    def ndim(self) -> int:
        """Of the whole."""
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        """Of all parts."""
        return self.parts[0].dtype


tree_util.register_dataclass(Pieces, ["parts"], [])


def joined(parts: Sequence[Any]) -> Any:
    """Parts as one array, or as the only one of them."""
    return parts[0] if len(parts) == 1 else Pieces(tuple(parts))


def whole(x: Any) -> Any:
    """One array of jax, or what is no array as it is."""
    return jnp.concatenate(x.parts, 0) if isinstance(x, Pieces) else x


def apart(x: Any, count: int) -> list[Any]:
    """An array as `count` equal pieces."""
    if isinstance(x, Pieces) and len(x.parts) == count:
        return list(x.parts)
    x = whole(x)
    length = x.shape[0] // count
    return [x[i * length : (i + 1) * length] for i in range(count)]


def each(function: Callable[..., Any], *given: Any) -> Any:
    """A function that broadcasts its arguments and keeps their first axis, on each piece."""
    rank = max(getattr(x, "ndim", 0) for x in given)
    length = max((x.shape[0] for x in given if rank and getattr(x, "ndim", 0) == rank), default=0)
    along = [rank > 0 and getattr(x, "ndim", 0) == rank and x.shape[0] == length for x in given]
    counts = [len(x.parts) for x, is_along in zip(given, along, strict=True) if is_along and isinstance(x, Pieces)]
    count = max(counts, default=1)
    if count == 1 or length % count:
        return function(*map(whole, given))
    columns = [apart(x, count) if is_along else [whole(x)] * count for x, is_along in zip(given, along, strict=True)]
    return Pieces(tuple(function(*column) for column in zip(*columns, strict=True)))


def reshaped(x: Any, shape: Sequence[int]) -> Any:
    """The entries in their order in another shape."""
    if isinstance(x, Pieces) and shape and shape[0] % len(x.parts) == 0:
        length = shape[0] // len(x.parts)
        return Pieces(tuple(part.reshape(length, *shape[1:]) for part in x.parts))
    return whole(x).reshape(tuple(shape))


def permuted(x: Any, axes: Sequence[int]) -> Any:
    """The axes in another order."""
    if isinstance(x, Pieces) and axes[0] == 0:
        return Pieces(tuple(part.transpose(axes) for part in x.parts))
    return whole(x).transpose(axes)


def taken(x: Any, axis: int, index: slice | int) -> Any:
    """`x[..., index, ...]` at an axis."""
    if isinstance(x, Pieces):
        if axis > 0:
            return each(lambda part: taken(part, axis, index), x)
        found = _parts(x, index)
        if found is not None:
            return x.parts[found.start][0] if isinstance(index, int) else joined(x.parts[found])
    return whole(x)[(slice(None),) * axis + (index,)]


def placed(x: Any, axis: int, index: slice | int, value: Any) -> Any:
    """`x` with `x[..., index, ...] = value` at an axis."""
    if isinstance(x, Pieces) and axis == 0:
        found = _parts(x, index)
        if found is not None:
            parts = list(x.parts)
            count = found.stop - found.start
            parts[found] = [whole(value)[None]] if isinstance(index, int) else apart(value, count)
            return Pieces(tuple(parts))
    return whole(x).at[(slice(None),) * axis + (index,)].set(whole(value))


def written(out: Any, x: Any, i: Any, axis: int) -> Any:
    """`out` with `x` as the part of number `i` along an axis; pieces are written one by one, into the same memory."""
    parts, first = (x.parts, x.parts[0].shape[0]) if isinstance(x, Pieces) and axis else ((whole(x),), 0)
    for number, part in enumerate(parts):
        at = [0] * part.ndim
        at[0] = number * first
        at[axis] = i * part.shape[axis]
        out = lax.dynamic_update_slice(out, part, at)
    return out


def _parts(x: Pieces, index: slice | int) -> slice | None:
    """Which parts an index of the first axis takes, where it takes them whole."""
    length, total = x.parts[0].shape[0], x.shape[0]
    if isinstance(index, int):
        return slice(index, index + 1) if length == 1 else None
    start, stop, step = index.indices(total)
    if step != 1 or start >= stop or start % length or stop % length:
        return None
    return slice(start // length, stop // length)


def filled(value: Any, shape: Sequence[int], dtype: Any) -> Any:
    """An array or a number broadcast to a shape, in a dtype."""
    if getattr(value, "shape", None) == tuple(shape):
        return value if value.dtype == dtype else each(lambda part: part.astype(dtype), value)
    value = jnp.asarray(whole(value), dtype)
    return jnp.broadcast_to(value, tuple(shape))
