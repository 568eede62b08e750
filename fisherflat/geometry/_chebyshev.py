"""Polynomials by values at Chebyshev nodes of 0 to 1 (Trefethen, *Spectral Methods in MATLAB*, 2000, chapter 6)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fisherflat._arrays import table
from fisherflat._typing import Tensor


@table
def nodes(order: int) -> Tensor:
    """Chebyshev nodes on 0 to 1."""
    return (1 - torch.cos(math.pi * torch.arange(order + 1, dtype=torch.float64) / order)) / 2


@table
def derivative(order: int) -> Tensor:
    """What makes derivatives at the nodes of values there."""
    t = nodes(order)
    c = torch.ones(order + 1, dtype=torch.float64)
    c[0] = c[-1] = 2
    c = c * (-1.0) ** torch.arange(order + 1)
    apart = t[:, None] - t + torch.eye(order + 1, dtype=torch.float64)
    found = c[:, None] / c / apart
    return found - torch.diag(found.sum(1))


@table
def coefficients(order: int) -> Tensor:
    """What makes Chebyshev coefficients of values at the nodes."""
    n = torch.arange(order + 1, dtype=torch.float64)
    values = torch.cos(math.pi * n[:, None] * (1 - n / order))  # of the n-th polynomial at the nodes
    return torch.from_numpy(np.linalg.inv(values.T.numpy()))


@table
def interpolation(order: int, times: tuple[float, ...]) -> Tensor:
    """What makes values at times of values at the nodes."""
    angle = torch.acos((2 * torch.tensor(times, dtype=torch.float64) - 1).clamp(-1, 1))
    return torch.cos(torch.arange(order + 1, dtype=torch.float64) * angle[:, None]) @ coefficients(order)


def placed(make: Callable[..., Tensor], like: Tensor, *args: Any) -> Tensor:
    """What `make(*args)` gives, where `like` is and in its precision; made once, and moved there once."""
    return _placed(make, like.device, like.dtype, *args)


@table
def _placed(make: Callable[..., Tensor], device: torch.device, dtype: torch.dtype, *args: Any) -> Tensor:
    return make(*args).to(device, dtype)
