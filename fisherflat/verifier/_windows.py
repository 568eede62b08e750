"""How the verifier slides windows: convolutions, pools, columns of patches, and running extremes.

A pool is a list of windows, each the places that one output sees, counted row by row over the pooled axes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from flint import arb

from fisherflat.verifier._decisions import ranked
from fisherflat.verifier._polynomials import ZERO, Array, filled

#: the windows of a pool: for each output the places that it sees, and what a mean divides their sum by
Windows = list[tuple[list[int], int]]


def taps(extent: Sequence[int], kernel: Sequence[int], dilation: Any, stride: Any) -> tuple[list[int], list[Any]]:
    """How often a kernel fits, and for each of its taps the entries that it meets."""
    counts = [(n - d * (k - 1) - 1) // s + 1 for n, k, d, s in zip(extent, kernel, dilation, stride, strict=True)]
    slices = [
        tuple(
            slice(t * d, t * d + s * (n - 1) + 1, s) for t, d, s, n in zip(tap, dilation, stride, counts, strict=True)
        )
        for tap in product(*map(range, kernel))
    ]
    return counts, slices


def bordered(x: Array, before: Sequence[int], after: Sequence[int]) -> Array:
    """Zeros around the last axes; negative amounts crop."""
    rank = len(before)
    pairs = list(zip(before, after, strict=True))
    crop: Any = (..., *(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape[-rank:], pairs, strict=True)))
    widths = [(0, 0)] * (x.ndim - rank) + [(max(a, 0), max(b, 0)) for a, b in pairs]
    return np.pad(x[crop], widths, constant_values=ZERO)


def convolution(
    x: Array,
    weight: Array,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Array:
    """A convolution over any number of axes: the sum over the taps of the kernel."""
    rank = weight.ndim - 2
    stride, padding, dilation, extra = (
        tuple(o) * rank if len(o) < rank else tuple(o) for o in (stride, padding, dilation, output_padding)
    )
    lone = x.ndim == rank + 1
    x = x[None] if lone else x
    if transposed:  # a convolution of the input, set apart by the stride, with the kernel turned around
        apart = np.full(
            (*x.shape[:2], *((n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True))), ZERO, object
        )
        place: Any = (..., *(slice(None, None, s) for s in stride))
        apart[place] = x
        reach = [d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True)]
        x = bordered(apart, reach, [r + e for r, e in zip(reach, extra, strict=True)])
        turned = np.flip(weight, tuple(range(2, weight.ndim)))
        split = turned.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        weight, stride = np.concatenate([group.swapaxes(0, 1) for group in split]), (1,) * rank
    else:
        x = bordered(x, padding, padding)
    counts, slices = taps(x.shape[2:], weight.shape[2:], dilation, stride)
    kernels = weight.reshape(*weight.shape[:2], -1)
    ins, outs, pieces = x.shape[1] // groups, weight.shape[0] // groups, []
    for group in range(groups):
        inputs, kernel = x[:, group * ins : (group + 1) * ins], kernels[group * outs : (group + 1) * outs]
        terms = [
            np.tensordot(inputs[(slice(None), slice(None), *window)], kernel[:, :, tap], (1, 1))
            for tap, window in enumerate(slices)
        ]
        pieces.append(np.moveaxis(sum(terms[1:], terms[0]), -1, 1))
    out = np.concatenate(pieces, 1).reshape(x.shape[0], -1, *counts)
    return out[0] if lone else out


def columns(x: Array, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Array:
    """`im2col`: the patches of an image as columns."""
    lone = x.ndim == 3
    x = bordered(x[None] if lone else x, padding, padding)
    counts, slices = taps(x.shape[2:], kernel, dilation, stride)
    patches = np.stack([x[:, :, one, two] for one, two in slices], 2)
    out = patches.reshape(x.shape[0], -1, math.prod(counts))
    return out[0] if lone else out


def image(x: Array, size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> Array:
    """`col2im`: the sum of overlapping patches."""
    lone = x.ndim == 2
    x = x[None] if lone else x
    extent = [n + 2 * p for n, p in zip(size, padding, strict=True)]
    counts, slices = taps(extent, kernel, dilation, stride)
    patches = x.reshape(x.shape[0], -1, math.prod(kernel), *counts)
    out = np.full((x.shape[0], patches.shape[1], *extent), ZERO, dtype=object)
    for tap, (one, two) in enumerate(slices):
        out[:, :, one, two] = out[:, :, one, two] + patches[:, :, tap]
    out = bordered(out, [-p for p in padding], [-p for p in padding])
    return out[0] if lone else out


# -- pools -------------------------------------------------------------------------------------------------------------


def pooled(name: str, x: Array, *args: Any, **kwargs: Any) -> tuple[Callable[[Array], Array], Array | None] | None:
    """Means and largest entries over windows: what makes them of any array of the shape of `x`, and the places.

    `None` for pools that are not known here.
    """
    rank = int(name.partition("pool")[2][0])
    extent = x.shape[x.ndim - rank :]
    divisor = None
    if "adaptive" in name:
        counts, windows = adaptive(extent, args[0])
    elif "avg" in name:
        names = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
        given = dict(zip(names, args, strict=False)) | kwargs
        divisor = given.get("divisor_override")
        options = (given.get("padding", 0), 1, given.get("ceil_mode", False), given.get("count_include_pad", True))
        counts, windows = fixed(extent, given["kernel_size"], given.get("stride"), *options)
    elif name.startswith("max_pool"):
        given = dict(zip(("kernel_size", "stride", "padding", "dilation", "ceil_mode"), args, strict=False)) | kwargs
        options = (given.get("padding", 0), given.get("dilation", 1), given.get("ceil_mode", False), True)
        counts, windows = fixed(extent, given["kernel_size"], given.get("stride"), *options)
    else:
        return None
    if "avg" in name:
        return mean_over(rank, counts, windows, divisor), None
    pool, index = largest_in(x, rank, counts, windows)
    return pool, filled(map(arb, index.ravel().tolist()), index.shape)


def fixed(
    extent: Sequence[int], kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool, padded: bool
) -> tuple[list[int], Windows]:
    """The windows of a kernel that slides; `padded`: whether a mean counts the border, but not what is beyond it."""
    rank = len(extent)
    kernel, padding, dilation = (_each(option, rank) for option in (kernel, padding, dilation))
    stride = _each(stride, rank) if stride not in (None, [], ()) else kernel
    axes = []
    for n, k, s, p, d in zip(extent, kernel, stride, padding, dilation, strict=True):
        room = n + 2 * p - d * (k - 1) - 1
        count = (room + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (count - 1) * s >= n + p:
            count -= 1
        starts = [i * s - p for i in range(count)]
        axes.append([([i for i in range(a, a + d * k, d) if 0 <= i < n], min(a + k, n + p) - a) for a in starts])
    return [len(axis) for axis in axes], list(_joined(extent, axes, padded))


def adaptive(extent: Sequence[int], size: Any) -> tuple[list[int], Windows]:
    """The windows that share out an axis among so many outputs."""
    size = [n if m is None else m for n, m in zip(extent, _each(size, len(extent)), strict=True)]
    axes = []
    for n, m in zip(extent, size, strict=True):
        ranges = [range(i * n // m, -((-(i + 1) * n) // m)) for i in range(m)]
        axes.append([([*places], len(places)) for places in ranges])
    return list(size), list(_joined(extent, axes, True))


def _joined(extent: Sequence[int], axes: Sequence[Any], padded: bool) -> Iterator[tuple[list[int], int]]:
    for window in product(*axes):
        places = [int(np.ravel_multi_index(place, tuple(extent))) for place in product(*(seen for seen, _ in window))]
        yield places, math.prod(size for _, size in window) if padded else len(places)


def _each(option: Any, rank: int) -> list[Any]:
    given = list(option) if isinstance(option, (list, tuple)) else [option]
    return given * rank if len(given) == 1 else given


def mean_over(rank: int, counts: list[int], windows: Windows, divisor: int | None) -> Callable[[Array], Array]:
    """The means over windows of the last `rank` axes."""

    def pool(part: Array) -> Array:
        lines = part.reshape(*part.shape[: part.ndim - rank], -1)
        means = [lines[..., places].sum(-1) / arb(divisor or count) for places, count in windows]
        return np.stack([np.asarray(m, dtype=object) for m in means], -1).reshape(
            *part.shape[: part.ndim - rank], *counts
        )

    return pool


def largest_in(x: Array, rank: int, counts: list[int], windows: Windows) -> tuple[Callable[[Array], Array], Array]:
    """Picks the entries that are certainly largest in each window, and says where they are."""
    lead = x.shape[: x.ndim - rank]
    lines = x.reshape(*lead, -1)
    picked = [np.asarray(places)[ranked(lines[..., places], 1, -1, True)[..., 0]] for places, _ in windows]
    index = np.stack(picked, -1)

    def pool(part: Array) -> Array:
        flat = part.reshape(*lead, -1)
        return np.take_along_axis(flat, index, -1).reshape(*lead, *counts)

    return pool, index.reshape(*lead, *counts)


def running(x: Array, dim: int, largest: bool) -> Array:
    """The places of the certainly largest (or smallest) entries up to each, along an axis."""
    lines = np.moveaxis(x, dim, -1)
    out = np.zeros(lines.shape, dtype=np.int64)
    for place in np.ndindex(*lines.shape[:-1]):
        line, best = lines[place], 0
        for i in range(1, len(line)):
            pair = filled([line[best], line[i]], (2,))
            best = i if ranked(pair, 1, -1, largest)[0] == 1 else best
            out[(*place, i)] = best
    return np.moveaxis(out, -1, dim)
