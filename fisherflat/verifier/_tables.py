"""What the verifier knows of ops: their functions as power series, and how NumPy does the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flint import arb, arb_series

from fisherflat.errors import EnclosureError, UnsupportedOpError
from fisherflat.verifier._polynomials import ZERO, Array

# -- functions of one entry --------------------------------------------------------------------------------------------


def _side(s: arb_series, at: float = 0.0) -> int:
    """On which side of a kink the value lies."""
    value = s[0] - at
    if value > 0:
        return 1
    if value < 0:
        return -1
    raise EnclosureError(f"a kink at {at} is not excluded")


def _sigmoid(s: arb_series) -> arb_series:
    return s.exp() / (1 + s.exp()) if s[0] < -1e4 else 1 / (1 + (-s).exp())


def _tanh(s: arb_series) -> arb_series:
    return 2 * _sigmoid(2 * s) - 1


def _gelu(s: arb_series, approximate: str = "none") -> arb_series:
    if approximate == "tanh":
        inner = (2 / arb.pi()).sqrt() * (s + arb(0.044715) * s * s * s)
        return s * (1 + _tanh(inner)) / 2
    return s * (-s / arb(2).sqrt()).erfc() / 2


def _softplus(s: arb_series, beta: float = 1.0, threshold: float = 20.0) -> arb_series:
    scaled = s * arb(beta)
    return s if _side(scaled, threshold) > 0 else (1 + scaled.exp()).log() / arb(beta)


def _elu(s: arb_series, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> arb_series:
    if _side(s) > 0:
        return s * arb(scale)
    return ((s * arb(input_scale)).exp() - 1) * arb(alpha) * arb(scale)


def _clamp(s: arb_series, low: float | None = None, high: float | None = None) -> arb_series:
    if low is not None and _side(s, low) < 0:
        return 0 * s + arb(low)
    return s if high is None or _side(s, high) < 0 else 0 * s + arb(high)


def _power(s: arb_series, exponent: float) -> arb_series:
    if float(exponent).is_integer() and exponent >= 0:
        result = 0 * s + 1
        for _ in range(int(exponent)):
            result = result * s
        return result
    if float(exponent).is_integer():
        return 1 / _power(s, -exponent)
    return s.sqrt() if exponent == 0.5 else s.rsqrt() if exponent == -0.5 else (s.log() * arb(exponent)).exp()


FUNCTIONS: dict[str, Callable[..., arb_series]] = {
    "abs": lambda s: s * _side(s),
    "atan": lambda s: s.atan(),
    "clamp": _clamp,
    "clamp_max": lambda s, high: _clamp(s, None, high),
    "clamp_min": _clamp,
    "cos": lambda s: s.cos(),
    "cosh": lambda s: (s.exp() + (-s).exp()) / 2,
    "elu": _elu,
    "erf": lambda s: s.erf(),
    "erfc": lambda s: s.erfc(),
    "exp": lambda s: s.exp(),
    "expm1": lambda s: s.exp() - 1,
    "gelu": _gelu,
    "leaky_relu": lambda s, slope=0.01: s if _side(s) > 0 else s * arb(slope),
    "log": lambda s: s.log(),
    "log1p": lambda s: (1 + s).log(),
    "log_sigmoid": lambda s: -(1 + (-s).exp()).log(),
    "pow": _power,
    "reciprocal": lambda s: 1 / s,
    "relu": lambda s: s if _side(s) > 0 else 0 * s,
    "rsqrt": lambda s: s.rsqrt(),
    "sigmoid": _sigmoid,
    "silu": lambda s: s * _sigmoid(s),
    "sin": lambda s: s.sin(),
    "sinh": lambda s: (s.exp() - (-s).exp()) / 2,
    "softplus": _softplus,
    "sqrt": lambda s: s.sqrt(),
    "tan": lambda s: s.tan(),
    "tanh": _tanh,
}


# -- moving entries ----------------------------------------------------------------------------------------------------


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
    cropped = x[tuple(slice(None) if axis == dim % x.ndim else slice(n) for axis, n in enumerate(index.shape))]
    return np.take_along_axis(cropped, index, dim)


#: op -> how NumPy does the same to the array of one part
LINEAR: dict[str, Callable[..., Array]] = {
    "reshape": lambda x, shape: x.reshape(shape),
    "permute": lambda x, dims: x.transpose(dims),
    "expand": lambda x, shape, implicit=False: np.broadcast_to(x, shape),
    "select": lambda x, dim, index: x.take(index, dim),
    "slice": _sliced,
    "sum": _reduced,
    "mean": _averaged,
    "cumsum": lambda x, dim, dtype=None: np.add.accumulate(x, dim),
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
}


def _scattered(x: Array, source: Array, dim: int, index: int) -> Array:
    out = np.moveaxis(x.copy(), dim, 0)
    out[index] = source
    return np.moveaxis(out, 0, dim)


def _slice_scattered(x: Array, source: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Array:
    out = x.copy()
    _sliced(out, dim, start, end, step)[...] = source
    return out


#: op -> which of its arguments are entries, and what NumPy does to the arrays of one part of them
JOINED: dict[str, tuple[tuple[int, ...], Callable[..., Array]]] = {
    "cat": ((0,), lambda parts, dim=0: np.concatenate([part for part in parts if part.shape != (0,)], dim)),
    "stack": ((0,), lambda parts, dim=0: np.stack(parts, dim)),
    "where": ((1, 2), np.where),
    "masked_fill": ((0, 2), lambda x, mask, value: np.where(mask, value, x)),
    "constant_pad_nd": ((0, 2), _padded),
    "select_scatter": ((0, 1), _scattered),
    "slice_scatter": ((0, 1), _slice_scattered),
}


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
    """A convolution over one axis: the sum over the taps of the kernel."""
    if transposed or x.ndim != 3:
        raise UnsupportedOpError("only convolutions over one axis are in the verifier's tables")
    (step,), (pad,), (spread,) = stride, padding, dilation
    x = _padded(x, [pad, pad])
    taps, length = weight.shape[2], (x.shape[2] - spread * (weight.shape[2] - 1) - 1) // step + 1
    ins, outs, pieces = x.shape[1] // groups, weight.shape[0] // groups, []
    for group in range(groups):
        inputs, kernel = x[:, group * ins : (group + 1) * ins], weight[group * outs : (group + 1) * outs]
        windows = [inputs[:, :, tap * spread : tap * spread + step * (length - 1) + 1 : step] for tap in range(taps)]
        pieces.append(
            sum((kernel[:, :, tap][None, :, :, None] * window[:, None]).sum(2) for tap, window in enumerate(windows))
        )
    return np.concatenate(pieces, 1)


# -- deciding ----------------------------------------------------------------------------------------------------------


def _certain(yes: Callable[[arb, arb], bool], no: Callable[[arb, arb], bool]) -> Callable[[Array, Array], Array]:
    def decide(x: arb, y: arb) -> arb:
        if not yes(x, y) and not no(x, y):
            raise EnclosureError("a comparison is open")
        return arb(1) if yes(x, y) else arb(0)

    return lambda a, b: np.asarray(np.frompyfunc(decide, 2, 1)(a, b), dtype=object)


COMPARISONS = {
    "lt": _certain(lambda x, y: x < y, lambda x, y: x >= y),
    "le": _certain(lambda x, y: x <= y, lambda x, y: x > y),
    "gt": _certain(lambda x, y: x > y, lambda x, y: x <= y),
    "ge": _certain(lambda x, y: x >= y, lambda x, y: x < y),
    "eq": _certain(lambda x, y: x == y, lambda x, y: x != y),
    "ne": _certain(lambda x, y: x != y, lambda x, y: x == y),
}


def toward_zero(x: Array) -> Array:
    """Entries without their fractional part, where it is certain what is left."""

    def decide(entry: arb) -> arb:
        whole = int(float(entry))
        if entry == whole or (entry > whole - (whole <= 0) and entry < whole + (whole >= 0)):
            return arb(whole)
        raise EnclosureError("the integer part of an entry is open")

    return np.asarray(np.frompyfunc(decide, 1, 1)(x), dtype=object)


def ranked(x: Array, count: int, dim: int, largest: bool) -> Array:
    """Indices of the first `count` entries along an axis by size, certainly in this order."""
    lines = np.moveaxis(x, dim, -1)
    out = np.empty((*lines.shape[:-1], count), dtype=np.int64)
    for place in np.ndindex(*out.shape[:-1]):
        line = lines[place] if largest else -lines[place]
        order = sorted(range(len(line)), key=lambda i: -float(line[i]))
        if any(not line[order[i]] > line[order[j]] for i in range(count) for j in range(i + 1, len(order))):
            raise EnclosureError("the order of two entries is open")
        out[place] = order[:count]
    return np.moveaxis(out, -1, dim)
