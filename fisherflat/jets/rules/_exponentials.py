"""The rules of normalised exponentials."""

from __future__ import annotations

from typing import Any

from fisherflat.jets.graph import Node
from fisherflat.jets.rules._series import Algebra, Series


def _axis(x: Series, dim: int) -> int:
    return dim % max(len(x.shape), 1) - len(x.shape)


def softmax(xp: Algebra, node: Node, x: Series, dim: int, half_to_float: bool) -> Series:
    """`d_i y = y z_i`, `d_ij y = y (w - <w>)`: `z_i = d_i x - <d_i x>`, `w = z_i z_j + d_ij x`, `<.>` by weights y."""
    k, data, axis = x.k, x.data, _axis(x, dim)
    y = data[0].softmax(axis)
    out = xp.empty(xp.count(2, k), data, x.shape)
    out[0].copy_(y)
    z = out[1 : 1 + k]
    z.copy_(data[1 : 1 + k])
    z.sub_((z * y).sum(axis, True))
    result = Series(out, k)
    w = out[1 + k :]
    if x.order == 2:
        w.copy_(data[1 + k :])
    blank = xp.blank(result, data.shape[0])
    for i in range(k):
        if blank:
            xp.mul(z[i], z[i:], xp.row(node, result, i))
        else:
            xp.fma(xp.row(node, result, i), z[i], z[i:])
    w.sub_((w * y).sum(axis, True))
    out[1:].mul_(y)
    return result


def _log_total(xp: Algebra, node: Node, x: Series, dims: list[int]) -> tuple[Any, Any, Any]:
    """`log sum exp x` along `dims` in three parts: the largest x, the sum of `exp(x - largest)`, and derivatives.

    These are `<d_i x>` and `<z_i z_j + d_ij x>`, `<.>` the mean under the softmax and `z_i = d_i x - <d_i x>`.
    """
    k, data = x.k, x.data
    largest = data[0].amax(dims, True)
    largest = largest.masked_fill(largest.isinf(), 0.0)
    weights = (data[0] - largest).exp()
    total = weights.sum(dims, True)
    y = weights / total
    z = data[1 : 1 + k] - (data[1 : 1 + k] * y).sum(dims, True)
    inner = xp.empty(xp.count(2, k), data, x.shape)  # what the mean under y is taken of
    if x.order == 2:
        inner[1 + k :].copy_(data[1 + k :])
    else:
        inner[1 + k :].zero_()
    source = Series(inner, k)
    for i in range(k):
        xp.fma(xp.row(node, source, i), z[i], z[i:])
    inner[1 : 1 + k].copy_(data[1 : 1 + k])
    return largest, total, (inner[1:] * y).sum(dims, True)


def logsumexp(xp: Algebra, node: Node, x: Series, dim: Any, keepdim: bool = False) -> Series:
    dims = dim if isinstance(dim, (tuple, list)) else [dim]
    largest, total, derivatives = _log_total(xp, node, x, [_axis(x, d) for d in dims])
    out = xp.empty(xp.count(2, x.k), x.data, node.shape)
    out[0].copy_((total.log() + largest).reshape(out.shape[1:]))
    out[1:].copy_(derivatives.reshape(out[1:].shape))
    return Series(out, x.k)


def log_softmax(xp: Algebra, node: Node, x: Series, dim: int, half_to_float: bool) -> Series:
    largest, total, derivatives = _log_total(xp, node, x, [_axis(x, dim)])
    out = xp.empty(xp.count(2, x.k), x.data, x.shape)
    out[0].copy_(x.data[0] - largest - total.log())
    out[1:].copy_(-derivatives)
    out[1 : x.data.shape[0]].add_(x.data[1:])
    return Series(out, x.k)
