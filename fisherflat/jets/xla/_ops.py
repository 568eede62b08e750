"""What ATen ops compute, in jax: functions of arrays and of the op's further arguments.

What they return is cast to the dtype that torch gave. Ops whose name ends in an underscore, or that are called with
`out=`, are these followed by a write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fisherflat.jets.xla._pieces import Pieces, apart, each, whole

# -- ops that act on each entry or each row ----------------------------------------------------------------------------


def _entries(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: each(function, *args)


def _scaled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A sum or difference, with torch's factor of the second term."""

    def op(a: Any, b: Any, *, alpha: Any = 1) -> Any:
        return each(function, a, b if alpha == 1 else each(lambda x: x * alpha, b))

    return op


def _div(a: Any, b: Any, *, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return each(jnp.floor_divide, a, b)
    out = each(jnp.true_divide, a, b)
    return each(jnp.trunc, out) if rounding_mode == "trunc" else out


def _addcmul(x: Any, a: Any, b: Any, *, value: Any = 1) -> Any:
    return each(lambda x, a, b: x + (a * b if value == 1 else value * (a * b)), x, a, b)


def _sigmoid(x: Any) -> Any:
    """Written so that one exponential serves for x and -x: rules take both, and XLA finds the minima to be the same."""
    e = jnp.exp(jnp.minimum(x, -x))
    return jnp.where(x >= 0, 1, e) / (1 + e)


def _clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    x = x if low is None else each(jnp.maximum, x, low)
    return x if high is None else each(jnp.minimum, x, high)


def _nan_to_num(x: Any, nan: Any = None, high: Any = None, low: Any = None) -> Any:
    return each(lambda x: jnp.nan_to_num(x, nan=nan or 0.0, posinf=high, neginf=low), x)


def _along(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction of axes, in rows of the first one where that one stays."""

    def op(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        rank = x.ndim
        dims = range(rank) if dim is None or dim == [] else dim if isinstance(dim, (list, tuple)) else [dim]
        axes = tuple(d % max(rank, 1) for d in dims) if rank else ()

        def reduced(x: Any) -> Any:
            return function(x, axis=axes, keepdims=keepdim)

        return each(reduced, x) if axes and 0 not in axes else reduced(whole(x))

    return op


def _place_of(extreme: Callable[..., Any]) -> Callable[..., Any]:
    """The first place of an extreme entry: in two plain reductions, which XLA vectorises, and not in one of pairs."""

    def op(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
        x = whole(x)
        if dim is None:
            return op(x.reshape(-1), 0).reshape((1,) * x.ndim if keepdim else ())
        if not x.ndim:
            return jnp.zeros((), jnp.int64)
        axis = dim % x.ndim
        found = (x == extreme(x, axis=axis, keepdims=True)) | jnp.isnan(x)
        places = lax.broadcasted_iota(jnp.int32, x.shape, axis)
        return jnp.where(found, places, x.shape[axis] - 1).min(axis, keepdims=keepdim)

    return op


def _on_axis(function: Callable[..., Any]) -> Callable[..., Any]:
    """What maps rows along one axis."""

    def op(x: Any, dim: int, *_: Any, dtype: Any = None) -> Any:
        if not x.ndim:
            return function(whole(x)[None], axis=0)[0]
        axis = dim % x.ndim
        return each(lambda x: function(x, axis=axis), x) if axis else function(whole(x), axis=axis)

    return op


def _gather(x: Any, dim: int, index: Any, *, sparse_grad: bool = False) -> Any:
    axis = dim % max(x.ndim, 1)
    if axis and x.shape[0] == index.shape[0]:
        return each(lambda x, index: jnp.take_along_axis(_cut(x, index, axis), index, axis), x, index)
    x, index = whole(x), whole(index)
    return jnp.take_along_axis(_cut(x, index, axis), index, axis)


def _cut(x: Any, index: Any, axis: int) -> Any:
    """As much of the other axes as there are indices for."""
    return x[tuple(slice(None) if i == axis else slice(size) for i, size in enumerate(index.shape))]


# -- products of matrices ----------------------------------------------------------------------------------------------


def _product(a: Any, b: Any) -> Any:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)  # not TF32, on a GPU


def _matmul(a: Any, b: Any) -> Any:
    """A product; rows that are pieces are multiplied piece by piece."""
    if isinstance(a, Pieces) and b.ndim == 2:
        b = whole(b)
        return each(lambda a: _product(a, b), a)
    batched = min(a.ndim, b.ndim) > 2 and a.shape[0] == b.shape[0]
    if batched and any(isinstance(x, Pieces) for x in (a, b)):
        count = max(len(x.parts) for x in (a, b) if isinstance(x, Pieces))
        return Pieces(tuple(_product(*pair) for pair in zip(apart(a, count), apart(b, count), strict=True)))
    return _product(whole(a), whole(b))


def _added(x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    product = _matmul(a, b)
    product = product if alpha == 1 else each(lambda p: p * alpha, product)
    if beta == 0:
        return product
    return each(lambda x, p: (x if beta == 1 else x * beta) + p, x, product)


def _convolution(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, _: Any, groups: int
) -> Any:
    if transposed:
        raise NotImplementedError("a transposed convolution")
    out = lax.conv_general_dilated(
        whole(x), whole(weight), stride, [(size, size) for size in padding], rhs_dilation=dilation,
        feature_group_count=groups, precision=lax.Precision.HIGHEST,
    )  # fmt: skip
    return out if bias is None else out + whole(bias).reshape(-1, *(1,) * (out.ndim - 2))


def _solve_triangular(a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Any:
    a, b = whole(a), whole(b)
    lead = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (jnp.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (a, b))
    return lax.linalg.triangular_solve(a, b, left_side=left, lower=not upper, unit_diagonal=unitriangular)


# -- ops that move entries ---------------------------------------------------------------------------------------------


def _pad(x: Any, pad: Sequence[int], value: Any = 0) -> Any:
    x = whole(x)
    widths = [(0, 0)] * (x.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    return lax.pad(x, jnp.asarray(value, x.dtype), [(low, high, 0) for low, high in widths])


def _cat(parts: Sequence[Any], dim: int = 0) -> Any:
    parts = [whole(part) for part in parts if part.shape != (0,)]
    return jnp.concatenate(parts, dim)


def _stack(parts: Sequence[Any], dim: int = 0) -> Any:
    return jnp.stack([whole(part) for part in parts], dim)


def _triangle(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, diagonal=0: function(whole(x), diagonal)


def _index(x: Any, indices: Sequence[Any]) -> Any:
    return whole(x)[tuple(slice(None) if index is None else whole(index) for index in indices)]


def _index_select(x: Any, dim: int, index: Any) -> Any:
    return jnp.take(whole(x), whole(index), axis=dim)


def _embedding(weight: Any, index: Any, *_: Any) -> Any:
    return whole(weight)[whole(index)]


def _diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return jnp.diagonal(whole(x), offset, dim1, dim2)


def _repeat(x: Any, repeats: Sequence[int]) -> Any:
    return jnp.tile(whole(x), repeats)


def _index_add(x: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    x = whole(x)
    return x.at[(slice(None),) * (dim % x.ndim) + (whole(index),)].add(whole(source) * alpha)


def _index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    at = whole(x).at[tuple(slice(None) if index is None else whole(index) for index in indices)]
    return at.add(whole(values)) if accumulate else at.set(whole(values))


def _scattered(x: Any, dim: int, index: Any) -> Any:
    """Where entries go that are scattered along an axis."""
    places = list(jnp.indices(index.shape, sparse=True))
    places[dim % x.ndim] = index
    return x.at[tuple(places)]


def _scatter(x: Any, dim: int, index: Any, source: Any) -> Any:
    x, index, source = whole(x), whole(index), whole(source)
    values = source[tuple(slice(size) for size in index.shape)] if getattr(source, "ndim", 0) else source
    return _scattered(x, dim, index).set(values)


def _scatter_add(x: Any, dim: int, index: Any, source: Any) -> Any:
    x, index, source = whole(x), whole(index), whole(source)
    return _scattered(x, dim, index).add(source[tuple(slice(size) for size in index.shape)])


def _sort(x: Any, dim: int = -1, descending: bool = False, *, stable: bool = True) -> tuple[Any, Any]:
    x = whole(x)
    order = jnp.argsort(x, axis=dim, stable=True, descending=descending)
    return jnp.take_along_axis(x, order, dim), order


def _topk(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Any, Any]:
    values, order = _sort(x, dim, largest)
    return lax.slice_in_dim(values, 0, k, axis=dim), lax.slice_in_dim(order, 0, k, axis=dim)


def _copied(x: Any, *_: Any, **__: Any) -> Any:
    return x


_SAME_NAME = (
    "abs acos acosh asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor ceil copysign cos cosh "
    "exp exp2 expm1 floor isfinite isinf isnan log log10 log1p log2 logical_and logical_not logical_or logical_xor "
    "maximum minimum reciprocal remainder round sign signbit sin sinc sinh sqrt square tan tanh trunc where"
)
_OTHER_NAME = {
    "eq": "equal", "ge": "greater_equal", "gt": "greater", "le": "less_equal", "lt": "less", "mul": "multiply",
    "ne": "not_equal", "neg": "negative", "pow": "power",
}  # fmt: skip
#: op -> function of arrays and the op's further arguments
OPS: dict[str, Callable[..., Any]] = {
    **{name: _entries(getattr(jnp, name)) for name in _SAME_NAME.split()},
    **{name: _entries(getattr(jnp, other)) for name, other in _OTHER_NAME.items()},
    "add": _scaled(jnp.add),
    "sub": _scaled(jnp.subtract),
    "rsub": lambda a, b, *, alpha=1: _scaled(jnp.subtract)(b, a, alpha=alpha),
    "addcmul": _addcmul,
    "addmm": _added,
    "baddbmm": _added,
    "bmm": _matmul,
    "matmul": _matmul,
    "mm": _matmul,
    "mv": _matmul,
    "dot": _matmul,
    "all": _along(jnp.all),
    "amax": _along(jnp.max),
    "amin": _along(jnp.min),
    "any": _along(jnp.any),
    "mean": _along(jnp.mean),
    "prod": _along(jnp.prod),
    "sum": _along(jnp.sum),
    "argmax": _place_of(jnp.max),
    "argmin": _place_of(jnp.min),
    "_log_softmax": _on_axis(jax.nn.log_softmax),
    "_softmax": _on_axis(jax.nn.softmax),
    "convolution": _convolution,
    "cumprod": _on_axis(jnp.cumprod),
    "cumsum": _on_axis(jnp.cumsum),
    "_to_copy": _copied,
    "clone": _copied,
    "lift_fresh_copy": _copied,
    "clamp": _clamp,
    "clamp_max": lambda x, high: _clamp(x, None, high),
    "clamp_min": _clamp,
    "digamma": _entries(jax.scipy.special.digamma),
    "div": _div,
    "erf": _entries(jax.scipy.special.erf),
    "erfc": _entries(jax.scipy.special.erfc),
    "erfinv": _entries(jax.scipy.special.erfinv),
    "floor_divide": _entries(jnp.floor_divide),
    "lgamma": _entries(jax.scipy.special.gammaln),
    "linalg_solve_triangular": _solve_triangular,
    "masked_fill": lambda x, mask, value: each(lambda x, mask, value: jnp.where(mask, value, x), x, mask, value),
    "nan_to_num": _nan_to_num,
    "relu": _entries(lambda x: jnp.maximum(x, 0)),
    "rsqrt": _entries(lax.rsqrt),
    "sigmoid": _entries(_sigmoid),
    "special_zeta": _entries(jax.scipy.special.zeta),
    "cat": _cat,
    "constant_pad_nd": _pad,
    "diagonal": _diagonal,
    "embedding": _embedding,
    "flip": lambda x, dims: jnp.flip(whole(x), tuple(dims)),
    "gather": _gather,
    "index": _index,
    "index_add": _index_add,
    "index_put": _index_put,
    "index_select": _index_select,
    "repeat": _repeat,
    "roll": lambda x, shifts, dims=(): jnp.roll(whole(x), tuple(shifts), tuple(dims) or None),
    "scatter": _scatter,
    "scatter_add": _scatter_add,
    "sort": _sort,
    "stack": _stack,
    "topk": _topk,
    "tril": _triangle(jnp.tril),
    "triu": _triangle(jnp.triu),
}
