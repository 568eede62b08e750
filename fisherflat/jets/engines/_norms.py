"""Norms, `y = x / sqrt(<x, x> + eps)`, without the cancellation along x itself.

Along x a norm hardly changes: the two terms of its derivative, `r d_i x + x d_i r`, are each as large as `r d_i x`, and
their sum is smaller by `eps / (<x, x> + eps)`. With `d_i x = a_i x + e_i` and `d_ij x = b x + e_ij`, where all e are
orthogonal to x, `q = <x, x>`, `s = q + eps`, `r = s^-1/2` and `t = q / s`,

    d_i y = r (e_i + a_i x eps / s)
    d_ij y = r (e_ij - t (a_i e_j + a_j e_i) + x ((b - 3 t a_i a_j) eps / s - <e_i, e_j> / s))

which has nothing that cancels, once the e are formed in twice the precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fisherflat._arrays import product_error
from fisherflat.jets.engines._noise import exactly
from fisherflat.jets.engines._writing import into
from fisherflat.jets.graph import Node
from fisherflat.jets.rules import Algebra, Series, products

aten = torch.ops.aten

#: the squared sine of the angle to x under which the sum cancels, and the share of eps that keeps it from doing so
_PARALLEL, _LARGE = 2.0**-12, 2.0**-6


@dataclass(frozen=True)
class Norm:
    """What a product of x with an inverse norm of x is: the axes, whether squares are averaged, and eps."""

    axes: tuple[int, ...]
    averaged: bool
    eps: float


def norm_in(node: Node) -> tuple[int, Norm] | None:
    """Where x is among the two arguments of a product or quotient that normalises it, and how; else `None`."""
    for position in (0, 1) if node.packet is aten.mul else (0,) if node.packet is aten.div else ():
        x, root = node.args[position], node.args[1 - position]
        if isinstance(x, Node) and isinstance(root, Node):
            power = -0.5 if node.packet is aten.mul else 0.5
            found = _norm_of(_plain(x), _squares(root, power))
            if found is not None:
                return position, found
    return None


_COPIES = {aten._to_copy, aten.expand, aten.reshape, aten.clamp_min, aten.clamp}


def _plain(node: Node) -> Node:
    """The node that a node is a copy of; that nothing else has happened is seen from the values."""
    while node.target is not None and node.packet in _COPIES and isinstance(node.args[0], Node):
        node = node.args[0]
    return node


def _squares(node: Node, power: float) -> Node | None:
    """What a node is the power of, through roots, reciprocals and powers."""
    exponent = 1.0
    while True:
        node = _plain(node)
        step = {aten.rsqrt: -0.5, aten.sqrt: 0.5, aten.reciprocal: -1.0}.get(node.packet) if node.target else None
        if node.target and node.packet is aten.pow and isinstance(node.args[1], (int, float)):
            step = float(node.args[1])
        if step is None or exponent * step == 0 or not isinstance(node.args[0], Node):
            return None
        exponent, node = exponent * step, node.args[0]
        if exponent == power:
            return _plain(node)


def _norm_of(x: Node, squares: Node | None) -> Norm | None:
    eps = 0.0
    if squares is not None and squares.target and squares.packet is aten.add:
        terms = [term for term in squares.args[:2] if isinstance(term, Node)]
        others = [term for term in squares.args[:2] if not isinstance(term, Node)]
        if len(terms) != 1 or squares.kwargs or len(squares.args) > 2:
            return None
        if isinstance(others[0], Tensor) and others[0].numel() != 1:
            return None
        eps, squares = float(others[0]), _plain(terms[0])
    if squares is None or not squares.target or squares.packet not in (aten.mean, aten.sum):
        return None
    square = _plain(squares.args[0])
    is_square = square.target is not None and (
        (square.packet is aten.mul and all(isinstance(f, Node) and _plain(f) is x for f in square.args[:2]))
        or (square.packet is aten.pow and square.args[1] == 2 and _plain(square.args[0]) is x)
    )
    if not is_square:
        return None
    rank = len(square.shape)
    dims = squares.args[1] if len(squares.args) > 1 else squares.kwargs.get("dim")
    dims = range(rank) if dims is None or dims == [] else dims if isinstance(dims, (list, tuple)) else [dims]
    return Norm(tuple(d % rank - rank for d in dims), squares.packet is aten.mean, eps)


def normalised(xp: Algebra, norm: Norm, node: Node, x: Series, inverse: Series, coefficients: int) -> Series | None:
    """The rule for vectors along which some direction nearly is, and the plain product for others.

    Those are also vectors where it is another norm after all, or no number. `None` where all are, as far as that is
    known (`Algebra.none`).
    """
    k, data, axes = x.k, x.data, norm.axes
    if len(x.shape) != len(inverse.shape) or x.shape != node.shape or coefficients != xp.count(2, k):
        return None
    count = math.prod(x.shape[a] for a in axes) if norm.averaged else 1

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(axes, True) / count

    value, r = data[0], inverse.data[0]
    first = data[1 : 1 + k]
    q = inner(value, value)
    s = q + norm.eps
    along, sizes = inner(first, value), inner(first, first)
    parallel = (sizes * q - along.square() < _PARALLEL * sizes * q) & (norm.eps < _LARGE * s) & (sizes > 0)
    chosen = parallel.any(0, True) & ((r.square() * s - 1).abs() < 1e-6)
    if xp.none(chosen[0]):
        return None
    q, s = (torch.where(chosen[0], size, 1.0) for size in (q, s))  # of others, which may be zero, no number is used
    a, e = _split(first, value, along / q, inner, q)
    small, t = norm.eps / s, q / s
    out = value.new_zeros(coefficients, *data.shape[1:])
    into(out[0], torch.mul, value, r)
    out[1 : 1 + k] = r * (e + a * value * small)
    second, result = data[1 + k :], Series(out, k)
    if len(second):
        b = inner(second, value) / q
        out[1 + k :] = second - b * value + value * (b * small)
    for i, j in xp.crossings(k):
        bent = -t * (a[i] * e[j] + a[j] * e[i]) - value * (3 * small * t * a[i] * a[j] + inner(e[i], e[j]) / s)
        xp.row(node, result, i).add_(bent)
    out[1 + k :] *= r
    return Series(torch.where(chosen, out, products.product(xp, node, x, inverse).data), k)


def _split(rows: Tensor, x: Tensor, a: Tensor, inner: Any, q: Tensor) -> tuple[Tensor, Tensor]:
    """`rows = a x + e` with e orthogonal to x to its own last places, from a first guess of a."""
    with exactly():
        product = a * x
        e = (rows - product) - product_error(a.expand_as(product), x.expand_as(product), product)
        more = inner(e, x) / q
        e = e - more * x
    return a + more, e * 1  # as rounded as other arithmetic
