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


@decomposes("native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit")
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


@decomposes("_native_batch_norm_legit_no_training")
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
    dims = list(range(x.dim())) if dim is None else dim
    if order == 2:
        return torch.sqrt((x * x).sum(dims, keepdim=keepdim))
    if order == 1:
        return x.abs().sum(dims, keepdim=keepdim)
    if math.isinf(order):
        return x.abs().amax(dims, keepdim=keepdim) if order > 0 else x.abs().amin(dims, keepdim=keepdim)
    return (x.abs() ** order).sum(dims, keepdim=keepdim) ** (1 / order)


@decomposes("norm")
def _norm(x: Tensor, p: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    return _vector_norm(x, 2 if p is None else float(p), dim, keepdim)


@decomposes("_cdist_forward")
def _cdist(a: Tensor, b: Tensor, p: float, mode: int | None) -> Tensor:
    return torch.linalg.vector_norm(a.unsqueeze(-2) - b.unsqueeze(-3), p, -1)
