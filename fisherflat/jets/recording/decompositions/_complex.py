"""Complex numbers as two real ones: what ops do to real and imaginary parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fisherflat.jets.graph import leaves, mapped_leaves
from fisherflat.jets.ops import LINEAR, SUMS
from fisherflat.jets.recording.decompositions._numbers import pi, root

aten = torch.ops.aten


class Pair(NamedTuple):
    """A complex number `re + i im`, of tensors of one shape."""

    re: Tensor
    im: Tensor


#: ATen op -> the same of pairs; what it gives is a pair, or a real tensor
TABLE: dict[Any, Callable[..., Any]] = {}


def of_pairs(op: Any) -> Callable[..., Any] | None:
    """What an ATen overload does to pairs, `None` where that is not known."""
    packet = op.overloadpacket
    if packet in TABLE:
        return TABLE[packet]
    if packet in LINEAR | SUMS | _COPYING:  # affine over the reals, part by part
        return lambda *args, **kwargs: Pair(*(_of_parts(op, args, kwargs, i) for i in (0, 1)))
    return None


def _of_parts(op: Any, args: Any, kwargs: Any, i: int) -> Tensor:
    """An op of the real or of the imaginary parts; a number is an entry where the op says so."""
    entries = {a.name for a in op._schema.arguments if str(a.type) in ("number", "Tensor") and a.name != "alpha"}
    names = [argument.name for argument in op._schema.arguments]

    def part(name: str, argument: Any) -> Any:
        if name in entries and isinstance(argument, (bool, int, float)):
            return 0 if i else argument
        return _part(argument, i)

    given = [part(name, argument) for name, argument in zip(names, args, strict=False)]
    return op(*given, **{name: part(name, argument) for name, argument in kwargs.items()})


_COPYING = {
    aten.view, aten._unsafe_view, aten.view_copy, aten._reshape_alias, aten._reshape_copy, aten.unsqueeze,
    aten.unsqueeze_copy, aten.squeeze, aten.squeeze_copy, aten.flatten, aten.unflatten, aten.t, aten.t_copy,
    aten.transpose, aten.transpose_copy, aten.permute_copy, aten.expand_copy, aten.clone, aten.detach, aten.alias,
    aten.lift_fresh, aten.contiguous, aten.lift_fresh_copy, aten.detach_copy, aten.alias_copy,
}  # fmt: skip


def _part(arguments: Any, i: int) -> Any:
    """The real or the imaginary parts of nested arguments; indices, masks and options stay as they are."""

    def part(leaf: Any) -> Any:
        if isinstance(leaf, Parts):
            return leaf.pair[i]
        if isinstance(leaf, complex):
            return (leaf.real, leaf.imag)[i]
        if i and isinstance(leaf, Tensor) and leaf.is_floating_point():
            return torch.zeros_like(leaf)
        return leaf

    return mapped_leaves(part, arguments)


class Parts:
    """A pair as one leaf among nested arguments."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair


def _pair(z: Any) -> Pair:
    """A pair, also of a real tensor or a number."""
    if isinstance(z, Parts):
        return z.pair
    if isinstance(z, Pair):
        return z
    if isinstance(z, Tensor):
        z = z if z.is_floating_point() else z.to(torch.get_default_dtype())
        return Pair(z, torch.zeros_like(z))
    return Pair(torch.tensor(z.real, dtype=torch.float64), torch.tensor(z.imag, dtype=torch.float64))


