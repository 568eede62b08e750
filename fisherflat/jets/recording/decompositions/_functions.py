"""Functions of one or two entries, and normalised exponentials in their corner cases."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.recording.decompositions._numbers import one, pi
from fisherflat.jets.recording.decompositions._table import decomposes

aten = torch.ops.aten


@decomposes("glu")
def _glu(x: Tensor, dim: int = -1) -> Tensor:
    a, b = x.chunk(2, dim)
    return a * torch.sigmoid(b)


@decomposes("_safe_softmax")
def _safe_softmax(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
    y = torch.softmax(x, dim)
    return torch.where((x == -math.inf).all(dim, keepdim=True), 0.0, y)


@decomposes("_softmax")
def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Any:
    return NotImplemented if x.dim() else torch.ones_like(x)


@decomposes("_log_softmax")
def _log_softmax(x: Tensor, dim: int, half_to_float: bool) -> Any:
    return NotImplemented if x.dim() else torch.zeros_like(x)


@decomposes("logsumexp")
def _logsumexp(x: Tensor, dim: Any, keepdim: bool = False) -> Any:
    return NotImplemented if x.dim() else x.clone()


@decomposes("hypot")
def _hypot(a: Tensor, b: Tensor) -> Tensor:
    return torch.sqrt(a * a + b * b)


@decomposes("atan2")
def _atan2(a: Tensor, b: Tensor) -> Tensor:
    """An arc tangent of the smaller over the larger entry, and a multiple of a quarter turn."""
    wide = b.abs() >= a.abs()
    angle = torch.where(wide, torch.atan(a / b), -torch.atan(b / a))
    half_turn = pi(a) * (1 - 2 * (a < 0).to(angle.dtype))
    return angle + torch.where(wide, torch.where(b < 0, half_turn, 0.0), half_turn / 2)


@decomposes("logaddexp")
def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    return torch.logsumexp(torch.stack(torch.broadcast_tensors(a, b)), 0)


@decomposes("xlogy")
def _xlogy(a: Any, b: Any) -> Tensor:
    return _weighted(a, torch.log(b if isinstance(b, Tensor) else b * one(a)))


@decomposes("logit")
def _logit(x: Tensor, eps: float | None = None) -> Tensor:
    x = x if eps is None else x.clamp(eps, 1 - eps)
    return torch.log(x / (1 - x))


@decomposes("maximum", "fmax")
def _maximum(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(a < b, b, a)


@decomposes("minimum", "fmin")
def _minimum(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b < a, b, a)


@decomposes("clamp.Tensor", "clamp_min.Tensor")
def _clamp_tensor(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


@decomposes("clamp_max.Tensor")
def _clamp_max_tensor(x: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(x, high)


@decomposes("nan_to_num")
def _nan_to_num(
    x: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    limits = torch.finfo(x.dtype)
    x = torch.where(x.isnan(), 0.0 if nan is None else nan, x)
    x = torch.where(x == math.inf, limits.max if posinf is None else posinf, x)
    return torch.where(x == -math.inf, limits.min if neginf is None else neginf, x)


@decomposes("remainder")
def _remainder(a: Any, b: Any) -> Tensor:
    return a - b * torch.floor(a / b)


@decomposes("fmod")
def _fmod(a: Tensor, b: Any) -> Tensor:
    return a - b * torch.trunc(a / b)


@decomposes("frac")
def _frac(x: Tensor) -> Tensor:
    return x - torch.trunc(x)


@decomposes("_prelu_kernel")
def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    return torch.where(x > 0, x, weight * x)


@decomposes("threshold")
def _threshold(x: Tensor, threshold: float, value: float) -> Tensor:
    return torch.where(x > threshold, x, value)


@decomposes("hardshrink")
def _hardshrink(x: Tensor, width: float = 0.5) -> Tensor:
    return torch.where(x.abs() > width, x, 0.0)


@decomposes("softshrink")
def _softshrink(x: Tensor, width: float = 0.5) -> Tensor:
    return torch.where(x > width, x - width, torch.where(x < -width, x + width, 0.0))


@decomposes("hardtanh")
def _hardtanh(x: Tensor, low: float = -1, high: float = 1) -> Tensor:
    return x.clamp(low, high)


@decomposes("relu6")
def _relu6(x: Tensor) -> Tensor:
    return x.clamp(0, 6)


@decomposes("square")
def _square(x: Tensor) -> Tensor:
    return x * x


@decomposes("hardswish")
def _hardswish(x: Tensor) -> Tensor:
    return x * ((x + 3).clamp(0, 6) / 6)


@decomposes("hardsigmoid")
def _hardsigmoid(x: Tensor) -> Tensor:
    return (x + 3).clamp(0, 6) / 6


@decomposes("selu")
def _selu(x: Tensor) -> Tensor:
    return aten.elu(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


@decomposes("copysign")
def _copysign(a: Tensor, b: Any) -> Tensor:
    """The sign of zero counts."""
    negative = torch.signbit(torch.as_tensor(b, device=a.device))
    return torch.where(torch.signbit(a) == negative, a, -a)


@decomposes("xlog1py")
def _xlog1py(a: Any, b: Any) -> Tensor:
    return _weighted(a, torch.log1p(b if isinstance(b, Tensor) else b * one(a)))


def _weighted(a: Any, logarithm: Tensor) -> Tensor:
    """A product that is zero where `a` is, whatever the logarithm."""
    return torch.where((torch.as_tensor(a) == 0) & ~(logarithm.abs() < math.inf), 0.0, a * logarithm)


@decomposes("special_xlog1py")
def _special_xlog1py(a: Any, b: Any) -> Tensor:
    return _xlog1py(a, b)


@decomposes("logaddexp2")
def _logaddexp2(a: Tensor, b: Tensor) -> Tensor:
    """By the mean of the two, which is smooth where they are equal, unless that overflows."""
    half, larger, smaller = (a - b) / 2, torch.maximum(a, b), torch.minimum(a, b)
    near = (a + b) / 2 + torch.log2(torch.exp2(half) + torch.exp2(-half))
    return torch.where(half.abs() < 500, near, larger + torch.log2(1 + torch.exp2(smaller - larger)))


@decomposes("special_entr")
def _entropy(x: Tensor) -> Tensor:
    inside = torch.where(x > 0, -x * torch.log(x), torch.where(x == 0, 0.0, -math.inf))
    return torch.where(x.isnan(), x, inside)


@decomposes("nansum")
def _nansum(x: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    return torch.where(x.isnan(), 0.0, x).sum(dim, keepdim, dtype=dtype)


@decomposes("mvlgamma")
def _multivariate_lgamma(x: Tensor, p: int) -> Tensor:
    constant = torch.log(pi(x)) * (p * (p - 1) / 4)
    return sum((torch.lgamma(x - j / 2) for j in range(p)), start=constant.expand_as(x))


@decomposes("deg2rad")
def _deg2rad(x: Tensor) -> Tensor:
    return x * (pi(x) / 180)


@decomposes("rad2deg")
def _rad2deg(x: Tensor) -> Tensor:
    return x * (180 / pi(x))


@decomposes("angle")
def _angle(x: Tensor) -> Any:
    """Of a real number: 0 or half a turn."""
    return NotImplemented if x.is_complex() else torch.where(x.isnan(), x, torch.where(x < 0, pi(x).expand_as(x), 0.0))


@decomposes("_softmax_backward_data")
def _softmax_backward(gradient: Tensor, y: Tensor, dim: int, dtype: Any) -> Tensor:
    return y * (gradient - (gradient * y).sum(dim, keepdim=True))


@decomposes("_log_softmax_backward_data")
def _log_softmax_backward(gradient: Tensor, y: Tensor, dim: int, dtype: Any) -> Tensor:
    return gradient - y.exp() * gradient.sum(dim, keepdim=True)


@decomposes("native_dropout_backward")
def _dropout_backward(gradient: Tensor, mask: Tensor, scale: float) -> Tensor:
    return gradient * mask.to(gradient.dtype) * scale
