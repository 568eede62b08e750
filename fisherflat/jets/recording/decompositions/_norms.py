"""Norms, variances and distances.

The statistic of a norm (its inverse scale) is its only nonlinear factor, and it is what freezing the role `norm` holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.recording.decompositions._table import decomposes


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _standardised(x: Tensor, dims: list[int], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    rstd = torch.rsqrt((centred * centred).mean(dims, keepdim=True) + eps)
    return centred * rstd, mean, rstd


@decomposes("native_layer_norm")
def _layer_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    normal, mean, rstd = _standardised(x, list(range(x.dim() - len(shape), x.dim())), eps)
    return _scaled(normal, weight, bias), mean, rstd


@decomposes("_fused_rms_norm")
def _rms_norm(x: Tensor, shape: Sequence[int], weight: Tensor | None, eps: float | None) -> Any:
    dims = list(range(x.dim() - len(shape), x.dim()))
    rstd = torch.rsqrt((x * x).mean(dims, keepdim=True) + (torch.finfo(x.dtype).eps if eps is None else eps))
    return _scaled(x * rstd, weight, None), rstd


@decomposes("native_group_norm")
def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, hw: int, groups: int, eps: float
) -> Any:
    normal, mean, rstd = _standardised(x.reshape(n, groups, -1), [2], eps)
    shape = [1, c] + [1] * (x.dim() - 2)
    w, b = (None if t is None else t.reshape(shape) for t in (weight, bias))
    return _scaled(normal.reshape(x.shape), w, b), mean.reshape(n, groups), rstd.reshape(n, groups)


def _batch(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, eps: float) -> tuple[Tensor, ...]:
    """The output of a batch norm, and the mean and inverse scale of the batch where it reads them off the batch."""
    shape = [1, -1] + [1] * (x.dim() - 2)
    if training or mean is None:  # instance norm comes here as a batch of one channel each
        normal, mean, rstd = _standardised(x, [0, *range(2, x.dim())], eps)
        statistics = mean.reshape(-1), rstd.reshape(-1)
    else:
        normal = (x - mean.reshape(shape)) * torch.rsqrt(var + eps).reshape(shape)
        statistics = x.new_zeros(0), x.new_zeros(0)
    w, b = (None if t is None else t.reshape(shape) for t in (weight, bias))
    return _scaled(normal, w, b), *statistics


@decomposes("native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit.default")
def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Any:
    return _batch(x, weight, bias, mean, var, training, eps)


@decomposes("_native_batch_norm_legit.no_stats")
def _batch_norm_without(x: Tensor, weight: Any, bias: Any, training: bool, momentum: float, eps: float) -> Any:
    return _batch(x, weight, bias, None, None, True, eps)


@decomposes("_native_batch_norm_legit_no_training")
def _batch_norm_eval(x: Tensor, weight: Any, bias: Any, mean: Tensor, var: Tensor, momentum: float, eps: float) -> Any:
    return _batch(x, weight, bias, mean, var, False, eps)


@decomposes("_batch_norm_no_update")
def _batch_norm_read(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float) -> Any:
    return (*_batch(x, weight, bias, mean, var, False, eps), x.new_zeros(0, dtype=torch.uint8))


@decomposes("_native_batch_norm_legit_functional")
def _batch_norm_functional(
    x: Tensor, weight: Any, bias: Any, mean: Tensor, var: Tensor, training: bool, momentum: float, eps: float
) -> Any:
    """With the running statistics as they are afterwards."""
    updated = _updated(x, mean, var, momentum) if training else (mean.clone(), var.clone())
    return (*_batch(x, weight, bias, mean, var, training, eps), *updated)


@decomposes("_batch_norm_with_update_functional")
def _batch_norm_update(
    x: Tensor, weight: Any, bias: Any, mean: Tensor, var: Tensor, momentum: float, eps: float
) -> Any:
    reserve = x.new_zeros(0, dtype=torch.uint8)
    return (*_batch(x, weight, bias, mean, var, True, eps), reserve, *_updated(x, mean, var, momentum))


def _updated(x: Tensor, mean: Tensor, var: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    variance, centre = _variance(x, [0, *range(2, x.dim())], 1, False)
    return mean + momentum * (centre - mean), var + momentum * (variance - var)


def _variance(x: Tensor, dim: Any, correction: Any, keepdim: bool) -> tuple[Tensor, Tensor]:
    dims = [d % max(x.dim(), 1) for d in dim] if dim else list(range(x.dim()))
    count = math.prod(x.shape[d] for d in dims) if x.dim() else 1
    mean = x.mean(dims, keepdim=True)
    centred = (x - mean).abs() if x.is_complex() else x - mean
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


@decomposes("var")
def _var(
    x: Tensor, *args: Any, correction: Any = None, unbiased: Any = None, keepdim: bool = False, dim: Any = None
) -> Tensor:
    dims, correction = _variance_arguments(args, correction, unbiased)
    return _variance(x, dims if dim is None else dim, correction, keepdim)[0]


@decomposes("var_mean")
def _var_mean(
    x: Tensor, *args: Any, correction: Any = None, unbiased: Any = None, keepdim: bool = False, dim: Any = None
) -> Any:
    dims, correction = _variance_arguments(args, correction, unbiased)
    return _variance(x, dims if dim is None else dim, correction, keepdim)


@decomposes("std")
def _std(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return torch.sqrt(_var(x, *args, **kwargs))


@decomposes("std_mean")
def _std_mean(x: Tensor, *args: Any, **kwargs: Any) -> Any:
    variance, mean = _var_mean(x, *args, **kwargs)
    return torch.sqrt(variance), mean


@decomposes("linalg_vector_norm")
def _vector_norm(x: Tensor, order: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    x = x.abs() if x.is_complex() else x
    dims = list(range(x.dim())) if dim is None else dim
    if order == 2:
        return torch.sqrt((x * x).sum(dims, keepdim=keepdim))
    if order == 1:
        return x.abs().sum(dims, keepdim=keepdim)
    if order == 0:
        return (x != 0).to(x.dtype).sum(dims, keepdim=keepdim)
    if math.isinf(order):
        return x.abs().amax(dims, keepdim=keepdim) if order > 0 else x.abs().amin(dims, keepdim=keepdim)
    return (x.abs() ** order).sum(dims, keepdim=keepdim) ** (1 / order)


@decomposes("norm")
def _norm(x: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    return _vector_norm(x, 2 if p is None else float(p), dim, keepdim)


@decomposes("_cdist_forward")
def _cdist(a: Tensor, b: Tensor, p: float, mode: int | None) -> Tensor:
    return torch.linalg.vector_norm(a.unsqueeze(-2) - b.unsqueeze(-3), p, -1)


@decomposes("dist")
def _dist(a: Tensor, b: Tensor, p: float = 2) -> Tensor:
    return _vector_norm(a - b, float(p))


@decomposes("_pdist_forward")
def _pdist(x: Tensor, p: float = 2) -> Tensor:
    rows, columns = torch.triu_indices(len(x), len(x), 1, device=x.device)
    return torch.linalg.vector_norm(x[rows] - x[columns], p, -1)


@decomposes("renorm")
def _renorm(x: Tensor, p: float, dim: int, most: float) -> Tensor:
    """Slices longer than `most` are cut to it."""
    dims = [d for d in range(x.dim()) if d != dim % x.dim()]
    return _shortened(x, _vector_norm(x, float(p), dims, True), most)


def _shortened(x: Tensor, length: Tensor, most: float) -> Tensor:
    return torch.where(length > most, x * (most / (length + 1e-7)), x)


@decomposes("embedding_renorm")
def _embedding_renorm(weight: Tensor, indices: Tensor, most: float, p: float) -> Tensor:
    used = torch.zeros(len(weight), 1, dtype=torch.bool, device=weight.device)
    used[indices.reshape(-1)] = True
    return torch.where(used, _shortened(weight, _vector_norm(weight, float(p), [1], True), most), weight)
