"""Ops that decide, on balls: comparisons, logic, rounding and sorting.

Their outcome is certain for every number in the balls, or there is none: `EnclosureError`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from flint import arb
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from fisherflat.errors import EnclosureError, UnsupportedOpError
from fisherflat.jets.balls._array import FLOAT, ONE, SIGN, ZERO, ball, balls, filled
from fisherflat.jets.graph import Node

aten = torch.ops.aten


#: what is cast to an integer is smaller: then arithmetic of integers, bounded when it was traced, does not wrap round
_LARGEST = arb(2) ** 53


def unsupported(node: Node) -> UnsupportedOpError:
    """The error for an op that balls cannot do; its attribute `node` says which."""
    error = UnsupportedOpError(f"{node.op} at {node.source} has no rule in ball arithmetic")
    error.node = node  # type: ignore[attr-defined]
    return error


def _compared(certain: Callable[[arb, arb], bool], opposite: Callable[[arb, arb], bool]) -> Callable[..., np.ndarray]:
    def decide(x: arb, y: arb) -> arb:
        if certain(x, y):
            return ONE
        if opposite(x, y):
            return ZERO
        raise EnclosureError(f"which of {x.str(5)} and {y.str(5)} is larger is open, and a comparison asks for it")

    ufunc: Any = np.frompyfunc(decide, 2, 1)

    def rule(node: Node, a: Any, b: Any) -> np.ndarray:
        first, second = (x if isinstance(x, np.ndarray) else ball(x) for x in (a, b))
        return np.asarray(ufunc(first, second), dtype=object)

    return rule


def _logical(node: Node, *args: Any, **kwargs: Any) -> np.ndarray:
    """Logic on what is certainly zero or not, by torch."""
    plain = tree_map(lambda leaf: _truth(leaf) if isinstance(leaf, np.ndarray) else leaf, args)
    return balls(node.target(*plain, **kwargs))


def _truth(values: np.ndarray) -> Tensor:
    if not all(x == 0 or x != 0 for x in values.ravel()):
        raise EnclosureError("whether an entry is zero is open, and logic asks for it")
    return torch.from_numpy(filled((x != 0 for x in values.ravel()), values.shape).astype(bool))


def _is(kind: Callable[[arb], bool]) -> Callable[..., np.ndarray]:
    """A question about entries that are not finite."""

    def decide(x: arb) -> arb:
        if x.is_nan():
            raise EnclosureError("an entry could be anything, and its finiteness is asked for")
        return ONE if kind(x) else ZERO

    return lambda node, x: np.asarray(np.frompyfunc(decide, 1, 1)(x), dtype=object)


def _of_shape(node: Node, like: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
    """Ops that use nothing but the shape of their argument."""
    if any(isinstance(leaf, np.ndarray) for leaf in tree_flatten((args, kwargs))[0]):
        raise unsupported(node)
    return balls(node.target(torch.zeros(like.shape, dtype=torch.float64), *args, **kwargs))


def _fresh(node: Node, like: np.ndarray, *args: Any, **kwargs: Any) -> np.ndarray:
    """Memory that nothing has been written into: it may hold anything."""
    return filled((arb.nan() for _ in range(torch.Size(node.shape).numel())), node.shape)


def _signs(node: Node, x: np.ndarray) -> np.ndarray:
    return SIGN(x)


def _whole(x: arb, function: Callable[[arb], arb]) -> arb:
    """The integer next to a ball, in one direction."""
    if x.is_integer():
        return x  # what moves is no exact number here
    if x.is_finite() and not x.contains_integer() and function(x.lower()) == function(x.upper()):
        return function(x.lower())
    raise EnclosureError(f"the integer part of {x.str(5)} is open")


def _toward_zero(x: arb) -> arb:
    return ZERO if x > -1 and x < 1 else _whole(x, arb.floor if x > 0 else arb.ceil)


_ROUNDED: dict[str, Any] = {
    "floor": np.frompyfunc(lambda x: _whole(x, arb.floor), 1, 1),
    "ceil": np.frompyfunc(lambda x: _whole(x, arb.ceil), 1, 1),
    "trunc": np.frompyfunc(_toward_zero, 1, 1),
}


def _rounded(direction: str) -> Callable[..., np.ndarray]:
    return lambda node, x: np.asarray(_ROUNDED[direction](x), dtype=object)


def divided(node: Node, a: Any, b: Any, rounding_mode: str = "floor") -> np.ndarray:
    """Division to an integer."""
    first, second = (x if isinstance(x, np.ndarray) else ball(x) for x in (a, b))
    return np.asarray(_ROUNDED[rounding_mode](first / second), dtype=object)


def _cast(node: Node, x: np.ndarray, dtype: torch.dtype, **kwargs: Any) -> np.ndarray:
    """To an integer or a boolean; what is an integer already stays itself."""
    if dtype == torch.bool:
        return balls(_truth(x))
    return np.asarray(np.frompyfunc(_integer, 1, 1)(x), dtype=object)


def _integer(x: arb) -> arb:
    """The integer that torch casts to, which has a range."""
    if not abs(x) < _LARGEST:
        raise EnclosureError(f"{x.str(5)} is cast to an integer, and may be too large for one")
    return x if x.is_integer() else _toward_zero(x)


def ordered(values: np.ndarray, first: int, descending: bool = True) -> list[int]:
    """The positions of the `first` largest (or smallest) of a list of balls, in order.

    **Raises:** `EnclosureError` where the balls leave the order, or which ones they are, open.
    """
    floats = FLOAT(values).astype(float)
    order = np.argsort(-floats if descending else floats, kind="stable").tolist()
    chosen, rest = order[:first], order[first:]
    for a, b in [*pairwise(chosen), *((chosen[-1], other) for other in rest)]:
        if not values[a].is_finite() and values[a] == values[b]:
            continue  # entries that are masked do not move
        if not (values[a] > values[b] if descending else values[a] < values[b]):
            raise EnclosureError(f"the order of {values[a].str(5)} and {values[b].str(5)} is open")
    return chosen


def _sorted(node: Node, x: np.ndarray, *args: Any, **kwargs: Any) -> Any:
    names = {aten.topk: ("k", "dim", "largest"), aten.sort: ("dim", "descending")}
    options: dict[str, Any]
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
    first = options["k"] if "k" in options else lines.shape[-1]
    index = np.empty((*lines.shape[:-1], first), dtype=object)
    for at in np.ndindex(*lines.shape[:-1]):
        index[at] = list(map(arb, ordered(lines[at], first, descending)))
    index = np.moveaxis(index, -1, dim)
    if node.packet in names:
        return index, index  # only the indices are used
    return index if options.get("keepdim") else index.reshape(node.shape)


def _signbit(node: Node, x: np.ndarray) -> np.ndarray:
    return np.asarray((ONE - SIGN(x)) / 2, dtype=object)


def _nearest(node: Node, x: np.ndarray) -> np.ndarray:
    """To the nearest integer: the one below a half more, where that is no integer itself."""
    return np.asarray(_ROUNDED["floor"](x + arb(1) / 2), dtype=object)


def _heaviside(node: Node, x: np.ndarray, at_zero: Any) -> np.ndarray:
    return np.asarray((SIGN(x) + ONE) / 2, dtype=object)


def _running(node: Node, x: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the largest (or smallest) entry so far is."""
    lines = np.moveaxis(x, dim, -1)
    index = np.empty(lines.shape, dtype=object)
    for at in np.ndindex(*lines.shape[:-1]):
        best = 0
        for place in range(lines.shape[-1]):
            if place:
                pair = np.array([lines[at][best], lines[at][place]], dtype=object)
                best = (best, place)[ordered(pair, 1, node.packet is aten.cummax)[0]]
            index[(*at, place)] = arb(best)
    index = np.moveaxis(index, -1, dim)
    return index, index  # only the indices are used


