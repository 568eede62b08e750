"""What the verifier decides: comparisons, logic, rounding and ranks, where they are certain for all of a ball."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from flint import arb

from fisherflat.errors import EnclosureError
from fisherflat.verifier._polynomials import Array


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


def toward_zero(x: Array) -> Array:
    """Entries without their fractional part, where it is certain what is left."""

    def decide(entry: arb) -> arb:
        whole = int(float(entry))
        if entry == whole or (entry > whole - (whole <= 0) and entry < whole + (whole >= 0)):
            return arb(whole)
        raise EnclosureError("the integer part of an entry is open")

    return np.asarray(np.frompyfunc(decide, 1, 1)(x), dtype=object)


def _above(x: arb, y: arb) -> bool:
    """Whether one entry comes before another: masks, which are infinite, in any order."""
    return bool(x > y or (x == y and not x.is_finite() and not x.is_nan()))


def ranked(x: Array, count: int, dim: int, largest: bool) -> Array:
    """Indices of the first `count` entries along an axis by size, certainly in this order."""
    lines = np.moveaxis(x, dim, -1)
    out = np.empty((*lines.shape[:-1], count), dtype=np.int64)
    for place in np.ndindex(*out.shape[:-1]):
        line = lines[place] if largest else -lines[place]
        middles: list[arb] = [entry.mid() for entry in line.tolist()]  # floats would hide small gaps
        order = sorted(range(len(middles)), key=middles.__getitem__, reverse=True)
        if not all(_above(line[order[i]], line[order[j]]) for i in range(count) for j in range(i + 1, len(order))):
            raise EnclosureError("the order of two entries is open")
        out[place] = order[:count]
    return np.moveaxis(out, -1, dim)


def _truth(x: arb) -> bool:
    if x == 0:
        return False
    if not x.contains(0):
        return True
    raise EnclosureError("whether an entry is zero is open")


_TRUTHS: Any = np.frompyfunc(_truth, 1, 1)
#: op -> what it makes of truths
LOGIC: dict[str, Callable[..., Array]] = {
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "logical_not": np.logical_not,
}


def logic(name: str, *arguments: Array) -> Array:
    """Logic of entries that are certainly zero or not."""
    return _numbers(LOGIC[name](*(np.asarray(_TRUTHS(x)).astype(bool) for x in arguments)))


def heaviside(x: Array, at_zero: Array) -> Array:
    """Zero below zero, one above, and what is given at it."""
    side: Any = np.frompyfunc(lambda x, y: y if x == 0 else arb(int(_sign(x) > 0)), 2, 1)
    return np.asarray(side(x, at_zero), dtype=object)


def counted(name: str, x: Array, dims: Any = None, keepdim: bool = False) -> Array:
    """`any` or `all` along axes, or how many entries are not zero."""
    axes = None if dims is None or dims == [] else tuple(dims) if isinstance(dims, (list, tuple)) else (dims,)
    truths = np.asarray(_TRUTHS(x)).astype(bool)
    if name == "count_nonzero":
        return _numbers(np.count_nonzero(truths, axis=axes, keepdims=keepdim))
    return _numbers((np.any if name == "any" else np.all)(truths, axis=axes, keepdims=keepdim))


def _numbers(truths: Any) -> Array:
    return np.asarray(np.frompyfunc(lambda yes: arb(int(yes)), 1, 1)(truths), dtype=object)


def _infinity(which: Callable[[arb], bool]) -> Any:
    def decide(x: arb) -> arb:
        if x.is_nan():
            raise EnclosureError("whether an entry is finite is open")
        return arb(int(not x.is_finite() and which(x)))

    return np.frompyfunc(decide, 1, 1)


def _sign(x: arb) -> arb:
    return arb(1) if x > 0 else arb(-1) if x < 0 else _exact_zero(x)


def _exact_zero(x: arb) -> arb:
    if x == 0:
        return arb(0)
    raise EnclosureError("the sign of an entry is open")


def _to_whole(low: Callable[[arb], arb]) -> Any:
    """Rounding that is the same at both ends of a ball, and jumps nowhere in it."""

    def decide(x: arb) -> arb:
        if x.is_finite() and x.is_exact():  # what moves is not, see `_nearby` of the evaluator
            return low(x)
        if x.is_finite() and not x.contains_integer() and low(x.lower()) == low(x.upper()):
            return low(x.lower())
        raise EnclosureError("the integer part of an entry is open")

    return np.frompyfunc(decide, 1, 1)


_FLOOR: Any = _to_whole(lambda x: x.floor())
#: op -> what it makes of single entries that move no further
STEPS: dict[str, Any] = {
    "round": lambda x: _FLOOR(x + arb(1) / 2),
    "signbit": np.frompyfunc(lambda x: arb(int(_sign(x) < 0)), 1, 1),
    "floor": _FLOOR,
    "ceil": _to_whole(lambda x: x.ceil()),
    "sign": np.frompyfunc(_sign, 1, 1),
    "sgn": np.frompyfunc(_sign, 1, 1),
    "isnan": _infinity(lambda x: False),
    "isinf": _infinity(lambda x: True),
    "isposinf": _infinity(lambda x: x > 0),
    "isneginf": _infinity(lambda x: x < 0),
}


def divided(a: Array, b: Array, rounding_mode: str) -> Array:
    """The whole part of a quotient."""
    quotient = np.asarray(a / b, dtype=object)
    return toward_zero(quotient) if rounding_mode == "trunc" else np.asarray(STEPS["floor"](quotient), dtype=object)


def largest_over(x: Array, dims: Any, keepdim: bool, largest: bool) -> Callable[[Array], Array]:
    """Picks from any array of the shape of `x` the entries where `x` is certainly largest (or smallest) over axes."""
    rank = x.ndim
    axes = sorted(d % max(rank, 1) for d in (range(rank) if dims is None or dims == [] else np.atleast_1d(dims)))
    if rank == 0 or not axes:
        return lambda part: part
    kept = [axis for axis in range(rank) if axis not in axes]

    def lines(part: Array) -> Array:
        return part.transpose(*kept, *axes).reshape(*(part.shape[axis] for axis in kept), -1)

    index = ranked(lines(x), 1, -1, largest)
    shape = [1 if axis in axes else x.shape[axis] for axis in range(rank)] if keepdim else [x.shape[a] for a in kept]
    return lambda part: np.take_along_axis(lines(part), index, -1).reshape(shape)
