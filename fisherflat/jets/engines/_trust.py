"""Whether derivatives are those of a function's values, as far as values nearby can say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fisherflat.spaces.jets import pairs

Tensors = tuple[Tensor, ...]

aten = torch.ops.aten
#: what may hold at a point and nowhere near it, so that what is chosen by it says nothing of what is nearby
EQUALITIES = (aten.eq, aten.ne, aten.isnan)


def trusted(
    f: Callable[[Tensors], Tensors], data: list[Tensor], found: list[Tensor], k: int, finite: bool = False
) -> bool:
    """Whether coefficients `found` `[C, P, *shape]` of `f` fit its values on a line through the points of `data`.

    Said to be false only where differences at two steps agree with each other, and not with the derivatives: across a
    kink they do not, and there nothing is said. With `finite`, also where values nearby are not finite, or jump.
    """
    weights = torch.arange(1.0, k + 1, dtype=torch.float64).cos()  # a direction without anything special about it
    inputs, outputs = ([_on_a_line(c, weights) for c in rows] for rows in (data, found))
    size, length = _largest([x[0] for x in inputs]), _largest([x[1] for x in inputs])
    if length == 0:
        return True
    eps = torch.finfo(data[0].dtype).eps
    doubted: list[Any] = [None] * len(outputs)
    # differences lose least to rounding and higher derivatives at the first step; singularities may be nearer than that
    for step in (eps**0.2 * max(size, 1.0) / length * scale for scale in (1.0, 1 / 32, 1 / 1024)):
        nearby = [f(tuple(value + t * first + t * t / 2 * second for value, first, second in inputs))
                  for t in (2 * step, step, -step, -2 * step)]  # fmt: skip
        said = [
            _contradicts(jet, values, step, 40 * eps, finite) for jet, *values in zip(outputs, *nearby, strict=True)
        ]
        doubted = [now if was is None else was & (now | noisy) for was, (now, noisy) in zip(doubted, said, strict=True)]
        if not any(some.any() for some in doubted):
            return True
    return False


def _on_a_line(coefficients: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, first and second derivative in the direction with these weights; blocks of second derivatives add up."""
    k = len(weights)
    weights = weights.to(coefficients)
    products = torch.stack([weights[i] * weights[j] * (1 if i == j else 2) for i, j in pairs(k)])
    second = coefficients[1 + k :].unflatten(0, (-1, len(products))).sum(0)
    first = torch.tensordot(weights, coefficients[1 : 1 + k], 1)
    return coefficients[0], first, torch.tensordot(products, second, 1)


def _largest(tensors: list[Tensor]) -> float:
    return max((t.masked_fill(~t.isfinite(), 0).abs().max().item() for t in tensors if t.numel()), default=0.0)


def _contradicts(
    jet: tuple[Tensor, ...], nearby: list[Tensor], h: float, noise: float, finite: bool
) -> tuple[Tensor, Tensor]:
    """Where derivatives cannot be those of the values at the steps 2h, h, -h and -2h, of relative `noise`.

    And where these are too noisy to bear out any.
    """
    (value, first, second), (far, near, back, far_back) = jet, nearby
    values = torch.stack([value, *nearby])
    rounding = noise * values.abs().amax(0)
    bends = (near - 2 * value + back) / h**2, (far - 2 * value + far_back) / (4 * h**2)
    slopes = (near - back) / (2 * h), (far - far_back) / (4 * h)
    ahead, behind = (far - 2 * near + value) / h**2, (far_back - 2 * back + value) / h**2  # these differ across a kink
    doubt = (bends[0] - bends[1]).abs() + (ahead - behind).abs() + rounding / h**2
    rough = (slopes[0] - slopes[1]).abs() + h * doubt + rounding / h
    slope, bend = (4 * slopes[0] - slopes[1]) / 3, (4 * bends[0] - bends[1]) / 3
    fits = (first - slope).abs() <= 10 * rough + 1e-3 * slope.abs()
    fits &= (second - bend).abs() <= 10 * doubt + 1e-3 * bend.abs()
    noisy = 100 * rounding / h**2 > torch.maximum(second.abs(), bend.abs())
    noisy |= 100 * rounding / h > torch.maximum(first.abs(), slope.abs())
    if not finite:
        return ~fits & values.isfinite().all(0), noisy
    # what jumps does so at any step, and what has a kink by half as much at half the step
    jump = (near + back - 2 * value).abs() > 0.75 * (far + far_back - 2 * value).abs() + 10 * rounding
    return ~fits | jump, noisy
