"""Ops that are read as several simpler ones, so that one rule a primitive is enough and roles show.

Norms in particular: their statistic (the inverse scale) is the only nonlinear factor, and it is what freezing the role
`norm` holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten

_TABLE: dict[Any, Callable[..., Any]] = {}


def decomposition(op: Any) -> Callable[..., Any] | None:
    """How an ATen overload is written in simpler ops, or `None` where it is simple itself."""
    return _TABLE.get(op) or _TABLE.get(op.overloadpacket)


def _decomposes(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register for ops (`"square"`, all overloads) or single overloads (`"masked_fill.Tensor"`)."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            packet, _, overload = name.partition(".")
            op = getattr(aten, packet, None)  # some are newer than the oldest torch that is supported
            if op is not None:
                _TABLE[getattr(op, overload) if overload else op] = function
        return function

    return register


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _standardised(x: Tensor, dims: list[int], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    rstd = torch.rsqrt((centred * centred).mean(dims, keepdim=True) + eps)
    return centred * rstd, mean, rstd


@_decomposes("native_layer_norm")
def _layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    normal, mean, rstd = _standardised(x, list(range(x.dim() - len(shape), x.dim())), eps)
    return _scaled(normal, weight, bias), mean, rstd


@_decomposes("_fused_rms_norm")
def _rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, eps: float | None) -> Any:
    dims = list(range(x.dim() - len(shape), x.dim()))
    rstd = torch.rsqrt((x * x).mean(dims, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps))
    return _scaled(x * rstd, weight, None), rstd


@_decomposes("native_group_norm")
def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, hw: int, groups: int, eps: float
) -> Any:
    normal, mean, rstd = _standardised(x.reshape(n, groups, -1), [2], eps)
    shape = [1, c] + [1] * (x.dim() - 2)
    w, b = (None if t is None else t.reshape(shape) for t in (weight, bias))
    return _scaled(normal.reshape(x.shape), w, b), mean.reshape(n, groups), rstd.reshape(n, groups)


@_decomposes("native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit")
def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Any:
    shape = [1, -1] + [1] * (x.dim() - 2)
    if training or mean is None:  # instance norm comes here as a batch of one channel each
        dims = [0, *range(2, x.dim())]
        normal, batch_mean, rstd = _standardised(x, dims, eps)
    else:
        rstd = torch.rsqrt(var + eps).reshape(shape)
        batch_mean = mean.reshape(shape)
        normal = (x - batch_mean) * rstd
    w, b = (None if t is None else t.reshape(shape) for t in (weight, bias))
    return _scaled(normal, w, b), batch_mean.reshape(-1), rstd.reshape(-1)


@_decomposes("_native_batch_norm_legit_no_training")
def _batch_norm_eval(x: Tensor, weight: Any, bias: Any, mean: Tensor, var: Tensor, momentum: float, eps: float) -> Any:
    return _batch_norm(x, weight, bias, mean, var, False, momentum, eps)


def _variance(x: Tensor, dim: Any, correction: Any, keepdim: bool) -> tuple[Tensor, Tensor]:
    dims = [d % x.dim() for d in dim] if dim else list(range(x.dim()))
    count = math.prod(x.shape[d] for d in dims)
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    variance = (centred * centred).sum(dims, keepdim=keepdim) / (count - (1 if correction is None else correction))
    return variance, mean if keepdim else x.mean(dims)


def _variance_arguments(args: tuple[Any, ...], correction: Any, unbiased: Any) -> tuple[Any, Any]:
    """`(dim, correction)` from the overloads `(unbiased)`, `(dim, unbiased)` and `(dim, *, correction)`."""
    if args and isinstance(args[0], bool):
        return None, int(args[0])
    if len(args) > 1:
        return args[0], int(args[1])
    if unbiased is not None:
        correction = int(unbiased)
    return (args[0] if args else None), correction


@_decomposes("var")
def _var(
    x: Tensor, *args: Any, correction: Any = None, unbiased: Any = None, keepdim: bool = False, dim: Any = None
) -> Tensor:
    dims, correction = _variance_arguments(args, correction, unbiased)
    return _variance(x, dims if dim is None else dim, correction, keepdim)[0]


@_decomposes("var_mean")
def _var_mean(
    x: Tensor, *args: Any, correction: Any = None, unbiased: Any = None, keepdim: bool = False, dim: Any = None
) -> Any:
    dims, correction = _variance_arguments(args, correction, unbiased)
    return _variance(x, dims if dim is None else dim, correction, keepdim)


@_decomposes("std")
def _std(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return torch.sqrt(_var(x, *args, **kwargs))


@_decomposes("std_mean")
def _std_mean(x: Tensor, *args: Any, **kwargs: Any) -> Any:
    variance, mean = _var_mean(x, *args, **kwargs)
    return torch.sqrt(variance), mean


@_decomposes("linalg_vector_norm")
def _vector_norm(x: Tensor, order: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    dims = list(range(x.dim())) if dim is None else dim
    if order == 2:
        return torch.sqrt((x * x).sum(dims, keepdim=keepdim))
    if order == 1:
        return x.abs().sum(dims, keepdim=keepdim)
    if math.isinf(order):
        return x.abs().amax(dims, keepdim=keepdim) if order > 0 else x.abs().amin(dims, keepdim=keepdim)
    return (x.abs() ** order).sum(dims, keepdim=keepdim) ** (1 / order)


@_decomposes("norm")
def _norm(x: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    return _vector_norm(x, 2 if p is None else float(p), dim, keepdim)


@_decomposes("glu")
def _glu(x: Tensor, dim: int = -1) -> Tensor:
    a, b = x.chunk(2, dim)
    return a * torch.sigmoid(b)


@_decomposes("_safe_softmax")
def _safe_softmax(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
    y = torch.softmax(x, dim)
    return torch.where((x == -math.inf).all(dim, keepdim=True), 0.0, y)


@_decomposes("_softmax")
def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Any:
    return NotImplemented if x.dim() else torch.ones_like(x)


@_decomposes("_log_softmax")
def _log_softmax(x: Tensor, dim: int, half_to_float: bool) -> Any:
    return NotImplemented if x.dim() else torch.zeros_like(x)


@_decomposes("logsumexp")
def _logsumexp(x: Tensor, dim: Any, keepdim: bool = False) -> Any:
    return NotImplemented if x.dim() else x.clone()


@_decomposes("addcmul")
def _addcmul(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x + value * (a * b)


@_decomposes("addcdiv")
def _addcdiv(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x + value * (a / b)


@_decomposes("lerp")
def _lerp(a: Tensor, b: Tensor, weight: Any) -> Tensor:
    return a + weight * (b - a)


@_decomposes("baddbmm")
def _baddbmm(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = torch.bmm(a, b)
    product = product if alpha == 1 else alpha * product
    return product if beta == 0 else product + (x if beta == 1 else beta * x)


@_decomposes("mv")
def _mv(a: Tensor, b: Tensor) -> Tensor:
    return torch.mm(a, b[:, None])[:, 0]


@_decomposes("addmv")
def _addmv(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * x + alpha * torch.mv(a, b)


@_decomposes("addr")
def _addr(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * x + alpha * torch.outer(a, b)


@_decomposes("addbmm")
def _addbmm(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return beta * x + alpha * torch.bmm(a, b).sum(0)


@_decomposes("dot", "vdot")
def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


@_decomposes("prod")
def _prod(x: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Pairwise, so that it takes log2(n) products and is right where entries vanish."""
    if dim is None:
        x, dim = x.reshape(-1), 0
    while x.shape[dim] > 1:
        half = x.shape[dim] // 2
        product = x.narrow(dim, 0, half) * x.narrow(dim, half, half)
        x = product if x.shape[dim] % 2 == 0 else torch.cat([product, x.narrow(dim, 2 * half, 1)], dim)
    return x if keepdim else x.squeeze(dim)


