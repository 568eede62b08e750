"""Arrays of real balls (python-flint's Arb) with the methods that rules use.

A ball `[m +- r]` encloses a real number, and every operation encloses the result of the exact one (Johansson, *Arb:
efficient arbitrary-precision midpoint-radius interval arithmetic*, IEEE Transactions on Computers 66, 2017). Binary
floats, so also all weights, are exact numbers. The working precision is that of `flint.ctx`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from flint import arb, arb_mat, ctx
from torch import Tensor

from fisherflat.errors import EnclosureError, UnsupportedOpError
from fisherflat.jets.balls import _slices as slices
from fisherflat.jets.rules import Irrational, Logarithm

#: entries of a weight that are converted to balls at a time
TILE = 2**18


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
    return filled(map(arb, tensor.detach().to(torch.float64).reshape(-1).tolist()), tuple(tensor.shape))


def filled(entries: Iterable[Any], shape: tuple[int, ...]) -> np.ndarray:
    """An object array of a shape with the given entries."""
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

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnsupportedOpError(f"balls have no {name!r}")

    def __matmul__(self, other: BallArray) -> BallArray:
        return BallArray(product(self, other))

    def __add__(self, other: Any) -> BallArray:
        return BallArray(self.balls + operand(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> BallArray:
        return BallArray(self.balls - operand(other))

    def __rsub__(self, other: Any) -> BallArray:
        return (-self) + other

    def __mul__(self, other: Any) -> BallArray:
        return BallArray(self.balls * operand(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> BallArray:
        return BallArray(self.balls / operand(other))

    def __neg__(self) -> BallArray:
        return BallArray(-self.balls)

    def copy_(self, other: BallArray) -> None:
        self.balls[...] = other.balls

    def zero_(self) -> None:
        self.balls[...] = ZERO

    def add_(self, other: Any) -> None:
        self.balls[...] = self.balls + operand(other)

    def sub_(self, other: Any) -> None:
        self.balls[...] = self.balls - operand(other)

    def mul_(self, other: Any) -> None:
        self.balls[...] = self.balls * operand(other)

    def sum(self, dim: Any, keepdim: bool = False) -> BallArray:
        axes = tuple(dim) if isinstance(dim, (tuple, list)) else (dim,)
        return BallArray(np.add.reduce(self.balls, axes, keepdims=keepdim) + ZERO)

    def tril(self, diagonal: int = 0) -> BallArray:
        return BallArray(np.where(np.tri(self.shape[-2], self.shape[-1], diagonal, dtype=bool), self.balls, ZERO))

    def triu(self, diagonal: int = 0) -> BallArray:
        return BallArray(np.where(np.tri(self.shape[-2], self.shape[-1], diagonal - 1, dtype=bool), ZERO, self.balls))

    def amax(self, dim: Any, keepdim: bool = False) -> BallArray:
        largest = self.balls
        for axis in dim:
            largest = LARGER.reduce(largest, axis, keepdims=True)
        return BallArray(largest if keepdim else largest.squeeze(tuple(dim)))

    @property
    def mT(self) -> BallArray:  # as torch has it
        return BallArray(np.swapaxes(self.balls, -1, -2), self.dtype)

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> BallArray:
        return BallArray(np.diagonal(self.balls, offset, dim1, dim2), self.dtype)

    def argmax(self, dim: int, keepdim: bool = False) -> np.ndarray:
        """Where the middle of a ball is largest; another ball may hold a larger number."""
        return np.argmax(FLOAT(self.balls).astype(float), dim, keepdims=keepdim)

    def isinf(self) -> np.ndarray:
        return _IS_INFINITE(self.balls).astype(bool)

    def masked_fill(self, mask: np.ndarray, value: float) -> BallArray:
        filling: Any = ball(value)
        return BallArray(np.where(mask, filling, self.balls))

    def softmax(self, dim: int) -> BallArray:
        largest = np.max(
            FLOAT(self.balls).astype(float), axis=dim, keepdims=True
        )  # any shift will do, so it may be rounded
        weights = (self - np.where(np.isfinite(largest), largest, 0.0).astype(object)).exp()
        return weights / weights.sum(dim, True)

    def sigmoid(self) -> BallArray:
        return BallArray(_SIGMOID(self.balls))

    def exp2(self) -> BallArray:
        return (self * Logarithm(2)).exp()

    def log2(self) -> BallArray:
        return self.log() / Logarithm(2)

    def log10(self) -> BallArray:
        return self.log() / Logarithm(10)

    def polygamma(self, n: int) -> BallArray:
        """`(-1)^(n+1) n! zeta(n + 1, x)`."""
        scale = (-1) ** (n + 1) * math.factorial(n)
        return BallArray(np.frompyfunc(lambda x: arb(n + 1).zeta(x) * scale, 1, 1)(self.balls))

    def sinc_and_derivatives(self) -> tuple[BallArray, BallArray, BallArray]:
        found = [_sinc(x) for x in self.balls.ravel()]
        return tuple(BallArray(filled(parts, self.shape)) for parts in zip(*found, strict=True))  # type: ignore[return-value]

    def sign(self) -> BallArray:
        return BallArray(SIGN(self.balls))

    def pow(self, exponent: float | Tensor) -> BallArray:
        return BallArray(_POWER(self.balls, operand(exponent)))

    def clamp_min(self, low: float) -> BallArray:
        return BallArray(LARGER(self.balls, ball(low)))

    def clamp_max(self, high: float) -> BallArray:
        return BallArray(SMALLER(self.balls, ball(high)))


def operand(other: Any) -> Any:
    """What NumPy combines with an array of balls: another one, exact numbers, or a number as a ball."""
    if isinstance(other, Tensor):
        return balls(other)
    return other.balls if isinstance(other, BallArray) else other if isinstance(other, np.ndarray) else ball(other)


def _sigmoid(x: arb) -> arb:
    if x < -(2.0**20):
        return x.exp() / (1 + x.exp())  # exp(-x) would overflow
    return 1 / (1 + (-x).exp())


def _sinc(x: arb) -> tuple[arb, arb, arb]:
    """`sin(pi x) / (pi x)` and two derivatives, near zero by the power series with a bound of the rest of it."""
    pi = arb.pi()
    z = x * pi
    if not abs(z) < 1:
        slope = (z.cos() - z.sin() / z) / z
        return x.sinc_pi(), slope * pi, -(z.sin() + slope * 2) / z * pi**2
    terms, size, parts = 8, abs(z).upper(), []
    while size ** (2 * terms) > arb(2) ** -ctx.prec * math.factorial(2 * terms):
        terms += 2
    for d in range(3):
        total = arb(0)
        for n in range(terms - 1, (d + 1) // 2 - 1, -1):
            total += (-1) ** n * z ** (2 * n - d) * math.perm(2 * n, d) / math.factorial(2 * n + 1)
        # no derivative of the function in z exceeds one
        rest = size ** (2 * terms - d) / math.factorial(2 * terms - d)
        parts.append((total + arb(0, 1) * rest) * pi**d)
    return parts[0], parts[1], parts[2]


def _sign(x: arb) -> arb:
    if x > 0:
        return ONE
    if x < 0:
        return -ONE
    raise EnclosureError(f"the sign of {x.str(5)} is open, and a kink or a jump lies at zero")


ZERO: Any = arb(0)
ONE: Any = arb(1)
LARGER: Any = np.frompyfunc(arb.max, 2, 1)
SMALLER: Any = np.frompyfunc(arb.min, 2, 1)
FLOAT: Any = np.frompyfunc(float, 1, 1)
SIGN: Any = np.frompyfunc(_sign, 1, 1)
_POWER: Any = np.frompyfunc(lambda x, y: x**y, 2, 1)
_SIGMOID: Any = np.frompyfunc(_sigmoid, 1, 1)
_IS_INFINITE: Any = np.frompyfunc(lambda x: not x.is_finite(), 1, 1)


def _entrywise(function: Callable[[arb], arb]) -> Callable[[BallArray], BallArray]:
    ufunc = np.frompyfunc(function, 1, 1)
    return lambda self: BallArray(ufunc(self.balls))


for _name in (
    "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "sin", "cos", "sinh", "cosh", "tanh", "asin", "acos", "atan",
    "asinh", "acosh", "atanh", "digamma", "lgamma", "erf", "erfc", "erfinv",
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


# -- matrix products ---------------------------------------------------------------------------------------------------


def product(a: BallArray, b: BallArray) -> np.ndarray:
    """`a @ b`, batched and broadcast over leading axes: large ones in slices, small ones through `arb_mat`.

    A matrix without batch axes multiplies all batches at once; a constant one is converted a tile at a time.
    """
    if len(b.shape) == 2:
        rows = a.balls.reshape(math.prod(a.shape[:-1]), a.shape[-1])
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
        out[index] = _rows_times(left[index], BallArray(right[index]))
    return out


def _rows_times(rows: np.ndarray, b: BallArray) -> np.ndarray:
    inner, columns = b.shape
    constant = isinstance(b, Constant)
    in_slices = slices.worthwhile(len(rows), inner, columns, constant)
    if not isinstance(b, Constant):
        return slices.multiplied(rows, [b.balls.T]) if in_slices else entries(matrix(rows) * matrix(b.balls))
    tiles = b.tensor.detach().to(torch.float64).T.split(max(1, TILE // max(inner, 1)))
    if in_slices:
        return slices.multiplied(rows, (tile.numpy() for tile in tiles))
    left = matrix(rows)
    pieces = [entries(left * arb_mat(inner, len(tile), tile.T.reshape(-1).tolist())) for tile in tiles]
    return np.concatenate(pieces, 1)


def matrix(array: np.ndarray) -> arb_mat:
    """An array `[n, m]` of balls or floats as a matrix."""
    rows, columns = array.shape
    return arb_mat(rows, columns, array.ravel().tolist())


def entries(product: arb_mat) -> np.ndarray:
    return filled(product.entries(), (product.nrows(), product.ncols()))


def solution(a: np.ndarray, b: np.ndarray, upper: bool, unitriangular: bool) -> np.ndarray:
    """`a⁻¹ b` for triangular `a` `[*, n, n]` and `b` `[*, n, m]`, by substitution, a row at a time.

    **Raises:** `EnclosureError` where an entry of the diagonal may be zero.
    """
    n, out = a.shape[-1], b.copy()
    for i in reversed(range(n)) if upper else range(n):
        known = slice(i + 1, n) if upper else slice(0, i)
        if known.start < known.stop:
            row = product(BallArray(a[..., i : i + 1, known]), BallArray(out[..., known, :]))
            out[..., i, :] = out[..., i, :] - row[..., 0, :]
        if not unitriangular:
            pivot = a[..., i, i]
            if any(x.contains(0) for x in np.ravel(pivot)):
                raise EnclosureError("whether a triangular matrix is singular is open, and a system with it is solved")
            out[..., i, :] = out[..., i, :] / pivot[..., None]
    return out
