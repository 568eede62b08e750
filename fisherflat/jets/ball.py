"""Rigorous 2-jets: the rules of `fisherflat.jets.rules` on arrays of real balls (python-flint's Arb).

A ball `[m +- r]` encloses a real number, and every operation encloses the result of the exact one, so that an enclosure
of the jet comes out whatever is rounded on the way (Johansson, *Arb: efficient arbitrary-precision midpoint-radius
interval arithmetic*, IEEE Transactions on Computers 66, 2017). Binary floats, so also all weights, are exact numbers.
The working precision is that of `flint.ctx`.

Where a rule depends on a sign or an order, it has to be certain: a ball that leaves it open raises `EnclosureError`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from flint import arb, arb_mat
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten, tree_map

from fisherflat.errors import EnclosureError, UnsupportedOpError
from fisherflat.jets.elementary import Irrational, Logarithm
from fisherflat.jets.graph import Node
from fisherflat.jets.rules import PIECEWISE_CONSTANT, RULES, STRUCTURAL, leibniz
from fisherflat.jets.series import Algebra, Series

aten = torch.ops.aten

#: entries of a weight that are converted to balls at a time
TILE = 2**21


def ball(number: float) -> arb:
    """A number as a ball: floats are exact, an `Irrational` or `Logarithm` is the real number that it remembers."""
    if isinstance(number, Irrational):
        p, q, n = number.square
        return (arb(p) / q * arb.pi() ** n).sqrt()
    if isinstance(number, Logarithm):
        return arb(number.base).log()
    return arb(number)


def balls(numbers: Any) -> np.ndarray:
    """Floats or integers in a tensor as an array of exact balls."""
    tensor = torch.as_tensor(numbers)
    return _filled(map(arb, tensor.detach().to(torch.float64).reshape(-1).tolist()), tuple(tensor.shape))


def _filled(entries: Iterable[Any], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(math.prod(shape), dtype=object)
    array[:] = list(entries)
    return array.reshape(shape)


class BallArray:
    """An array of real balls with those methods of a torch tensor that rules and elementary functions use.

    **Attributes:** `balls`, a NumPy array of `flint.arb`; `dtype`, what torch would hold (masks and indices are exact
    balls). Slices and methods that end in an underscore write through.
    """

    def __init__(self, balls: Any, dtype: torch.dtype = torch.float64) -> None:
        self.balls, self.dtype = np.asarray(balls, dtype=object), dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.balls.shape

    def reshape(self, *shape: Any) -> BallArray:
        return BallArray(self.balls.reshape(*shape), self.dtype)

    def __getitem__(self, index: Any) -> BallArray:
        return BallArray(self.balls[index], self.dtype)

    def __add__(self, other: Any) -> BallArray:
        return BallArray(self.balls + _operand(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> BallArray:
        return BallArray(self.balls - _operand(other))

    def __rsub__(self, other: Any) -> BallArray:
        return (-self) + other

    def __mul__(self, other: Any) -> BallArray:
        return BallArray(self.balls * _operand(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> BallArray:
        return BallArray(self.balls / _operand(other))

    def __neg__(self) -> BallArray:
        return BallArray(-self.balls)

    def copy_(self, other: BallArray) -> None:
        self.balls[...] = other.balls

    def zero_(self) -> None:
        self.balls[...] = _ZERO

    def add_(self, other: Any) -> None:
        self.balls[...] = self.balls + _operand(other)

    def sub_(self, other: Any) -> None:
        self.balls[...] = self.balls - _operand(other)

    def mul_(self, other: Any) -> None:
        self.balls[...] = self.balls * _operand(other)

    def sum(self, dim: Any, keepdim: bool = False) -> BallArray:
        axes = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
        return BallArray(np.add.reduce(self.balls, axes, keepdims=keepdim) + _ZERO)

    def amax(self, dim: Any, keepdim: bool = False) -> BallArray:
        return BallArray(_LARGER.reduce(self.balls, tuple(dim), keepdims=keepdim))

    def isinf(self) -> np.ndarray:
        return _IS_INFINITE(self.balls).astype(bool)

    def masked_fill(self, mask: np.ndarray, value: float) -> BallArray:
        return BallArray(np.where(mask, ball(value), self.balls))

    def softmax(self, dim: int) -> BallArray:
        largest = np.max(_FLOAT(self.balls).astype(float), axis=dim, keepdims=True)  # any shift will do, so it may be rounded
        weights = (self - np.where(np.isfinite(largest), largest, 0.0).astype(object)).exp()
        return weights / weights.sum(dim, True)

    def sigmoid(self) -> BallArray:
        return BallArray(_SIGMOID(self.balls))

    def sign(self) -> BallArray:
        return BallArray(_SIGN(self.balls))

    def pow(self, exponent: float) -> BallArray:
        power = ball(exponent)
        return BallArray(np.frompyfunc(lambda x: x**power, 1, 1)(self.balls))

    def clamp_min(self, low: float) -> BallArray:
        return BallArray(_LARGER(self.balls, ball(low)))

    def clamp_max(self, high: float) -> BallArray:
        return BallArray(_SMALLER(self.balls, ball(high)))


def _operand(other: Any) -> Any:
    return other.balls if isinstance(other, BallArray) else other if isinstance(other, np.ndarray) else ball(other)


def _sigmoid(x: arb) -> arb:
    if x < -(2.0**20):
        return x.exp() / (1 + x.exp())  # exp(-x) would overflow
    return 1 / (1 + (-x).exp())


def _sign(x: arb) -> arb:
    if x > 0:
        return _ONE
    if x < 0:
        return -_ONE
    raise EnclosureError(f"the sign of {x.str(5)} is open, and a kink or a jump lies at zero")


_ZERO, _ONE = arb(0), arb(1)
_LARGER, _SMALLER = np.frompyfunc(arb.max, 2, 1), np.frompyfunc(arb.min, 2, 1)
_FLOAT, _IS_INFINITE = np.frompyfunc(float, 1, 1), np.frompyfunc(lambda x: not x.is_finite(), 1, 1)
_SIGMOID, _SIGN = np.frompyfunc(_sigmoid, 1, 1), np.frompyfunc(_sign, 1, 1)


def _entrywise(function: Callable[[arb], arb]) -> Callable[[BallArray], BallArray]:
    ufunc = np.frompyfunc(function, 1, 1)
    return lambda self: BallArray(ufunc(self.balls))


for _name in (
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "erf", "erfc", "erfinv", "exp", "expm1", "log", "log1p",
    "rsqrt", "sin", "sinh", "sqrt", "tanh",
):  # fmt: skip
    setattr(BallArray, _name, _entrywise(getattr(arb, _name)))
BallArray.abs = _entrywise(abs)  # type: ignore[attr-defined]
BallArray.reciprocal = _entrywise(lambda x: 1 / x)  # type: ignore[attr-defined]


class Constant(BallArray):
    """A constant tensor, converted to balls when it is used, and in tiles where it multiplies as a matrix."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.dtype = tensor, tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def balls(self) -> np.ndarray:  # type: ignore[override]
        return balls(self.tensor)