def _scan(join: Callable[[Tensor, Tensor], Tensor], x: Tensor, dim: int) -> Tensor:
    """Running totals of an associative op, by joining neighbours at distance 1, 2, 4, ..."""
    width, length = 1, x.shape[dim] if x.dim() else 1
    while width < length:
        joined = join(x.narrow(dim, 0, length - width), x.narrow(dim, width, length - width))
        x = torch.cat([x.narrow(dim, 0, width), joined], dim)
        width *= 2
    return x


@_decomposes("cumprod")
def _cumprod(x: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    return _scan(torch.mul, x, dim)


@_decomposes("logcumsumexp")
def _logcumsumexp(x: Tensor, dim: int) -> Tensor:
    return _scan(torch.logaddexp, x, dim)


@_decomposes("_linalg_check_errors")
def _linalg_check_errors(info: Tensor, name: str, *, is_matrix: bool) -> None:
    """Whether a matrix is singular is seen in the values."""


@_decomposes("linalg_cross")
def _cross(a: Tensor, b: Tensor, *, dim: int = -1) -> Tensor:
    a, b = torch.broadcast_tensors(a, b)
    return a.roll(-1, dim) * b.roll(-2, dim) - a.roll(-2, dim) * b.roll(-1, dim)


@_decomposes("_trilinear")
def _trilinear(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    expand_a: Sequence[int],
    expand_b: Sequence[int],
    expand_c: Sequence[int],
    total: Sequence[int],
    unroll: int = 1,
) -> Tensor:
    for axis in expand_a:
        a = a.unsqueeze(axis)
    for axis in expand_b:
        b = b.unsqueeze(axis)
    for axis in expand_c:
        c = c.unsqueeze(axis)
    return (a * b * c).sum(list(total))


@_decomposes("hypot")
def _hypot(a: Tensor, b: Tensor) -> Tensor:
    return torch.sqrt(a * a + b * b)


@_decomposes("atan2")
def _atan2(a: Tensor, b: Tensor) -> Tensor:
    """An arc tangent of the smaller over the larger entry, and a multiple of a quarter turn."""
    wide = b.abs() >= a.abs()
    angle = torch.where(wide, torch.atan(a / b), -torch.atan(b / a))
    half_turn = math.pi * (1 - 2 * (a < 0).to(angle.dtype))
    return angle + torch.where(wide, torch.where(b < 0, half_turn, 0.0), half_turn / 2)


@_decomposes("logaddexp")
def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    return torch.logsumexp(torch.stack(torch.broadcast_tensors(a, b)), 0)


@_decomposes("xlogy")
def _xlogy(a: Any, b: Any) -> Tensor:
    logarithm = b.log() if isinstance(b, Tensor) else math.log(b)
    return torch.where(torch.as_tensor(a) == 0, 0.0, a * logarithm)


@_decomposes("logit")
def _logit(x: Tensor, eps: float | None = None) -> Tensor:
    x = x if eps is None else x.clamp(eps, 1 - eps)
    return torch.log(x / (1 - x))


@_decomposes("maximum", "fmax")
def _maximum(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a < b, b, a)


@_decomposes("minimum", "fmin")
def _minimum(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b < a, b, a)


@_decomposes("clamp.Tensor", "clamp_min.Tensor")
def _clamp_tensor(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


@_decomposes("clamp_max.Tensor")
def _clamp_max_tensor(x: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(x, high)


@_decomposes("masked_fill.Tensor")
def _masked_fill(x: Tensor, mask: Tensor, value: Tensor) -> Tensor:
    return torch.where(mask, value, x)


@_decomposes("fill.Scalar")
def _fill(x: Tensor, value: float) -> Tensor:
    return torch.full_like(x, value)


@_decomposes("fill.Tensor")
def _fill_tensor(x: Tensor, value: Tensor) -> Tensor:
    return value.to(x.dtype).expand(x.shape)


@_decomposes("zero")
def _zero(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


@_decomposes("copy")
def _copy(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    return source.to(x.dtype).expand(x.shape)


@_decomposes("masked_scatter")
def _masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    x, mask = torch.broadcast_tensors(x, mask)
    return x.index_put((mask,), source.reshape(-1)[: int(mask.sum())])


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _positions(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Masks as the positions where they hold; one that moves with the input cannot be traced: its count is open."""
    spread = [index.nonzero().unbind(1) if _is_mask(index) else (index,) for index in indices]
    return [index for group in spread for index in group]


@_decomposes("index")
def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Any:
    return aten.index.Tensor(x, _positions(indices)) if any(map(_is_mask, indices)) else NotImplemented


@_decomposes("_unsafe_index")
def _unsafe_index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    return aten.index.Tensor(x, indices)


@_decomposes("index_put")
def _index_put(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False) -> Any:
    """`x[mask] = value` is a choice at each entry, where the mask may move with the input."""
    if not any(map(_is_mask, indices)):
        return NotImplemented
    mask, *others = indices
    values = values.reshape(()) if values.numel() == 1 else values
    if others or mask is None or values.dim() > x.dim() - mask.dim():
        return aten.index_put.default(x, _positions(indices), values, accumulate)
    mask = mask.reshape(*mask.shape, *(1,) * (x.dim() - mask.dim()))
    return torch.where(mask.to(torch.bool), x + values if accumulate else values, x)


@_decomposes("masked_select")
def _masked_select(x: Tensor, mask: Tensor) -> Tensor:
    x, mask = torch.broadcast_tensors(x, mask)
    return x[mask]


@_decomposes("take")
def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.reshape(-1)[index]


@_decomposes("as_strided")
def _as_strided(x: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None = None) -> Tensor:
    """A gather of the entries that the strides meet, because coefficients need not lie in memory as the value did."""
    offset = x.storage_offset() if offset is None else offset
    memory = torch.arange(x.untyped_storage().nbytes() // x.element_size(), device=x.device)
    entry = torch.full_like(memory, -1)
    entry[memory.as_strided(x.shape, x.stride(), x.storage_offset())] = torch.arange(
        x.numel(), device=x.device
    ).reshape(x.shape)
    index = entry[memory.as_strided(size, stride, offset)]
    if (index < 0).any():
        raise IndexError("as_strided reaches outside of the tensor that it is called on")
    return x.reshape(-1)[index]


@_decomposes("kthvalue")
def _kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    values, indices = (part.narrow(dim, k - 1, 1) for part in x.sort(dim=dim, stable=True))
    return (values, indices) if keepdim else (values.squeeze(dim), indices.squeeze(dim))


@_decomposes("median.dim")
def _median(x: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    return _kthvalue(x, (x.shape[dim] + 1) // 2, dim, keepdim)


@_decomposes("median.default")
def _median_of_all(x: Tensor) -> Tensor:
    return _median(x.reshape(-1))[0]


@_decomposes("aminmax")
def _aminmax(x: Tensor, *, dim: int | None = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    dims = [] if dim is None else [dim]
    return x.amin(dims, keepdim), x.amax(dims, keepdim)


@_decomposes("nan_to_num")
def _nan_to_num(
    x: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    limits = torch.finfo(x.dtype)
    x = torch.where(x.isnan(), 0.0 if nan is None else nan, x)
    x = torch.where(x == math.inf, limits.max if posinf is None else posinf, x)
    return torch.where(x == -math.inf, limits.min if neginf is None else neginf, x)


@_decomposes("remainder")
def _remainder(a: Any, b: Any) -> Tensor:
    return a - b * torch.floor(a / b)


@_decomposes("fmod")
def _fmod(a: Tensor, b: Any) -> Tensor:
    return a - b * torch.trunc(a / b)


@_decomposes("frac")
def _frac(x: Tensor) -> Tensor:
    return x - torch.trunc(x)


@_decomposes("_cdist_forward")
def _cdist(a: Tensor, b: Tensor, p: float, mode: int | None) -> Tensor:
    return torch.linalg.vector_norm(a.unsqueeze(-2) - b.unsqueeze(-3), p, -1)


@_decomposes("_prelu_kernel")
def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    return torch.where(x > 0, x, weight * x)


@_decomposes("threshold")
def _threshold(x: Tensor, threshold: float, value: float) -> Tensor:
    return torch.where(x > threshold, x, value)


@_decomposes("hardshrink")
def _hardshrink(x: Tensor, width: float = 0.5) -> Tensor:
    return torch.where(x.abs() > width, x, 0.0)


@_decomposes("softshrink")
def _softshrink(x: Tensor, width: float = 0.5) -> Tensor:
    return torch.where(x > width, x - width, torch.where(x < -width, x + width, 0.0))


@_decomposes("hardtanh")
def _hardtanh(x: Tensor, low: float = -1, high: float = 1) -> Tensor:
    return x.clamp(low, high)


@_decomposes("relu6")
def _relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


@_decomposes("square")
def _square(x: Tensor) -> Tensor:
    return x * x


def _pieces(x: Tensor, sizes: Sequence[int], dim: int) -> tuple[Tensor, ...]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return tuple(x.narrow(dim, start, length) for start, length in zip(starts, sizes, strict=True))


@_decomposes("split", "unsafe_split", "split_copy")
def _split_equal(x: Tensor, size: int, dim: int = 0) -> tuple[Tensor, ...]:
    total = x.shape[dim]
    return _pieces(x, [min(size, total - start) for start in range(0, total, size)], dim)


@_decomposes("split_with_sizes", "unsafe_split_with_sizes", "split_with_sizes_copy")
def _split_sizes(x: Tensor, sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    return _pieces(x, list(sizes), dim)


@_decomposes("unbind", "unbind_copy")
def _unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    return tuple(x.select(dim, i) for i in range(x.shape[dim]))


@_decomposes("hardswish")
def _hardswish(x: Tensor) -> Tensor:
    return x * ((x + 3).clamp(0, 6) / 6)


@_decomposes("hardsigmoid")
def _hardsigmoid(x: Tensor) -> Tensor:
    return (x + 3).clamp(0, 6) / 6


@_decomposes("mish")
def _mish(x: Tensor) -> Tensor:
    return x * torch.tanh(torch.nn.functional.softplus(x))


@_decomposes("exp2")
def _exp2(x: Tensor) -> Tensor:
    return torch.exp(x * math.log(2))


@_decomposes("log2")
def _log2(x: Tensor) -> Tensor:
    return torch.log(x) / math.log(2)


@_decomposes("log10")
def _log10(x: Tensor) -> Tensor:
    return torch.log(x) / math.log(10)


# copies of views are views here, where nothing is written to
for _name in ("as_strided", "diagonal", "select", "slice", "unfold"):
    _TABLE[getattr(aten, f"{_name}_copy")] = getattr(aten, _name)
_TABLE[aten.narrow_copy] = torch.narrow