def _of(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            if hasattr(aten, name):
                TABLE[getattr(aten, name)] = function
        return function

    return register


# -- making and taking apart -------------------------------------------------------------------------------------------


@_of("view_as_real", "view_as_real_copy")
def _view_as_real(z: Any) -> Tensor:
    return torch.stack(_pair(z), -1)


@_of("view_as_complex", "view_as_complex_copy")
def _view_as_complex(x: Tensor) -> Pair:
    return Pair(*x.unbind(-1))


@_of("complex")
def _complex(re: Tensor, im: Tensor) -> Pair:
    return Pair(*torch.broadcast_tensors(re, im))


@_of("polar")
def _polar(length: Tensor, angle: Tensor) -> Pair:
    return Pair(length * torch.cos(angle), length * torch.sin(angle))


@_of("real")
def _real(z: Any) -> Tensor:
    return _pair(z).re


@_of("imag")
def _imag(z: Any) -> Tensor:
    return _pair(z).im


@_of("_conj", "_conj_copy", "_conj_physical", "conj_physical")
def _conjugate(z: Any) -> Pair:
    return Pair(_pair(z).re, -_pair(z).im)


@_of("resolve_conj", "resolve_neg")
def _itself(z: Any) -> Pair:
    return _pair(z)


@_of("_to_copy")
def _to_copy(z: Any, *, dtype: torch.dtype | None = None, **options: Any) -> Any:
    pair = _pair(z)
    return pair if dtype is None or dtype.is_complex else pair.re.to(dtype)


@_of("abs")
def _abs(z: Any) -> Tensor:
    return torch.hypot(*_pair(z))


@_of("angle")
def _angle(z: Any) -> Tensor:
    return torch.atan2(_pair(z).im, _pair(z).re)


@_of("sgn")
def _sign(z: Any) -> Pair:
    pair, size = _pair(z), _abs(z)
    return Pair(*(torch.where(size == 0, 0.0, part / size) for part in pair))


# -- products ----------------------------------------------------------------------------------------------------------


def _bilinear(op: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Pair]:
    def product(a: Any, b: Any) -> Pair:
        (ar, ai), (br, bi) = _pair(a), _pair(b)
        return Pair(op(ar, br) - op(ai, bi), op(ar, bi) + op(ai, br))

    return product


_mul = _of("mul")(_bilinear(torch.mul))
_of("mm", "bmm", "matmul")(_bilinear(torch.matmul))


@_of("reciprocal")
def _reciprocal(z: Any) -> Pair:
    re, im = _pair(z)
    square = re * re + im * im
    return Pair(re / square, -im / square)


@_of("div")
def _div(a: Any, b: Any) -> Pair:
    if isinstance(b, (Parts, Pair, complex)):
        return _mul(_pair(a), _reciprocal(b))
    return Pair(*(part / b for part in _pair(a)))


@_of("addmm")
def _addmm(x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Pair:
    product = _mul(alpha, TABLE[aten.mm](a, b)) if alpha != 1 else TABLE[aten.mm](a, b)
    x = _mul(beta, x) if beta != 1 else _pair(x)
    return Pair(*(p + q for p, q in zip(product, x, strict=True)))


@_of("vdot")
def _vdot(a: Any, b: Any) -> Pair:
    return Pair(*(part.sum() for part in _mul(_conjugate(a), b)))


# -- functions ---------------------------------------------------------------------------------------------------------


@_of("exp")
def _exp(z: Any) -> Pair:
    re, im = _pair(z)
    return _polar(torch.exp(re), im)


@_of("log")
def _log(z: Any) -> Pair:
    return Pair(torch.log(_abs(z)), _angle(z))


@_of("sqrt")
def _sqrt(z: Any) -> Pair:
    """The root with a real part that is not negative."""
    (re, im), size = _pair(z), _abs(z)
    # from the part that does not cancel
    larger = torch.sqrt((size + re.abs()) / 2)
    smaller = torch.where(larger == 0, 0.0, im / (2 * larger))
    right = re >= 0
    upwards = torch.where(torch.signbit(im), -1.0, 1.0)
    return Pair(torch.where(right, larger, smaller.abs()), torch.where(right, smaller, larger * upwards))


@_of("sin")
def _sin(z: Any) -> Pair:
    re, im = _pair(z)
    return Pair(torch.sin(re) * torch.cosh(im), torch.cos(re) * torch.sinh(im))


@_of("cos")
def _cos(z: Any) -> Pair:
    re, im = _pair(z)
    return Pair(torch.cos(re) * torch.cosh(im), -torch.sin(re) * torch.sinh(im))


@_of("sinh")
def _sinh(z: Any) -> Pair:
    re, im = _pair(z)
    return Pair(torch.sinh(re) * torch.cos(im), torch.cosh(re) * torch.sin(im))


@_of("cosh")
def _cosh(z: Any) -> Pair:
    re, im = _pair(z)
    return Pair(torch.cosh(re) * torch.cos(im), torch.sinh(re) * torch.sin(im))


@_of("tan")
def _tan(z: Any) -> Pair:
    return _div(_sin(z), _cos(z))


@_of("tanh")
def _tanh(z: Any) -> Pair:
    """By `exp(-2 |re|)`, so that nothing overflows."""
    re, im = _pair(z)
    small = torch.exp(-2 * re.abs())
    turn = 2 * small * torch.cos(2 * im)
    square = small * small
    below = 1 + turn + square
    return Pair((1 - square) / below * torch.where(re < 0, -1.0, 1.0), 2 * small * torch.sin(2 * im) / below)


@_of("sigmoid")
def _sigmoid(z: Any) -> Pair:
    re, im = _tanh(Pair(*(part / 2 for part in _pair(z))))
    return Pair((re + 1) / 2, im / 2)


@_of("pow")
def _pow(z: Any, exponent: Any) -> Pair:
    if isinstance(exponent, (int, float)) and float(exponent).is_integer() and abs(exponent) < 64:
        power = _pair(1.0)
        for bit in f"{abs(int(exponent)):b}":
            power = _mul(power, power)
            power = _mul(power, z) if bit == "1" else power
        return _reciprocal(power) if exponent < 0 else power
    return _exp(_mul(exponent, _log(z)))


# -- Fourier transforms ------------------------------------------------------------------------------------------------


def _circle(order: Tensor, n: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of n-ths of a turn."""
    order = (order % n).to(like.dtype)
    if 4 % n == 0:
        turns = order * (2 * math.pi / n)
        return torch.cos(turns).round(), torch.sin(turns).round()
    turns = order * (pi(like) * 2 / n)
    return torch.cos(turns), torch.sin(turns)


def _transformed(z: Pair, dim: int, sign: int) -> Pair:
    """The sum of `z_k exp(sign 2 pi i j k / n)` along an axis, as products with two matrices."""
    n = z.re.shape[dim]
    order = torch.arange(n, device=z.re.device)
    cos, sin = _circle(order[:, None] * order, n, z.re)
    sin = sign * sin
    re, im = (part.movedim(dim, -1) for part in z)
    return Pair(*(part.movedim(-1, dim) for part in (re @ cos - im @ sin, re @ sin + im @ cos)))


def _scale(z: Pair, dims: Sequence[int], sizes: Sequence[int], normalization: int) -> Pair:
    """By nothing, by the root of the number of points, or by it."""
    count = math.prod(sizes[d] for d in dims)
    if normalization == 0:
        return z
    divisor = count if normalization == 2 else root(count, z.re)
    return Pair(z.re / divisor, z.im / divisor)


@_of("_fft_c2c")
def _fft_c2c(z: Any, dims: Sequence[int], normalization: int, forward: bool) -> Pair:
    pair = _pair(z)
    sizes = pair.re.shape
    for dim in dims:
        pair = _transformed(pair, dim, -1 if forward else 1)
    return _scale(pair, dims, sizes, normalization)


@_of("_fft_r2c")
def _fft_r2c(x: Tensor, dims: Sequence[int], normalization: int, onesided: bool) -> Pair:
    """One-sided: the first half along the last of the axes, of which the rest is the conjugate."""
    pair = _fft_c2c(x, dims, normalization, True)
    if onesided:
        last = dims[-1]
        pair = Pair(*(part.narrow(last, 0, x.shape[last] // 2 + 1) for part in pair))
    return pair


@_of("_fft_c2r")
def _fft_c2r(z: Any, dims: Sequence[int], normalization: int, size: int) -> Tensor:
    """The other half along the last axis is the conjugate of this one; at its ends imaginary parts are not read."""
    pair, last = _pair(z), dims[-1]
    for dim in dims[:-1]:
        pair = _transformed(pair, dim, 1)
    n = size // 2 + 1
    order = torch.arange(n, device=pair.re.device)
    cos, sin = _circle(order[:, None] * torch.arange(size, device=order.device), size, pair.re)
    twice = torch.where((order == 0) | (2 * order == size), 1.0, 2.0)[:, None]
    re, im = (part.narrow(last, 0, n).movedim(last, -1) for part in pair)
    out = (re @ (twice * cos) - im @ (twice * sin)).movedim(-1, last)
    return _scale(Pair(out, out), dims, out.shape, normalization).re


def written_out(op: Any, args: Any, kwargs: Any, pairs: Callable[[Tensor], Pair]) -> Any:
    """An op of complex numbers in real ones: a pair, a real tensor, or `NotImplemented`.

    **Args:** `pairs`, the parts of a complex tensor.
    """
    function = of_pairs(op)
    if function is None:
        return NotImplemented

    def parts(leaf: Any) -> Any:
        return Parts(pairs(leaf)) if isinstance(leaf, Tensor) and leaf.is_complex() else leaf

    return function(*mapped_leaves(parts, args), **mapped_leaves(parts, kwargs))


def is_complex(*things: Any) -> bool:
    """Whether there is a complex tensor among nested arguments."""
    return any(isinstance(leaf, Tensor) and leaf.is_complex() for leaf in leaves(things))
