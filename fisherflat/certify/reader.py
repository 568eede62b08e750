"""An independent reader of graphs, for the verifier: Taylor polynomials in plain balls.

It shares nothing with the engine that proves: no rule, no closed-form derivative, no array class. Values are polynomials
of degree two in the coordinates with coefficients in NumPy arrays of balls; functions of one entry are expanded by
FLINT's power series; entries are moved by NumPy. Ops that are not in its table are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from flint import arb, arb_mat, arb_series
from torch import Tensor

from fisherflat.errors import EnclosureError, UnsupportedOpError
from fisherflat.jets.graph import Graph, Node

#: entries of a constant matrix that are converted to balls at a time
TILE = 2**21

ZERO = arb(0)

Array = np.ndarray
Part = Array | None
Series = Callable[[arb_series], arb_series]


class Polynomial:
    """`sum_m parts[m] * monomial_m` for each entry; a part that is zero everywhere is `None`.

    The monomials of k coordinates are 1, then `u_i`, then `u_i u_j` for `i <= j`. With k = 0 it is a value.
    """

    def __init__(self, parts: list[Any], k: int) -> None:
        # NumPy turns arrays without axes into their entry
        self.parts: list[Part] = [part if part is None else np.asarray(part, dtype=object) for part in parts]
        self.k = k

    @property
    def value(self) -> Array:
        if self.parts[0] is None:
            shape = next(part for part in self.parts if part is not None).shape
            return np.full(shape, ZERO, dtype=object)
        return self.parts[0]

    @property
    def moves(self) -> bool:
        return any(part is not None for part in self.parts[1:])

    def each(self, function: Callable[[Array], Array]) -> Polynomial:
        """A linear function of arrays on every part."""
        return Polynomial([None if part is None else function(part) for part in self.parts], self.k)


def monomials(k: int) -> list[tuple[int, ...]]:
    """The monomials up to degree two, each as the sorted coordinates that it multiplies."""
    return [(), *((i,) for i in range(k)), *((i, j) for i in range(k) for j in range(i, k))]


def _pairs(k: int) -> Iterator[tuple[int, int, int]]:
    """Which monomials multiply to which, up to degree two."""
    known = monomials(k)
    for a, first in enumerate(known):
        for b, second in enumerate(known):
            if len(first) + len(second) <= 2:
                yield a, b, known.index(tuple(sorted(first + second)))


def bilinear(a: Polynomial, b: Polynomial, product: Callable[[Array, Array], Array]) -> Polynomial:
    """The product of two polynomials, truncated after degree two."""
    parts: list[Part] = [None] * len(a.parts)
    for i, j, m in _pairs(a.k):
        left, right = a.parts[i], b.parts[j]
        if left is not None and right is not None:
            term, held = product(left, right), parts[m]
            parts[m] = term if held is None else held + term
    return Polynomial(parts, a.k)


def plus(a: Polynomial, b: Polynomial) -> Polynomial:
    """The sum of two polynomials, whose shapes may broadcast."""
    shape = np.broadcast_shapes(a.value.shape, b.value.shape)

    def added(x: Part, y: Part) -> Part:
        if x is None or y is None:
            part = y if x is None else x
            return part if part is None else np.broadcast_to(part, shape)
        return x + y

    return Polynomial([added(x, y) for x, y in zip(a.parts, b.parts, strict=True)], a.k)


def composed(x: Polynomial, function: Series) -> Polynomial:
    """A function of single entries: its Taylor polynomial at the value, in powers of the rest."""
    degree = 2 if x.moves else 0

    def expand(entry: arb) -> tuple[arb, ...]:
        try:
            coefficients = function(arb_series([entry, 1], prec=degree + 1)).coeffs()
        except (ValueError, ZeroDivisionError) as error:
            raise EnclosureError(f"a function is not defined on all of {entry.str(5)}") from error
        return tuple(coefficients) + (ZERO,) * (degree + 1 - len(coefficients))

    value = x.value
    expanded = [expand(entry) for entry in value.ravel()]
    taylor = [filled((row[n] for row in expanded), value.shape) for n in range(degree + 1)]
    rest = Polynomial([None, *x.parts[1:]], x.k)
    if degree == 0:
        return Polynomial([taylor[0], *rest.parts[1:]], x.k)
    square = bilinear(rest, rest, np.multiply)
    result = plus(rest.each(lambda part: part * taylor[1]), square.each(lambda part: part * taylor[2]))
    return Polynomial([taylor[0], *result.parts[1:]], x.k)


def filled(entries: Any, shape: tuple[int, ...]) -> Array:
    """An object array of a shape with the given entries."""
    array = np.empty(math.prod(shape), dtype=object)
    array[:] = list(entries)
    return array.reshape(shape)


def exact(tensor: Any) -> Array:
    """The entries of a tensor as exact balls."""
    numbers = tensor.detach().cpu().double()
    return filled((arb(number) for number in numbers.flatten().tolist()), tuple(numbers.shape))


# -- functions of one entry --------------------------------------------------------------------------------------------


def _side(s: arb_series, at: float = 0.0) -> int:
    """On which side of a kink the value lies."""
    value = s[0] - at
    if value > 0:
        return 1
    if value < 0:
        return -1
    raise EnclosureError(f"a kink at {at} is not excluded")


def _sigmoid(s: arb_series) -> arb_series:
    return s.exp() / (1 + s.exp()) if s[0] < -1e4 else 1 / (1 + (-s).exp())


def _tanh(s: arb_series) -> arb_series:
    return 2 * _sigmoid(2 * s) - 1


def _gelu(s: arb_series, approximate: str = "none") -> arb_series:
    if approximate == "tanh":
        inner = (2 / arb.pi()).sqrt() * (s + arb(0.044715) * s * s * s)
        return s * (1 + _tanh(inner)) / 2
    return s * (-s / arb(2).sqrt()).erfc() / 2


def _softplus(s: arb_series, beta: float = 1.0, threshold: float = 20.0) -> arb_series:
    scaled = s * arb(beta)
    return s if _side(scaled, threshold) > 0 else (1 + scaled.exp()).log() / arb(beta)


def _elu(s: arb_series, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> arb_series:
    if _side(s) > 0:
        return s * arb(scale)
    return ((s * arb(input_scale)).exp() - 1) * arb(alpha) * arb(scale)


def _clamp(s: arb_series, low: float | None = None, high: float | None = None) -> arb_series:
    if low is not None and _side(s, low) < 0:
        return 0 * s + arb(low)
    return s if high is None or _side(s, high) < 0 else 0 * s + arb(high)


def _power(s: arb_series, exponent: float) -> arb_series:
    if float(exponent).is_integer() and exponent >= 0:
        result = 0 * s + 1
        for _ in range(int(exponent)):
            result = result * s
        return result
    if float(exponent).is_integer():
        return 1 / _power(s, -exponent)
    return s.sqrt() if exponent == 0.5 else s.rsqrt() if exponent == -0.5 else (s.log() * arb(exponent)).exp()


FUNCTIONS: dict[str, Callable[..., arb_series]] = {
    "abs": lambda s: s * _side(s),
    "atan": lambda s: s.atan(),
    "clamp": _clamp,
    "clamp_max": lambda s, high: _clamp(s, None, high),
    "clamp_min": _clamp,
    "cos": lambda s: s.cos(),
    "cosh": lambda s: (s.exp() + (-s).exp()) / 2,
    "elu": _elu,
    "erf": lambda s: s.erf(),
    "erfc": lambda s: s.erfc(),
    "exp": lambda s: s.exp(),
    "expm1": lambda s: s.exp() - 1,
    "gelu": _gelu,
    "leaky_relu": lambda s, slope=0.01: s if _side(s) > 0 else s * arb(slope),
    "log": lambda s: s.log(),
    "log1p": lambda s: (1 + s).log(),
    "log_sigmoid": lambda s: -(1 + (-s).exp()).log(),
    "pow": _power,
    "reciprocal": lambda s: 1 / s,
    "relu": lambda s: s if _side(s) > 0 else 0 * s,
    "rsqrt": lambda s: s.rsqrt(),
    "sigmoid": _sigmoid,
    "silu": lambda s: s * _sigmoid(s),
    "sin": lambda s: s.sin(),
    "sinh": lambda s: (s.exp() - (-s).exp()) / 2,
    "softplus": _softplus,
    "sqrt": lambda s: s.sqrt(),
    "tan": lambda s: s.tan(),
    "tanh": _tanh,
}


def _exponential(x: Polynomial) -> Polynomial:
    """`exp`, also of entries that a mask has set to minus infinity."""
    rest = Polynomial([None, *x.parts[1:]], x.k)
    value = np.frompyfunc(arb.exp, 1, 1)(x.value)
    square = bilinear(rest, rest, np.multiply).each(lambda part: part / 2)
    moving = plus(rest, square) if rest.moves else rest
    return Polynomial([value, *(None if part is None else part * value for part in moving.parts[1:])], x.k)


def softmax(x: Polynomial, dim: int, half_to_float: bool = False) -> Polynomial:
    """`exp(x - m) / sum exp(x - m)`, where any m will do: here about the mean of x under the weights themselves, which
    takes out what all entries have in common.
    """
    floats = np.frompyfunc(float, 1, 1)(x.value).astype(float)
    sizes = np.exp(np.nan_to_num(floats - floats.max(dim, keepdims=True), nan=-np.inf))
    share = sizes / np.maximum(sizes.sum(dim, keepdims=True), 1e-300)
    common = x.each(lambda part: np.where(share > 0, part, ZERO) * share).each(lambda part: part.sum(dim, keepdims=True))
    weights = _exponential(plus(x, common.each(lambda part: -part)))
    total = weights.each(lambda part: part.sum(dim, keepdims=True))
    return bilinear(weights, composed(total, lambda s: 1 / s), np.multiply)


def _logsumexp(x: Polynomial, dim: Any, keepdim: bool = False) -> Polynomial:
    axes = tuple(dim) if isinstance(dim, (list, tuple)) else (dim,)
    total = _exponential(x).each(lambda part: part.sum(axes, keepdims=keepdim))
    return composed(total, lambda s: s.log())


# -- products ----------------------------------------------------------------------------------------------------------


def _matrix(a: Array) -> arb_mat:
    return arb_mat(a.shape[0], a.shape[1], a.ravel().tolist())


def dot(a: Array, b: Array) -> Array:
    """`a @ b` for stacks of matrices of one batch shape."""
    if a.ndim == 2:
        out = _matrix(a) * _matrix(b)
        return filled(out.entries(), (out.nrows(), out.ncols()))
    return np.stack([dot(x, y) for x, y in zip(a, b, strict=True)])


def _times_constant(x: Polynomial, weight: Tensor) -> Polynomial:
    """`x @ weight` for matrices, all parts of `x` at once and the weight a few columns at a time."""
    places = [m for m, part in enumerate(x.parts) if part is not None]
    rows = np.concatenate([x.parts[m] for m in places])
    left, inner = _matrix(rows), weight.shape[0]
    columns = weight.double().split(max(1, TILE // max(inner, 1)), 1)
    tiles = [left * arb_mat(inner, tile.shape[1], tile.flatten().tolist()) for tile in columns]
    whole = np.concatenate([filled(tile.entries(), (tile.nrows(), tile.ncols())) for tile in tiles], 1)
    parts: list[Part] = [None] * len(x.parts)
    for place, part in zip(places, np.split(whole, len(places)), strict=True):
        parts[place] = part
    return Polynomial(parts, x.k)


# -- moving entries ----------------------------------------------------------------------------------------------------


def _sliced(x: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Array:
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)]


def _padded(x: Array, pad: Any, value: Any = ZERO) -> Array:
    """`constant_pad_nd`, whose amounts come in pairs from the last axis on; negative ones crop."""
    for position in range(len(pad) // 2):
        axis, (before, after) = x.ndim - 1 - position, pad[2 * position : 2 * position + 2]
        x = np.moveaxis(x, axis, 0)
        x = x[max(-before, 0) : len(x) - max(-after, 0)]
        blank = [np.full((max(amount, 0), *x.shape[1:]), value, dtype=object) for amount in (before, after)]
        x = np.moveaxis(np.concatenate([blank[0], x, blank[1]]), 0, axis)
    return x


def _reduced(x: Array, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Array:
    axes = tuple(range(x.ndim)) if dim is None or dim == [] else tuple(dim) if isinstance(dim, (list, tuple)) else (dim,)
    return np.asarray(x.sum(axes, keepdims=keepdim), dtype=object)


def _averaged(x: Array, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Array:
    total = _reduced(x, dim, keepdim)
    return total / (x.size // max(total.size, 1))


def _diagonal(x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    return np.diagonal(x, offset, dim1, dim2)


def _indexed(x: Array, indices: Any) -> Array:
    return x[tuple(slice(None) if index is None else index for index in indices)]


def _gathered(x: Array, dim: int, index: Array, sparse_grad: bool = False) -> Array:
    cropped = x[tuple(slice(None) if axis == dim % x.ndim else slice(n) for axis, n in enumerate(index.shape))]
    return np.take_along_axis(cropped, index, dim)


#: op -> how NumPy does the same to the array of one part
LINEAR: dict[str, Callable[..., Array]] = {
    "reshape": lambda x, shape: x.reshape(shape),
    "permute": lambda x, dims: x.transpose(dims),
    "expand": lambda x, shape, implicit=False: np.broadcast_to(x, shape),
    "select": lambda x, dim, index: x.take(index, dim),
    "slice": _sliced,
    "sum": _reduced,
    "mean": _averaged,
    "cumsum": lambda x, dim, dtype=None: np.add.accumulate(x, dim),
    "neg": lambda x: -x,
    "flip": lambda x, dims: np.flip(x, tuple(dims)),
    "roll": lambda x, shifts, dims=(): np.roll(x, tuple(shifts), tuple(dims) or None) if dims else np.roll(x, shifts[0]),
    "repeat": lambda x, repeats: np.tile(x, tuple(repeats)),
    "tril": lambda x, diagonal=0: np.where(np.tri(*x.shape[-2:], diagonal, dtype=bool), x, ZERO),
    "triu": lambda x, diagonal=0: np.where(np.tri(*x.shape[-2:], diagonal - 1, dtype=bool), ZERO, x),
    "diagonal": _diagonal,
    "index": _indexed,
    "index_select": lambda x, dim, index: x.take(index, dim),
    "gather": _gathered,
    "_to_copy": lambda x, dtype: x,
}


def _scattered(x: Array, source: Array, dim: int, index: int) -> Array:
    out = np.moveaxis(x.copy(), dim, 0)
    out[index] = source
    return np.moveaxis(out, 0, dim)


def _slice_scattered(x: Array, source: Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Array:
    out = x.copy()
    _sliced(out, dim, start, end, step)[...] = source
    return out


#: op -> which of its arguments are entries, and what NumPy does to the arrays of one part of them
JOINED: dict[str, tuple[tuple[int, ...], Callable[..., Array]]] = {
    "cat": ((0,), lambda parts, dim=0: np.concatenate([part for part in parts if part.shape != (0,)], dim)),
    "stack": ((0,), lambda parts, dim=0: np.stack(parts, dim)),
    "where": ((1, 2), np.where),
    "masked_fill": ((0, 2), lambda x, mask, value: np.where(mask, value, x)),
    "constant_pad_nd": ((0, 2), _padded),
    "select_scatter": ((0, 1), _scattered),
    "slice_scatter": ((0, 1), _slice_scattered),
}


def convolution(
    x: Array, weight: Array, stride: Any, padding: Any, dilation: Any, transposed: bool, output_padding: Any, groups: int
) -> Array:
    """A convolution over one axis: the sum over the taps of the kernel."""
    if transposed or x.ndim != 3:
        raise UnsupportedOpError("only convolutions over one axis are in the reader's table")
    (step,), (pad,), (spread,) = stride, padding, dilation
    x = _padded(x, [pad, pad])
    taps, length = weight.shape[2], (x.shape[2] - spread * (weight.shape[2] - 1) - 1) // step + 1
    ins, outs, pieces = x.shape[1] // groups, weight.shape[0] // groups, []
    for group in range(groups):
        inputs, kernel = x[:, group * ins : (group + 1) * ins], weight[group * outs : (group + 1) * outs]
        windows = [inputs[:, :, tap * spread : tap * spread + step * (length - 1) + 1 : step] for tap in range(taps)]
        pieces.append(sum((kernel[:, :, tap][None, :, :, None] * window[:, None]).sum(2) for tap, window in enumerate(windows)))
    return np.concatenate(pieces, 1)


# -- deciding ----------------------------------------------------------------------------------------------------------


def _certain(yes: Callable[[arb, arb], bool], no: Callable[[arb, arb], bool]) -> Callable[[Array, Array], Array]:
    def decide(x: arb, y: arb) -> arb:
        if not yes(x, y) and not no(x, y):
            raise EnclosureError("a comparison is open")
        return arb(1) if yes(x, y) else arb(0)

    return lambda a, b: np.asarray(np.frompyfunc(decide, 2, 1)(a, b), dtype=object)


COMPARISONS = {
    "lt": _certain(lambda x, y: x < y, lambda x, y: x >= y),
    "le": _certain(lambda x, y: x <= y, lambda x, y: x > y),
    "gt": _certain(lambda x, y: x > y, lambda x, y: x <= y),
    "ge": _certain(lambda x, y: x >= y, lambda x, y: x < y),
    "eq": _certain(lambda x, y: x == y, lambda x, y: x != y),
    "ne": _certain(lambda x, y: x != y, lambda x, y: x == y),
}


def ranked(x: Array, count: int, dim: int, largest: bool) -> Array:
    """Indices of the first `count` entries along an axis by size, certainly in this order."""
    lines = np.moveaxis(x, dim, -1)
    out = np.empty((*lines.shape[:-1], count), dtype=np.int64)
    for place in np.ndindex(*out.shape[:-1]):
        line = lines[place] if largest else -lines[place]
        order = sorted(range(len(line)), key=lambda i: -float(line[i]))  # noqa: B023 - used at once
        if any(not line[order[i]] > line[order[j]] for i in range(count) for j in range(i + 1, len(order))):
            raise EnclosureError("the order of two entries is open")
        out[place] = order[:count]
    return np.moveaxis(out, -1, dim)


# -- reading -----------------------------------------------------------------------------------------------------------


def evaluate(graph: Graph, x: Polynomial, middle: Polynomial | None = None, steps: Sequence[arb] = ()) -> Polynomial:
    """The graph on a polynomial.

    **Args:** `x`: at a point, or over a box of points; for a box `middle`, the polynomial at a point of it, and `steps`,
    how far the box reaches from there, narrow what plain ball arithmetic finds.

    **Raises:** `UnsupportedOpError` for an op outside the table, `EnclosureError` where a choice is open.
    """
    if isinstance(graph.output, Tensor):
        return Polynomial([exact(graph.output), *[None] * (len(x.parts) - 1)], x.k)
    values: dict[Node, Any] = {graph.input: x}
    centre: dict[Node, Any] = {graph.input: middle}
    last = graph.last_use()
    for node in graph.nodes:
        if node.target is not None:
            values[node] = _Reading(node, values, x.k).result()
            if middle is not None:
                centre[node] = _Reading(node, centre, x.k).result()
                values[node] = _narrowed(values[node], centre[node], steps)
        for dead in last.get(node, ()):
            values.pop(dead)
            centre.pop(dead, None)
    return values[graph.output]


def _narrowed(over: Any, middle: Any, steps: Sequence[arb]) -> Any:
    """By the mean value theorem: a function over a box is its value in the middle plus slopes over the box times steps."""
    if isinstance(over, tuple):
        return tuple(_narrowed(*pair, steps) for pair in zip(over, middle, strict=True))
    if not isinstance(over, Polynomial) or not over.moves:
        return over
    places = {monomial: m for m, monomial in enumerate(monomials(over.k))}
    parts, shape = list(over.parts), over.value.shape

    def narrow(place: int, changes: list[tuple[int, arb]]) -> None:
        known = [(parts[m], step) for m, step in changes if parts[m] is not None]
        if parts[place] is not None and known:
            start = middle.parts[place] if middle.parts[place] is not None else np.full(shape, ZERO, dtype=object)
            parts[place] = _BOTH(parts[place], sum((part * step for part, step in known), start))

    for i in range(over.k):
        narrow(1 + i, [(places[min(i, j), max(i, j)], step * (2 if i == j else 1)) for j, step in enumerate(steps)])
    narrow(0, [(1 + i, step) for i, step in enumerate(steps)])
    return Polynomial(parts, over.k)


_BOTH = np.frompyfunc(lambda x, y: x.intersection(y) if x.is_finite() and y.is_finite() else x, 2, 1)


class _Reading:
    """One node, read."""

    def __init__(self, node: Node, values: dict[Node, Any], k: int) -> None:
        self.node, self.values, self.k = node, values, k
        self.name = node.op.removeprefix("aten.")

    def result(self) -> Any:
        name, args, kwargs = self.name, self.node.args, self.node.kwargs
        if name == "getitem":
            return self.values[args[0]][args[1]]
        if name in FUNCTIONS and isinstance(args[0], Node) and not any(isinstance(a, Node) for a in args[1:]):
            options = [a.item() if isinstance(a, Tensor) else a for a in args[1:]]
            return composed(self.values[args[0]], lambda s: FUNCTIONS[name](s, *options, **kwargs))
        if name in ("mul", "add", "sub", "rsub", "div"):
            return self._arithmetic(*args, **kwargs)
        if name in ("mm", "bmm", "addmm"):
            return self._product(*args, **kwargs)
        if name in ("_softmax", "logsumexp"):
            return (softmax if name == "_softmax" else _logsumexp)(self.values[args[0]], *args[1:], **kwargs)
        if name in LINEAR:
            options = [self._control(a) for a in args[1:]]
            return self._polynomial(args[0]).each(lambda part: LINEAR[name](part, *options, **kwargs))
        if name in JOINED and kwargs.keys() <= {"dim"}:
            return self._joined(*JOINED[name], args, kwargs)
        if name == "convolution" and isinstance(args[1], Tensor):
            weight = exact(args[1])
            out = self.values[args[0]].each(lambda part: convolution(part, weight, *args[3:]))
            return out if args[2] is None else plus(out, self._polynomial(args[2].reshape(-1, 1)))
        if name in COMPARISONS:
            a, b = (self._polynomial(leaf).value for leaf in args)
            return self._constant(COMPARISONS[name](a, b))
        if name in ("zeros_like", "ones_like"):
            return self._constant(np.full(self.node.shape, arb(int(name == "ones_like")), dtype=object))
        if name in ("topk", "sort", "max", "min", "argmax", "argmin") and len(args) > 1:
            return self._chosen(*args, **kwargs)
        raise self._unknown()

    def _constant(self, value: Array) -> Polynomial:
        return Polynomial([value, *[None] * (len(monomials(self.k)) - 1)], self.k)

    def _polynomial(self, leaf: Any) -> Polynomial:
        """An argument as a polynomial."""
        if isinstance(leaf, Node):
            return self.values[leaf]
        return self._constant(exact(leaf) if isinstance(leaf, Tensor) else np.asarray(arb(leaf), dtype=object))

    def _control(self, leaf: Any) -> Any:
        """An option, or an index or mask that is constant or was decided."""
        if isinstance(leaf, (list, tuple)):
            return type(leaf)(self._control(item) for item in leaf)
        if isinstance(leaf, Tensor):
            return leaf.cpu().numpy()
        if not isinstance(leaf, Node):
            return leaf
        value = self.values[leaf].value
        whole = filled((int(x.unique_fmpz()) for x in value.ravel()), value.shape).astype(np.int64)
        return whole.astype(bool) if self.name in ("where", "masked_fill") else whole

    def _arithmetic(self, a: Any, b: Any, alpha: float = 1, rounding_mode: Any = None) -> Polynomial:
        if rounding_mode is not None:
            raise self._unknown()
        x, y = self._polynomial(a), self._polynomial(b)
        if self.name == "mul":
            return bilinear(x, y, np.multiply)
        if self.name == "div":
            if y.moves:
                return bilinear(x, composed(y, lambda s: 1 / s), np.multiply)
            return x.each(lambda part: part / y.value)
        first, second = (y, x) if self.name == "rsub" else (x, y)
        factor = arb(alpha) if self.name == "add" else -arb(alpha)
        return plus(first, second if factor == 1 else second.each(lambda part: part * factor))

    def _product(self, *args: Any, beta: float = 1, alpha: float = 1) -> Polynomial:
        bias, (a, b) = (args[0], args[1:]) if self.name == "addmm" else (None, args)
        if beta != 1 or alpha != 1:
            raise self._unknown()
        if self.name != "bmm" and isinstance(b, Tensor):
            product = _times_constant(self.values[a], b)
        elif self.name != "bmm" and isinstance(a, Tensor):
            product = _times_constant(self.values[b].each(lambda part: part.T), a.T).each(lambda part: part.T)
        else:
            product = bilinear(self._polynomial(a), self._polynomial(b), dot)
        return product if bias is None else plus(product, self._polynomial(bias))

    def _joined(self, places: tuple[int, ...], function: Callable[..., Array], args: Any, kwargs: Any) -> Polynomial:
        """An op that puts together entries of several arguments, one part after the other."""

        def entries(argument: Any) -> Any:
            return [self._polynomial(a) for a in argument] if isinstance(argument, (list, tuple)) else self._polynomial(argument)

        def part(argument: Any, m: int) -> Any:
            if isinstance(argument, list):
                return [part(a, m) for a in argument]
            held = argument.parts[m]
            return np.full(argument.value.shape, ZERO, dtype=object) if held is None else held

        read = [entries(a) if i in places else self._control(a) for i, a in enumerate(args)]
        flat = [p for i in places if i < len(args) for p in (read[i] if isinstance(read[i], list) else [read[i]])]
        parts: list[Part] = []
        for m in range(len(flat[0].parts)):
            moved = any(p.parts[m] is not None for p in flat)
            arguments = [part(a, m) if i in places else a for i, a in enumerate(read)] if moved else []
            parts.append(function(*arguments, **kwargs) if moved else None)
        return Polynomial(parts, self.k)

    def _chosen(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """The largest or smallest entries along an axis, and where they are."""
        names = {"topk": ("count", "dim", "largest"), "sort": ("dim", "descending")}.get(self.name, ("dim", "keepdim"))
        options = dict(zip(names, args, strict=False)) | kwargs
        values, dim = self.values[x], options.get("dim", -1)
        if not isinstance(dim, int):
            raise self._unknown()
        largest = options.get("largest", options.get("descending", self.name in ("max", "argmax", "topk")))
        count = options.get("count", values.value.shape[dim] if self.name == "sort" else 1)
        index = ranked(values.value, count, dim, largest)
        chosen = values.each(lambda part: np.take_along_axis(part, index, dim))
        where = self._constant(filled(map(arb, index.ravel().tolist()), index.shape))
        if self.name in ("topk", "sort"):
            return chosen, where
        if not options.get("keepdim", False):
            chosen, where = (p.each(lambda part: part.squeeze(dim)) for p in (chosen, where))
        return where if self.name.startswith("arg") else (chosen, where)

    def _unknown(self) -> UnsupportedOpError:
        return UnsupportedOpError(f"{self.node.op} at {self.node.source} is not in the table of the verifier's reader")
