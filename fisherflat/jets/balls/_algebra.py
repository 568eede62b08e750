"""Rigorous 2-jets: the rules of `fisherflat.jets.rules` on arrays of real balls.

An enclosure of the jet comes out whatever is rounded on the way. Where a rule depends on a sign or an order, it has to
be certain: a ball that leaves it open raises `EnclosureError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flint import arb
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from fisherflat.errors import UnsupportedOpError
from fisherflat.jets.balls._array import ZERO, BallArray, Constant, balls, operand, product, solution
from fisherflat.jets.balls._decisions import DECISIONS, divided, unsupported
from fisherflat.jets.balls._matrices import MATRICES
from fisherflat.jets.balls._moves import SUMMING, accumulates, moved, summed
from fisherflat.jets.graph import Node
from fisherflat.jets.ops import STRUCTURAL
from fisherflat.jets.rules import Algebra, Series, leibniz

aten = torch.ops.aten


class BallAlgebra(Algebra):
    """The algebra of `fisherflat.jets.rules` in real balls, for one point: arrays are `[C, 1, *shape]`."""

    def empty(self, coefficients: int, like: BallArray, shape: tuple[int, ...]) -> BallArray:
        return BallArray(np.full((coefficients, 1, *shape), ZERO, dtype=object))

    def constant(self, tensor: Tensor) -> BallArray:
        return Constant(tensor)

    def add(self, a: BallArray, b: Any, out: BallArray) -> None:
        np.add(a.balls, operand(b), out=out.balls)

    def mul(self, a: BallArray, b: Any, out: BallArray) -> None:
        np.multiply(a.balls, operand(b), out=out.balls)

    def div(self, a: BallArray, b: Any, out: BallArray) -> None:
        np.divide(a.balls, operand(b), out=out.balls)

    def fma(self, out: BallArray, a: BallArray, b: BallArray) -> None:
        out.add_(a * b)

    def anchor(self, rows: BallArray, index: np.ndarray, axis: int) -> None:
        index = np.broadcast_to(index, (rows.shape[0], *index.shape))
        rows.sub_(np.take_along_axis(rows.balls, index, axis))
        np.put_along_axis(rows.balls, index, ZERO, axis)  # a ball less itself is no zero

    def matmul(self, a: BallArray, b: BallArray, out: BallArray) -> None:
        out.balls[...] = product(a, b)

    def matmul_add(self, out: BallArray, a: BallArray, b: BallArray) -> None:
        out.balls[...] = out.balls + product(a, b)

    def solve_triangular(self, a: BallArray, rows: BallArray, upper: bool, unitriangular: bool) -> None:
        rows.balls[...] = solution(a.balls, rows.balls, upper, unitriangular)

    def matrix(self, node: Node, what: str, *arrays: BallArray) -> tuple[Any, ...]:
        if what not in MATRICES:
            raise unsupported(node)
        return MATRICES[what](*arrays)

    def convolve(self, node: Node, a: BallArray, b: BallArray, options: tuple[Any, ...]) -> BallArray:
        return BallArray(_convolved(a.balls, b.balls, node.shape, options))

    def contract(self, node: Node, a: Series, b: Series) -> Series:
        return leibniz(self, node, a, b, self.matmul, self.matmul_add)

    def linear(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], order: int, k: int) -> Series:
        if node.packet in SUMMING and accumulates(node, args, kwargs):
            return summed(node, args, kwargs, k)
        if node.packet in STRUCTURAL:
            return moved(node, args, kwargs, k)
        rule = _LINEAR.get(node.packet)
        if rule is None or not isinstance(args[0], Series):
            raise unsupported(node)
        return Series(BallArray(rule(args[0].data.balls[:, 0], node.shape, *args[1:], **kwargs)[:, None]), k)

    def values(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        if node.packet not in DECISIONS and kwargs.get("rounding_mode") is None:
            raise unsupported(node)
        decide, dtype = DECISIONS.get(node.packet, (divided, torch.float64))
        plain = tree_map(_plain, (args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Series))
        out = decide(node, *plain[0], **plain[1])
        if isinstance(out, tuple):
            return tuple(_constant_series(part, dtype, k) for part in out)
        return _constant_series(out, kwargs.get("dtype") or dtype, k)

    def still(self, node: Node, rule: Any, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        return self.values(node, args, kwargs, k) if rule is None else rule(self, node, *args, **kwargs)

    def fallback(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Series:
        raise unsupported(node)


def _constant_series(value: np.ndarray, dtype: torch.dtype, k: int) -> Series:
    return Series(BallArray(value[None, None], dtype), k)


#: added to what moves, so that what is decided about a number holds for all numbers next to it
_NEIGHBOURHOOD = arb(0, 1) * arb(2) ** -100000


def _plain(leaf: Any) -> Any:
    """The values of an argument as an array of balls; numbers and options stay as they are."""
    if isinstance(leaf, Series):
        return np.asarray(leaf.data.balls[0, 0] + (_NEIGHBOURHOOD if leaf.order else ZERO), dtype=object)
    return balls(leaf) if isinstance(leaf, Tensor) else leaf


# -- other linear ops: `x` is [C, *shape] ------------------------------------------------------------------------------


def _axes(dim: Any, rank: int) -> tuple[int, ...]:
    """Dimensions of the value as axes behind the coefficients."""
    if dim is None or dim == []:
        dim = range(rank)
    return tuple(d % max(rank, 1) + 1 for d in (dim if isinstance(dim, (tuple, list, range)) else [dim]))


def _sum(x: np.ndarray, shape: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> np.ndarray:
    return np.add.reduce(x, _axes(dim, x.ndim - 1), keepdims=keepdim) + ZERO if x.ndim > 1 else x


def _mean(x: np.ndarray, shape: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> np.ndarray:
    number = math.prod(x.shape[axis] for axis in _axes(dim, x.ndim - 1)) if x.ndim > 1 else 1
    return _sum(x, shape, dim, keepdim) / number


def _cumsum(x: np.ndarray, shape: Any, dim: int, dtype: Any = None) -> np.ndarray:
    return np.add.accumulate(x, _axes(dim, x.ndim - 1)[0]) if x.ndim > 1 else x


def _convolution(x: np.ndarray, shape: Any, weight: Tensor, bias: Any, *options: Any) -> np.ndarray:
    out = _convolved(x, balls(weight), shape, options)
    if bias is not None:
        out[0] = out[0] + balls(bias).reshape(-1, *(1,) * (len(shape) - 2))
    return out


def _convolved(x: np.ndarray, weight: np.ndarray, shape: Any, options: tuple[Any, ...]) -> np.ndarray:
    """A convolution `[*lead, *shape]` over one or two axes, as a matrix product with the patches that it sees."""
    stride, padding, dilation, transposed, _, groups = options
    spatial = len(shape) - 2
    if transposed or spatial > 2:
        raise UnsupportedOpError("transposed and three-dimensional convolutions have no rule in ball arithmetic")
    ones = (1,) * (2 - spatial)
    extent, lead = x.shape[x.ndim - 2 - spatial :], x.shape[: x.ndim - 2 - spatial]
    kernel, over = weight.shape[weight.ndim - spatial :], weight.shape[: weight.ndim - 2 - spatial]

    def two(option: Any, default: int) -> tuple[int, ...]:
        values = tuple(option) if len(option) == spatial else tuple(option) * spatial
        return (default,) * (2 - spatial) + values

    positions = torch.arange(1, 1 + math.prod(extent), dtype=torch.float64)
    positions = positions.reshape(*extent[:2], *ones, *extent[2:])
    where = F.unfold(positions, (*ones, *kernel), two(dilation, 1), two(padding, 0), two(stride, 1)).long().numpy()
    flat = x.reshape(*lead, -1)
    padded = np.concatenate([np.full((*lead, 1), ZERO, dtype=object), flat], -1)
    patches = padded[..., where].reshape(*lead, extent[0], groups, -1, where.shape[-1])
    kernels = weight.reshape(*over, 1, groups, shape[1] // groups, -1)
    out = product(BallArray(kernels), BallArray(patches))
    return out.reshape(*np.broadcast_shapes(lead, over), *shape)


_LINEAR: dict[Any, Callable[..., np.ndarray]] = {
    aten.sum: _sum,
    aten.mean: _mean,
    aten.cumsum: _cumsum,
    aten.neg: lambda x, shape: -x,
    aten._to_copy: lambda x, shape, **kwargs: x,
    aten.convolution: _convolution,
}