class BallAlgebra(Algebra):
    """The algebra of `fisherflat.jets.series` in real balls, for one point: arrays are `[C, 1, *shape]`."""

    def empty(self, coefficients: int, like: BallArray, shape: tuple[int, ...]) -> BallArray:
        return BallArray(np.full((coefficients, 1, *shape), _ZERO, dtype=object))

    def constant(self, tensor: Tensor) -> BallArray:
        return Constant(tensor)

    def add(self, a: BallArray, b: Any, out: BallArray) -> None:
        np.add(a.balls, _operand(b), out=out.balls)

    def mul(self, a: BallArray, b: Any, out: BallArray) -> None:
        np.multiply(a.balls, _operand(b), out=out.balls)

    def div(self, a: BallArray, b: Any, out: BallArray) -> None:
        np.divide(a.balls, _operand(b), out=out.balls)

    def fma(self, out: BallArray, a: BallArray, b: BallArray) -> None:
        out.add_(a * b)

    def matmul(self, a: BallArray, b: BallArray, out: BallArray) -> None:
        out.balls[...] = product(a, b)

    def matmul_add(self, out: BallArray, a: BallArray, b: BallArray) -> None:
        out.balls[...] = out.balls + product(a, b)

    def contract(self, a: Series, b: Series, shape: tuple[int, ...]) -> Series:
        return leibniz(self, a, b, shape, self.matmul, self.matmul_add)

    def linear(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], order: int, k: int) -> Series:
        if node.packet in STRUCTURAL:
            return _moved(node, args, kwargs, k)
        rule = _LINEAR.get(node.packet)
        if rule is None or not isinstance(args[0], Series):
            raise _unsupported(node)
        return Series(BallArray(rule(args[0].data.balls[:, 0], node.shape, *args[1:], **kwargs)[:, None]), k)

    def values(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Any:
        if node.packet in _DECISIONS:
            plain = tree_map(_plain, (args, kwargs), is_leaf=lambda leaf: isinstance(leaf, Series))
            decide, dtype = _DECISIONS[node.packet]
            out = decide(node, *plain[0], **plain[1])
            if isinstance(out, tuple):
                return tuple(_constant_series(part, dtype, k) for part in out)
            return _constant_series(out, dtype, k)
        rule = RULES.get(node.packet)
        if rule is None or node.packet in PIECEWISE_CONSTANT:
            raise _unsupported(node)
        return rule(self, node, *args, **kwargs)

    def fallback(self, node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Series:
        raise _unsupported(node)


def _unsupported(node: Node) -> UnsupportedOpError:
    error = UnsupportedOpError(f"{node.op} at {node.source} has no rule in ball arithmetic")
    error.node = node  # type: ignore[attr-defined]
    return error


def _constant_series(value: np.ndarray, dtype: torch.dtype, k: int) -> Series:
    return Series(BallArray(value[None, None], dtype), k)


def _plain(leaf: Any) -> Any:
    """The values of an argument as an array of balls; numbers and options stay as they are."""
    if isinstance(leaf, Series):
        return leaf.data.balls[0, 0]
    return balls(leaf) if isinstance(leaf, Tensor) else leaf


# -- matrix products ---------------------------------------------------------------------------------------------------


def product(a: BallArray, b: BallArray) -> np.ndarray:
    """`a @ b`, batched and broadcast over leading axes, through `arb_mat`.

    A matrix without batch axes multiplies all batches at once; a constant one is converted a tile at a time.
    """
    if len(b.shape) == 2:
        rows = a.balls.reshape(-1, a.shape[-1])
        return _rows_times(rows, b).reshape(*a.shape[:-1], b.shape[1])
    if len(a.shape) == 2:
        flipped = Constant(a.tensor.T) if isinstance(a, Constant) else BallArray(a.balls.T)
        return np.swapaxes(product(BallArray(np.swapaxes(b.balls, -1, -2)), flipped), -1, -2)
    left, right = a.balls, b.balls
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, (*batch, *left.shape[-2:]))
    right = np.broadcast_to(right, (*batch, *right.shape[-2:]))
    out = np.empty((*batch, left.shape[-2], right.shape[-1]), dtype=object)
    for index in np.ndindex(*batch):
        out[index] = _entries(_matrix(left[index]) * _matrix(right[index]))
    return out


def _rows_times(rows: np.ndarray, b: BallArray) -> np.ndarray:
    left, (inner, columns) = _matrix(rows), b.shape
    if not isinstance(b, Constant):
        return _entries(left * _matrix(b.balls))
    step = max(1, TILE // max(inner, 1))
    pieces = []
    for tile in b.tensor.to(torch.float64).split(step, 1):
        pieces.append(_entries(left * arb_mat(inner, tile.shape[1], tile.reshape(-1).tolist())))
    return np.concatenate(pieces, 1)


def _matrix(array: np.ndarray) -> arb_mat:
    return arb_mat(*array.shape, array.ravel().tolist())


def _entries(matrix: arb_mat) -> np.ndarray:
    return _filled(matrix.entries(), (matrix.nrows(), matrix.ncols()))


# -- ops that move entries ---------------------------------------------------------------------------------------------

#: arguments that say where entries go, rather than being entries
_CONTROL = {"index", "indices", "mask", "condition", "repeats"}


def _moved(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Series:
    """An op that copies entries, run by torch on their positions: what comes out says which entry goes where.

    Position 0 is an exact zero, which is what such ops fill with.
    """
    schema = node.target._schema
    if node.packet is aten.as_strided or (node.packet is aten.index_put and True in (*args[3:], kwargs.get("accumulate"))):
        raise _unsupported(node)  # the first depends on how memory is laid out, the second adds entries
    if node.packet is aten.scatter and "reduce" in schema.overload_name:
        raise _unsupported(node)
    pool: list[np.ndarray] = [np.full((1, 1), _ZERO, dtype=object)]
    size, dtype = 1, torch.bool

    def placed(entries: np.ndarray) -> Tensor:
        nonlocal size
        pool.append(entries.reshape(entries.shape[0], -1))
        positions = torch.arange(size, size + pool[-1].shape[1], dtype=torch.float64)
        size += pool[-1].shape[1]
        return positions.reshape(entries.shape[1:])

    def position(argument: Any, leaf: Any) -> Any:
        if argument.name in _CONTROL:
            return _integers(leaf, argument.name in ("mask", "condition"))
        nonlocal dtype
        if isinstance(leaf, Series):
            dtype = torch.promote_types(dtype, leaf.data.dtype)
            return placed(leaf.data.balls[:, 0])
        if isinstance(leaf, Tensor):
            dtype = torch.promote_types(dtype, leaf.dtype)
            return placed(balls(leaf)[None])
        if str(argument.type) == "number":
            return float(placed(np.full((1,), ball(leaf), dtype=object)))
        return leaf

    def filled(argument: Any, value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return type(value)(position(argument, leaf) for leaf in value)
        return position(argument, value)

    named = {argument.name: argument for argument in schema.arguments}
    moved_args = [filled(argument, value) for argument, value in zip(schema.arguments, args, strict=False)]
    moved_kwargs = {name: filled(named[name], value) for name, value in kwargs.items()}
    where = node.target(*moved_args, **moved_kwargs).long().numpy()
    entries = np.full((max(part.shape[0] for part in pool), size), _ZERO, dtype=object)
    start = 0
    for part in pool:
        entries[: part.shape[0], start : start + part.shape[1]] = part
        start += part.shape[1]
    return Series(BallArray(entries[:, where][:, None], dtype), k)


def _integers(leaf: Any, boolean: bool) -> Any:
    """Indices or a mask as a tensor."""
    if not isinstance(leaf, Series):
        return leaf
    values = leaf.data.balls[0, 0]
    exact = _filled((int(x.unique_fmpz()) for x in values.ravel()), values.shape).astype(np.int64)
    return torch.from_numpy(exact != 0 if boolean else exact)


# -- other linear ops: `x` is [C, *shape] ------------------------------------------------------------------------------


def _axes(dim: Any, rank: int) -> tuple[int, ...]:
    """Dimensions of the value as axes behind the coefficients."""
    if dim is None or dim == []:
        dim = range(rank)
    return tuple(d % max(rank, 1) + 1 for d in (dim if isinstance(dim, (tuple, list, range)) else [dim]))


def _sum(x: np.ndarray, shape: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> np.ndarray:
    return np.add.reduce(x, _axes(dim, x.ndim - 1), keepdims=keepdim) + _ZERO if x.ndim > 1 else x


def _mean(x: np.ndarray, shape: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> np.ndarray:
    number = math.prod(x.shape[axis] for axis in _axes(dim, x.ndim - 1)) if x.ndim > 1 else 1
    return _sum(x, shape, dim, keepdim) / number


def _cumsum(x: np.ndarray, shape: Any, dim: int, dtype: Any = None) -> np.ndarray:
    return np.add.accumulate(x, _axes(dim, x.ndim - 1)[0]) if x.ndim > 1 else x


def _convolution(
    x: np.ndarray, shape: Any, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *more: Any
) -> np.ndarray:
    """A convolution over one or two axes as a matrix product with the patches that it sees."""
    groups, spatial = more[-1], x.ndim - 3
    if transposed or spatial > 2:
        raise UnsupportedOpError("transposed and three-dimensional convolutions have no rule in ball arithmetic")
    lead = (1,) * (2 - spatial)

    def two(option: Any, default: int) -> tuple[int, ...]:
        values = tuple(option) if len(option) == spatial else tuple(option) * spatial
        return (default,) * (2 - spatial) + values

    batch, channels, *extent = x.shape[1:]
    positions = torch.arange(1, 1 + math.prod(x.shape[1:]), dtype=torch.float64).reshape(batch, channels, *lead, *extent)
    kernel = (*lead, *weight.shape[2:])
    where = F.unfold(positions, kernel, two(dilation, 1), two(padding, 0), two(stride, 1)).long().numpy()
    padded = np.concatenate([np.full((x.shape[0], 1), _ZERO, dtype=object), x.reshape(x.shape[0], -1)], 1)
    patches = padded[:, where].reshape(x.shape[0], batch, groups, -1, where.shape[-1])
    kernels = balls(weight).reshape(groups, weight.shape[0] // groups, -1)
    out = product(BallArray(kernels), BallArray(patches)).reshape(x.shape[0], *shape)
    if bias is not None:
        out[0] = out[0] + balls(bias).reshape(-1, *(1,) * spatial)
    return out


_LINEAR: dict[Any, Callable[..., np.ndarray]] = {
    aten.sum: _sum,
    aten.mean: _mean,
    aten.cumsum: _cumsum,
    aten.neg: lambda x, shape: -x,
    aten._to_copy: lambda x, shape, **kwargs: x,
    aten.convolution: _convolution,
}


# -- ops that decide ---------------------------------------------------------------------------------------------------


def _compared(certain: Callable[[arb, arb], bool], opposite: Callable[[arb, arb], bool]) -> Callable[..., np.ndarray]:
    def decide(x: arb, y: arb) -> arb:
        if certain(x, y):
            return _ONE
        if opposite(x, y):
            return _ZERO
        raise EnclosureError(f"which of {x.str(5)} and {y.str(5)} is larger is open, and a comparison asks for it")

    ufunc = np.frompyfunc(decide, 2, 1)

    def rule(node: Node, a: Any, b: Any) -> np.ndarray:
        first, second = (x if isinstance(x, np.ndarray) else ball(x) for x in (a, b))
        return np.asarray(ufunc(first, second), dtype=object)

    return rule


def _logical(node: Node, *args: Any, **kwargs: Any) -> np.ndarray:
    """Logic on exact zeros and ones, by torch."""
    plain = tree_map(lambda leaf: _truth(leaf) if isinstance(leaf, np.ndarray) else leaf, args)
    return balls(node.target(*plain, **kwargs))


def _truth(values: np.ndarray) -> Tensor:
    if not all(x == 0 or x == 1 for x in values.ravel()):
        raise EnclosureError("logic is decided for exact zeros and ones only")
    return torch.from_numpy(values.astype(float) == 1)


def _of_shape(node: Node, like: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
    """Ops that use nothing but the shape of their argument."""
    if any(isinstance(leaf, np.ndarray) for leaf in tree_flatten((args, kwargs))[0]):
        raise _unsupported(node)
    return balls(node.target(torch.zeros(like.shape, dtype=torch.float64), *args, **kwargs))


def _signs(node: Node, x: np.ndarray) -> np.ndarray:
    return _SIGN(x)


def _rounded(function: Callable[[arb], arb]) -> Callable[..., np.ndarray]:
    def decide(x: arb) -> arb:
        if x.is_finite() and not x.contains_integer() and function(x.lower()) == function(x.upper()):
            return function(x.lower())
        raise EnclosureError(f"the integer part of {x.str(5)} is open")

    ufunc = np.frompyfunc(decide, 1, 1)
    return lambda node, x: np.asarray(ufunc(x), dtype=object)


def ordered(values: np.ndarray, first: int, descending: bool = True) -> list[int]:
    """The positions of the `first` largest (or smallest) of a list of balls, in order.

    **Raises:** `EnclosureError` where the balls leave the order, or which ones they are, open.
    """
    floats = _FLOAT(values).astype(float)
    order = np.argsort(-floats if descending else floats, kind="stable").tolist()
    chosen, rest = order[:first], order[first:]
    pairs = [*zip(chosen, chosen[1:], strict=False), *((chosen[-1], other) for other in rest)]
    for a, b in pairs:
        if not (values[a] > values[b] if descending else values[a] < values[b]):
            raise EnclosureError(f"the order of {values[a].str(5)} and {values[b].str(5)} is open")
    return chosen


def _sorted(node: Node, x: np.ndarray, *args: Any, **kwargs: Any) -> Any:
    names = {aten.topk: ("k", "dim", "largest"), aten.sort: ("dim", "descending")}
    if node.packet in names:
        options = dict(zip(names[node.packet], args, strict=False)) | kwargs
        descending = options.get("largest", True) if node.packet is aten.topk else options.get("descending", False)
    else:
        options = dict(zip(("dim", "keepdim"), args, strict=False)) | kwargs | {"k": 1}
        descending = node.packet is aten.argmax
    dim = options.get("dim", -1)
    if dim is None:
        x, dim = x.reshape(-1), 0
    lines = np.moveaxis(x, dim, -1)
    first = options.get("k", lines.shape[-1])
    index = np.empty((*lines.shape[:-1], first), dtype=object)
    for at in np.ndindex(*lines.shape[:-1]):
        index[at] = list(map(arb, ordered(lines[at], first, descending)))
    index = np.moveaxis(index, -1, dim)
    if node.packet in names:
        return index, index  # only the indices are used
    return index if options.get("keepdim") else index.reshape(node.shape)


#: op -> what decides it, and the dtype of the outcome
_DECISIONS: dict[Any, tuple[Callable[..., Any], torch.dtype]] = {
    aten.lt: (_compared(lambda x, y: x < y, lambda x, y: x >= y), torch.bool),
    aten.le: (_compared(lambda x, y: x <= y, lambda x, y: x > y), torch.bool),
    aten.gt: (_compared(lambda x, y: x > y, lambda x, y: x <= y), torch.bool),
    aten.ge: (_compared(lambda x, y: x >= y, lambda x, y: x < y), torch.bool),
    aten.eq: (_compared(lambda x, y: x == y, lambda x, y: x != y), torch.bool),
    aten.ne: (_compared(lambda x, y: x != y, lambda x, y: x == y), torch.bool),
    **dict.fromkeys((aten.logical_and, aten.logical_or, aten.logical_not, aten.any, aten.all), (_logical, torch.bool)),
    **dict.fromkeys((aten.bitwise_and, aten.bitwise_or, aten.bitwise_not), (_logical, torch.bool)),
    **dict.fromkeys((aten.zeros_like, aten.ones_like, aten.full_like), (_of_shape, torch.float64)),
    **dict.fromkeys((aten.new_zeros, aten.new_ones, aten.new_full), (_of_shape, torch.float64)),
    **dict.fromkeys((aten.sign, aten.sgn), (_signs, torch.float64)),
    aten.floor: (_rounded(arb.floor), torch.float64),
    aten.ceil: (_rounded(arb.ceil), torch.float64),
    **dict.fromkeys((aten.argmax, aten.argmin, aten.topk, aten.sort), (_sorted, torch.int64)),
}
