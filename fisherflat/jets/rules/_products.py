"""The rules of sums and products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import Node
from fisherflat.jets.rules._adjoints import ENTRIES, leibniz_adjoint, matrix_adjoint, sum_adjoint
from fisherflat.jets.rules._elementary import reciprocal
from fisherflat.jets.rules._functions import unary
from fisherflat.jets.rules._linear import order_of
from fisherflat.jets.rules._series import Algebra, Series, aligned

# -- sums ------------------------------------------------------------------------------------------------------------


def add(xp: Algebra, node: Node, a: Any, b: Any, alpha: float = 1) -> Series:
    if not isinstance(a, Series):
        a, b = (b, a) if alpha == 1 else (Series(b.data * alpha, b.k), a)
        alpha = 1
    rank = len(node.shape)
    left = aligned(a.data, rank)
    if not isinstance(b, Series):
        if alpha != 1 and not isinstance(b, Tensor):  # a product of numbers would be rounded
            b = torch.tensor(b, dtype=torch.float64)
        value = _constant(xp, b) * alpha if alpha != 1 else _constant(xp, b)
        out = xp.empty(left.shape[0], left, node.shape)
        out.copy_(left)
        return Series(xp.shifted(out, value), a.k)
    right = aligned(b.data, rank)
    if alpha != 1:
        right = right * alpha
    long, short = (left, right) if left.shape[0] >= right.shape[0] else (right, left)

    def forward(long: Any, short: Any) -> Any:
        out = xp.empty(long.shape[0], long, node.shape)
        shared = short.shape[0]
        xp.add(long[:shared], short, out[:shared])
        out[shared:].copy_(long[shared:])
        return out

    return Series(xp.recorded(forward, sum_adjoint, long, short), a.k)


def sub(xp: Algebra, node: Node, a: Any, b: Any, alpha: float = 1) -> Series:
    return add(xp, node, a, b, -alpha)


def rsub(xp: Algebra, node: Node, a: Any, b: Any, alpha: float = 1) -> Series:
    return add(xp, node, b, a, -alpha)


def _constant(xp: Algebra, value: Any) -> Any:
    return xp.constant(value) if isinstance(value, Tensor) else value


# -- products ----------------------------------------------------------------------------------------------------------


def leibniz(
    xp: Algebra, node: Node, a: Series, b: Series, into: Callable[..., None], add: Callable[..., None]
) -> Series:
    """A bilinear op of two series: `into(a, b, out)` writes, `add(out, a, b, scale)` accumulates."""
    k, first, second = a.k, a.data, b.data
    order = 2 if a.order and b.order else max(a.order, b.order)
    out = xp.empty(xp.count(order, k), first, node.shape)
    ca, cb = first.shape[0], second.shape[0]
    shared = min(ca, cb)
    into(first, second[0], out[:ca])
    if cb > ca:
        into(first[0], second[ca:], out[ca:cb])
    if shared > 1:
        add(out[1:shared], first[0], second[1:shared])
    result = Series(out, k)
    if a.order and b.order:
        blank, one, other = xp.blank(result, max(ca, cb)), first[1 : 1 + k], second[1 : 1 + k]
        for i, j in xp.crossings(k):
            row = xp.row(node, result, i)
            (into(one[i], other[j], row) if blank else add(row, one[i], other[j]))
            add(row, one[j], other[i])
    return result


def scaled(xp: Algebra, node: Node, a: Series, factor: Any) -> Series:
    out = xp.empty(a.data.shape[0], a.data, node.shape)
    xp.mul(aligned(a.data, len(node.shape)), _constant(xp, factor), out)
    return Series(out, a.k)


def widened(xp: Algebra, node: Node, x: Series) -> Series:
    """The series broadcast to the shape of a node."""
    out = xp.empty(x.data.shape[0], x.data, node.shape)
    out.copy_(aligned(x.data, len(node.shape)))
    return Series(out, x.k)


def mul(xp: Algebra, node: Node, a: Any, b: Any) -> Series:
    if not isinstance(a, Series):
        a, b = b, a
    if not isinstance(b, Series):
        return scaled(xp, node, a, b)
    normal = xp.normalised(node, a, b) if a.order and b.order else None
    return product(xp, node, a, b) if normal is None else normal


def product(xp: Algebra, node: Node, a: Series, b: Series) -> Series:
    """The product of two series by the rule of Leibniz."""
    if b.order > a.order:  # the result takes the dtype of the first, and a mask does not move
        a, b = b, a
    rank = len(node.shape)
    left = a if len(a.shape) == rank else Series(aligned(a.data, rank), a.k)
    right = left if a is b else b if len(b.shape) == rank else Series(aligned(b.data, rank), b.k)

    def forward(*arrays: Any) -> Any:
        one, other = (Series(array, a.k) for array in arrays)
        return leibniz(xp, node, one, other, xp.mul, xp.fma).data

    mixing = bool(left.order and right.order)
    adjoint = leibniz_adjoint(a.k, xp.sources(node, a.k), mixing, (ENTRIES, ENTRIES))
    return Series(xp.recorded(forward, adjoint, left.data, right.data), a.k)


def div(xp: Algebra, node: Node, a: Any, b: Any, rounding_mode: str | None = None) -> Series:
    if rounding_mode is not None:
        return xp.values(node, (a, b), {"rounding_mode": rounding_mode}, order_of((a, b))[1])
    if not isinstance(b, Series) or b.order == 0:
        out = xp.empty(a.data.shape[0], a.data, node.shape)
        divisor = aligned(b.data, len(node.shape)) if isinstance(b, Series) else _constant(xp, b)
        xp.div(aligned(a.data, len(node.shape)), divisor, out)
        return Series(out, a.k)
    inverse = unary(xp, node, b, reciprocal)
    return mul(xp, node, a, inverse)


def matmul(xp: Algebra, node: Node, a: Any, b: Any) -> Series:
    if isinstance(a, Series) and isinstance(b, Series):
        return xp.contract(node, a, b)
    series = a if isinstance(a, Series) else b
    left = a.data if isinstance(a, Series) else xp.constant(a)
    right = b.data if isinstance(b, Series) else xp.constant(b)

    def forward(left: Any, right: Any) -> Any:
        out = xp.empty(series.data.shape[0], series.data, node.shape)
        xp.matmul(left, right, out)
        return out

    return Series(xp.recorded(forward, matrix_adjoint, left, right), series.k)


def addmm(xp: Algebra, node: Node, bias: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1) -> Series:
    if alpha != 1 or beta != 1 or isinstance(bias, Series) or not (isinstance(a, Series) or isinstance(b, Series)):
        moves = isinstance(a, Series) or isinstance(b, Series)
        product = matmul(xp, node, a, b) if moves else xp.constant(a) @ xp.constant(b)
        if alpha != 1:
            product = scaled(xp, node, product, alpha) if isinstance(product, Series) else product * alpha
        return add(xp, node, product, bias, beta)
    product = matmul(xp, node, a, b)
    return Series(xp.shifted(product.data, xp.constant(bias)), product.k)


def convolution(xp: Algebra, node: Node, x: Any, weight: Any, bias: Any, *options: Any) -> Series:
    """Bilinear in `x` and the weight; a bias that stands still enters the value alone."""
    if not isinstance(weight, Series) and not isinstance(bias, Series):
        return xp.linear(node, (x, weight, bias, *options), {}, x.order, x.k)

    def into(a: Any, b: Any, out: Any) -> None:
        out.copy_(xp.convolve(node, a, b, options))

    def more(out: Any, a: Any, b: Any) -> None:
        out.add_(xp.convolve(node, a, b, options))

    if isinstance(x, Series) and isinstance(weight, Series):
        product: Any = leibniz(xp, node, x, weight, into, more)
    elif isinstance(x, Series) or isinstance(weight, Series):
        a, b = (s.data if isinstance(s, Series) else xp.constant(s)[None, None] for s in (x, weight))
        product = Series(xp.convolve(node, a, b, options), order_of(x, weight)[1])
    else:
        a, b = xp.constant(x)[None, None], xp.constant(weight)[None, None]
        product = Series(xp.convolve(node, a, b, options), bias.k)
    if bias is None:
        return product
    ones = (1,) * (len(node.shape) - 2)
    if isinstance(bias, Series):
        return add(xp, node, product, Series(bias.data.reshape(*bias.data.shape, *ones), bias.k))
    return add(xp, node, product, bias.reshape(-1, *ones))
