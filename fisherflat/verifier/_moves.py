"""How the verifier moves entries: each op of torch as what NumPy does to the array of one part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flint import arb

from fisherflat.verifier._polynomials import ZERO, Array
from fisherflat.verifier._windows import columns, image


def _sliced(x: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Array:
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)]


def _padded(x: Array, pad: Any, value: Any = ZERO) -> Array:
    """`constant_pad_nd`, whose amounts come in pairs from the last axis on; negative ones crop."""
    for position in range(len(pad) // 2):
        axis, (before, after) = x.ndim - 1 - position, pad[2 * position : 2 * position + 2]
        x = np.moveaxis(x, axis, 0)
        x = x[max(-before, 0) : len(x) - max(-after, 0)]
        blank = [np.full((max(amount, 0), *x.shape[1:]), value, dtype=object) for amount in (before, after)]
        x = np.moveaxis(np.concatenate([blank[0], x, blank[1]]), 0, axis)
    return x


def _reduced(x: Array, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Array:
    if x.ndim == 0:
        return x
    axes = (
        tuple(range(x.ndim)) if dim is None or dim == [] else tuple(dim) if isinstance(dim, (list, tuple)) else (dim,)
    )
    return np.asarray(x.sum(axes, keepdims=keepdim), dtype=object)


def _averaged(x: Array, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Array:
    total = _reduced(x, dim, keepdim)
    return np.asarray(total / (x.size // max(total.size, 1)), dtype=object)


def _diagonal(x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    return np.diagonal(x, offset, dim1, dim2)


def _lower(x: Array, diagonal: int) -> Array:
    return np.tri(x.shape[-2], x.shape[-1], diagonal).astype(bool)


def _indexed(x: Array, indices: Any) -> Array:
    return x[tuple(slice(None) if index is None else index for index in indices)]


def _gathered(x: Array, dim: int, index: Array, sparse_grad: bool = False) -> Array:
    if x.ndim == 0:
        return x
    cropped = x[tuple(slice(None) if axis == dim % x.ndim else slice(n) for axis, n in enumerate(index.shape))]
    return np.take_along_axis(cropped, index, dim)


def _diag_embedded(x: Array, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Array:
    n, rank = x.shape[-1] + abs(offset), x.ndim + 1
    out = np.full((*x.shape[:-1], n, n), ZERO, dtype=object)
    places = np.arange(x.shape[-1])
    out[..., places + max(-offset, 0), places + max(offset, 0)] = x
    return np.moveaxis(out, (-2, -1), (dim1 % rank, dim2 % rank))


def _windows(x: Array, dim: int, size: int, step: int) -> Array:
    if x.ndim == 0:
        return x.reshape(1)
    starts = range(0, x.shape[dim] - size + 1, step)
    pieces = [np.moveaxis(np.take(x, range(start, start + size), dim), dim, -1) for start in starts]
    return np.stack(pieces, dim % x.ndim)


def _turned(x: Array, k: int = 1, dims: Sequence[int] = (0, 1)) -> Array:
    return np.rot90(x, k, (dims[0], dims[1]))


def _bordered(place: Callable[[Array, int], Array]) -> Callable[..., Array]:
    """Amounts in pairs from the last axis on, negative ones crop; `place` says which entry stands beyond a border."""

    def pad(x: Array, amounts: Sequence[int]) -> Array:
        for position in range(len(amounts) // 2):
            axis, (before, after) = x.ndim - 1 - position, amounts[2 * position : 2 * position + 2]
            length = x.shape[axis]
            x = np.take(x, place(np.arange(-before, length + after), length), axis)
        return x

    return pad


def _mirrored(places: Array, length: int) -> Array:
    return length - 1 - np.abs(length - 1 - np.abs(places))


def _clipped(places: Array, length: int) -> Array:
    return np.clip(places, 0, length - 1)


def _shuffled(x: Array, factor: int) -> Array:
    *batch, channels, h, w = x.shape
    x = x.reshape(*batch, channels // factor**2, factor, factor, h, w)
    n = len(batch)
    x = x.transpose(*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return x.reshape(*batch, channels // factor**2, h * factor, w * factor)


def _unshuffled(x: Array, factor: int) -> Array:
    *batch, channels, h, w = x.shape
    x = x.reshape(*batch, channels, h // factor, factor, w // factor, factor)
    n = len(batch)
    x = x.transpose(*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return x.reshape(*batch, channels * factor**2, h // factor, w // factor)


def _channels_shuffled(x: Array, groups: int) -> Array:
    n, channels, *rest = x.shape
    return x.reshape(n, groups, channels // groups, *rest).swapaxes(1, 2).reshape(x.shape)


def _embedded(weight: Array, index: Array, *options: Any, **named: Any) -> Array:
    return weight[index]


#: op -> how NumPy does the same to the array of one part
LINEAR: dict[str, Callable[..., Array]] = {
    "reshape": lambda x, shape: x.reshape(shape),
    "permute": lambda x, dims: x.transpose(dims),
    "expand": lambda x, shape, implicit=False: np.broadcast_to(x, shape),
    "select": lambda x, dim, index: x.take(index, dim),
    "slice": _sliced,
    "sum": _reduced,
    "mean": _averaged,
    "cumsum": lambda x, dim, dtype=None: np.add.accumulate(x, dim) if x.ndim else x,
    "neg": lambda x: -x,
    "flip": lambda x, dims: np.flip(x, tuple(dims)),
    "roll": lambda x, shifts, dims=(): (
        np.roll(x, tuple(shifts), tuple(dims) or None) if dims else np.roll(x, shifts[0])
    ),
    "repeat": lambda x, repeats: np.tile(x, tuple(repeats)),
    "tril": lambda x, diagonal=0: np.where(_lower(x, diagonal), x, ZERO),
    "triu": lambda x, diagonal=0: np.where(_lower(x, diagonal - 1), ZERO, x),
    "diagonal": _diagonal,
    "index": _indexed,
    "index_select": lambda x, dim, index: x.take(index, dim),
    "gather": _gathered,
    "channel_shuffle": _channels_shuffled,
    "diag_embed": _diag_embedded,
    "embedding": _embedded,
    "col2im": image,
    "im2col": columns,
    "pixel_shuffle": _shuffled,
    "pixel_unshuffle": _unshuffled,
    **{f"reflection_pad{n}d": _bordered(_mirrored) for n in (1, 2, 3)},
    **{f"replication_pad{n}d": _bordered(_clipped) for n in (1, 2, 3)},
    "rot90": _turned,
    "trace": lambda x: np.asarray(x.trace() + ZERO, dtype=object),
    "unfold": _windows,
}


def _entries(source: Array) -> Any:
    """What is written into an array: an array without axes would be written as it is."""
    return source if source.ndim else source[()]


def _scattered(x: Array, source: Array, dim: int, index: int) -> Array:
    out = np.moveaxis(x.copy(), dim, 0)
    out[index] = _entries(source)
    return np.moveaxis(out, 0, dim)


def _slice_scattered(x: Array, source: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Array:
    out = x.copy()
    _sliced(out, dim, start, end, step)[...] = source
    return out


def _diagonal_scattered(x: Array, source: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    out = x.copy()
    matrices = np.moveaxis(out, (dim1, dim2), (-2, -1))
    places = np.arange(source.shape[-1])
    matrices[..., places + max(-offset, 0), places + max(offset, 0)] = source
    return out


def _put(x: Array, indices: Any, values: Array, accumulate: bool = False) -> Array:
    out = x.copy()
    places = _places(indices)
    if accumulate:
        np.add.at(out, places, values)
    else:
        out[places] = _entries(values)
    return out


def _places(indices: Any) -> Any:
    return tuple(slice(None) if index is None else index for index in indices)


def _copied(x: Array, dim: int, index: Array, source: Array) -> Array:
    out = x.copy() if x.ndim else x.reshape(1).copy()
    if x.ndim == 0:
        out[index] = _entries(source)
        return out.reshape(())
    out[(slice(None),) * (dim % max(x.ndim, 1)) + (index,)] = _entries(source)
    return out


def _added(x: Array, dim: int, index: Array, source: Array, alpha: float = 1) -> Array:
    if x.ndim == 0:
        return _added(x.reshape(1), 0, index, source.reshape(-1), alpha).reshape(())
    out = x.copy()
    places: Any = (slice(None),) * (dim % max(x.ndim, 1)) + (index,)
    np.add.at(out, places, source * arb(alpha))
    return out


def _scattered_along(add: bool) -> Callable[..., Array]:
    def scatter(x: Array, dim: int, index: Array, source: Array) -> Array:
        if x.ndim == 0:
            return scatter(x.reshape(1), 0, index.reshape(-1), source.reshape(-1)).reshape(())
        out = x.copy()
        places = [*np.indices(index.shape)]
        places[dim % max(x.ndim, 1)] = index
        entries = _entries(source if source.ndim == 0 else source[tuple(map(slice, index.shape))])
        if add:
            np.add.at(out, tuple(places), entries)
        else:
            out[tuple(places)] = entries
        return out

    return scatter


#: op -> which of its arguments are entries, and what NumPy does to the arrays of one part of them
JOINED: dict[str, tuple[tuple[int, ...], Callable[..., Array]]] = {
    "cat": ((0,), lambda parts, dim=0: np.concatenate([part for part in parts if part.shape != (0,)], dim)),
    "stack": ((0,), lambda parts, dim=0: np.stack(parts, dim)),
    "where": ((1, 2), np.where),
    "masked_fill": ((0, 2), lambda x, mask, value: np.where(mask, value, x)),
    "constant_pad_nd": ((0, 2), _padded),
    "select_scatter": ((0, 1), _scattered),
    "slice_scatter": ((0, 1), _slice_scattered),
    "diagonal_scatter": ((0, 1), _diagonal_scattered),
    "index_add": ((0, 3), _added),
    "index_copy": ((0, 3), _copied),
    "index_fill": ((0, 3), _copied),
    "index_put": ((0, 2), _put),
    "scatter": ((0, 3), _scattered_along(False)),
    "scatter_add": ((0, 3), _scattered_along(True)),
}