def _pooled(node: Node, x: np.ndarray, *args: Any, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
    """The largest entry of each window; which entries are in it, the op itself says of planes with a single one."""
    axes = 3 if "3d" in node.packet.__name__ else 2
    planes, size = x.reshape(-1, *x.shape[-axes:]), int(np.prod(x.shape[-axes:]))
    single = torch.eye(size, dtype=torch.float64).reshape(size, 1, *x.shape[-axes:])
    inside = (node.target(single, *args, **kwargs)[0] > 0).reshape(size, -1).numpy()
    index = np.empty((len(planes), inside.shape[1]), dtype=object)
    for plane, entries in enumerate(planes):
        for window, members in enumerate(inside.T):
            places = np.flatnonzero(members)
            index[plane, window] = arb(int(places[ordered(entries.ravel()[places], 1)[0]]))
    index = index.reshape(node.shape[1])
    return index, index  # only the indices are used


#: op -> what decides it, and the dtype of the outcome
DECISIONS: dict[Any, tuple[Callable[..., Any], torch.dtype]] = {
    aten.lt: (_compared(lambda x, y: x < y, lambda x, y: x >= y), torch.bool),
    aten.le: (_compared(lambda x, y: x <= y, lambda x, y: x > y), torch.bool),
    aten.gt: (_compared(lambda x, y: x > y, lambda x, y: x <= y), torch.bool),
    aten.ge: (_compared(lambda x, y: x >= y, lambda x, y: x < y), torch.bool),
    aten.eq: (_compared(lambda x, y: x == y, lambda x, y: x != y), torch.bool),
    aten.ne: (_compared(lambda x, y: x != y, lambda x, y: x == y), torch.bool),
    **dict.fromkeys((aten.logical_and, aten.logical_or, aten.logical_not, aten.any, aten.all), (_logical, torch.bool)),
    aten.count_nonzero: (_logical, torch.int64),
    aten.logical_xor: (_logical, torch.bool),
    aten.isnan: (_is(lambda x: False), torch.bool),
    aten.isinf: (_is(lambda x: not x.is_finite()), torch.bool),
    aten.isposinf: (_is(lambda x: not x.is_finite() and x > 0), torch.bool),
    aten.isneginf: (_is(lambda x: not x.is_finite() and x < 0), torch.bool),
    **dict.fromkeys((aten.zeros_like, aten.ones_like, aten.full_like), (_of_shape, torch.float64)),
    **dict.fromkeys((aten.new_zeros, aten.new_ones, aten.new_full), (_of_shape, torch.float64)),
    **dict.fromkeys((aten.empty_like, aten.new_empty, aten.new_empty_strided), (_fresh, torch.float64)),
    **dict.fromkeys((aten.sign, aten.sgn), (_signs, torch.float64)),
    aten.floor: (_rounded("floor"), torch.float64),
    aten.ceil: (_rounded("ceil"), torch.float64),
    aten.trunc: (_rounded("trunc"), torch.float64),
    aten.round: (_nearest, torch.float64),
    aten.signbit: (_signbit, torch.bool),
    aten.heaviside: (_heaviside, torch.float64),
    aten.cummax: (_running, torch.int64),
    aten.cummin: (_running, torch.int64),
    **dict.fromkeys((aten.max_pool2d_with_indices, aten.max_pool3d_with_indices), (_pooled, torch.int64)),
    **dict.fromkeys((aten.adaptive_max_pool2d, aten.adaptive_max_pool3d), (_pooled, torch.int64)),
    aten.floor_divide: (divided, torch.float64),
    aten._to_copy: (_cast, torch.float64),
    **dict.fromkeys((aten.argmax, aten.argmin, aten.topk, aten.sort), (_sorted, torch.int64)),
}
