"""The rules of normalised exponentials.

Derivatives are taken relative to the entry of largest weight. What is subtracted there leaves an exact zero, so that a
weight of nearly 1 gets its derivative as the sum of what the others lose, not as a difference of numbers nearly equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fisherflat.jets.graph import Node
from fisherflat.jets.rules._adjoints import softmax_adjoint
from fisherflat.jets.rules._series import Algebra, Series


def _axis(x: Series, dim: int) -> int:
    return dim % len(x.shape) - len(x.shape)


def _as_row(x: Series) -> Series:
    """A value without axes as a row of one entry."""
    return x if x.shape else Series(x.data.reshape(*x.data.shape, 1), x.k)


def _centre(xp: Algebra, rows: Any, y: Any, largest: Any, axis: int) -> None:
    """`rows - <rows>` in place, `<.>` the mean by the weights y; `largest` is where the largest of them are."""
    xp.anchor(rows, largest, axis)
    rows.sub_((xp.kept(rows) * y).sum(axis, True))


def softmax(xp: Algebra, node: Node, x: Series, dim: int, half_to_float: bool) -> Series:
    """`d_i y = y z_i`, `d_ij y = y (w - <w>)`: `z_i = d_i x - <d_i x>`, `w = z_i z_j + d_ij x`, `<.>` by weights y."""
    x = _as_row(x)
    k, axis = x.k, _axis(x, dim)

    def forward(data: Any) -> Any:
        return _softmax(xp, node, Series(data, k), axis)

    adjoint = softmax_adjoint(k, xp.sources(node, k), x.data.shape[0], axis)
    out = xp.recorded(forward, adjoint, x.data, by_output=True)
    return Series(out.reshape(*out.shape[:2], *node.shape), k)


def _softmax(xp: Algebra, node: Node, x: Series, axis: int) -> Any:
    k, data = x.k, x.data
    y = data[0].softmax(axis)
    largest = y.argmax(axis, True)
    out = xp.empty(xp.count(2, k), data, x.shape)
    out[0].copy_(y)
    z = out[1 : 1 + k]
    z.copy_(data[1 : 1 + k])
    _centre(xp, z, y, largest, axis)
    result = Series(out, k)
    w = out[1 + k :]
    if x.order == 2:
        w.copy_(data[1 + k :])
    blank = xp.blank(result, data.shape[0])
    for i, j in xp.crossings(k):
        if blank:
            xp.mul(z[i], z[j], xp.row(node, result, i))
        else:
            xp.fma(xp.row(node, result, i), z[i], z[j])
    _centre(xp, w, y, largest, axis)
    out[1:].mul_(y)
    return out


def _weights(x: Any, axis: int) -> tuple[Any, Any]:
    """`log sum exp x` along an axis, and the softmax."""
    largest = x.amax([axis], True)
    infinite = largest.isinf()  # -inf alone is a constant: nothing weighs
    largest = largest.masked_fill(infinite, 0.0)
    weights = (x - largest).exp()
    total = weights.sum(axis, True)
    return total.log() + largest, weights / total.masked_fill(infinite, 1.0)


def _covariances(xp: Algebra, node: Node, z: Any, y: Any, axis: int, out: Series) -> Iterator[tuple[Any, Any]]:
    """`<z_i z_j>`, each with the row of `out` that it is for."""
    for i, j in xp.crossings(out.k):
        yield xp.row(node, out, i), (z[i] * z[j] * y).sum(axis, True)


def logsumexp(xp: Algebra, node: Node, x: Series, dim: Any, keepdim: bool = False) -> Series:
    """`d_i` is `<d_i x>` and `d_ij` is `<z_i z_j + d_ij x>`, z as for the softmax; one axis after the other."""
    x = _as_row(x)
    rank = len(x.shape)
    for d in {d % rank for d in (dim if isinstance(dim, (tuple, list)) else [dim])} or range(rank):
        x = _logsumexp(xp, node, x, d - rank)
    return Series(x.data.reshape(*x.data.shape[:2], *node.shape), x.k)


def _logsumexp(xp: Algebra, node: Node, x: Series, axis: int) -> Series:
    k, data = x.k, x.data
    value, y = _weights(data[0], axis)
    z = data[1 : 1 + k] * 1
    _centre(xp, z, y, y.argmax(axis, True), axis)
    out = xp.empty(xp.count(2, k), data, tuple(value.shape[1:]))
    out[0].copy_(value)
    out[1 : data.shape[0]].copy_((data[1:] * y).sum(axis, True))
    out[data.shape[0] :].zero_()
    result = Series(out, k)
    for row, covariance in _covariances(xp, node, z, y, axis, result):
        row.add_(covariance)
    return result


def log_softmax(xp: Algebra, node: Node, x: Series, dim: int, half_to_float: bool) -> Series:
    """`d_i` is `z_i`, `d_ij` is `d_ij x - <d_ij x> - <z_i z_j>`."""
    x = _as_row(x)
    k, data, axis = x.k, x.data, _axis(x, dim)
    value, y = _weights(data[0], axis)
    out = xp.empty(xp.count(2, k), data, x.shape)
    out[0].copy_(data[0] - value)
    out[1 : data.shape[0]].copy_(data[1:])
    out[data.shape[0] :].zero_()
    _centre(xp, out[1 : data.shape[0]], y, y.argmax(axis, True), axis)
    result = Series(out, k)
    for row, covariance in _covariances(xp, node, xp.kept(out[1 : 1 + k]), y, axis, result):
        row.sub_(covariance)
    return Series(out.reshape(*out.shape[:2], *node.shape), k)
