"""Ops that move, copy or add up entries, on balls: torch runs them on other numbers, which say where entries go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flint import arb
from torch import Tensor

from fisherflat.jets.balls._array import ZERO, BallArray, ball, balls, filled, product
from fisherflat.jets.balls._decisions import unsupported
from fisherflat.jets.graph import Node
from fisherflat.jets.rules import Series

aten = torch.ops.aten

#: arguments that say where entries go, or how often, rather than being entries
_CONTROL = {"index", "indices", "mask", "condition", "repeats", "alpha"}
#: ops that add up entries, each with a weight of one or as many times as the op says, or that average them
SUMMING = frozenset({
    aten.trace, aten.scatter_add, aten.index_add, aten.index_put, aten.col2im, aten.avg_pool2d, aten.avg_pool3d,
    aten._adaptive_avg_pool2d, aten._adaptive_avg_pool3d,
})  # fmt: skip


def accumulates(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an op adds to entries, which others of its kind replace."""
    return node.packet is not aten.index_put or True in (*args[3:], kwargs.get("accumulate"))


def moved(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Series:
    """An op that copies entries: of their positions, it says which entry goes where.

    Position 0 is an exact zero, which is what such ops fill with.
    """
    entries, dtype, call = _entries(node, args, kwargs)
    where = call(torch.arange(entries.shape[1], dtype=torch.float64)).long().numpy()
    return Series(BallArray(entries[:, where][:, None], dtype), k)


def summed(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], k: int) -> Series:
    """An op that adds up entries: of one entry at a time, it says how often that is in what comes out."""
    entries, _, call = _entries(node, args, kwargs)
    single = torch.eye(entries.shape[1], dtype=torch.float64)
    times = torch.stack([call(row).reshape(-1) for row in single])
    weights = filled(map(_weight, times.reshape(-1).tolist()), tuple(times.shape))
    if any(weight is None for weight in weights.ravel()):
        raise unsupported(node)
    out = product(BallArray(entries), BallArray(weights))
    return Series(BallArray(out.reshape(len(entries), 1, *node.shape)), k)


def _weight(number: float) -> arb | None:
    """A float as the number that it stands for: itself, or one over an integer."""
    if number == round(number) or abs(number) > 1:
        return arb(number)
    count = round(1 / number)
    return arb(1) / count if abs(number * count - 1) < 1e-12 else None


def _entries(
    node: Node, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[np.ndarray, torch.dtype, Callable[[Tensor], Tensor]]:
    """All entries of the arguments `[C, n]`, zero first, their dtype, and the op as a function of n numbers."""
    pool: list[np.ndarray] = [np.full((1, 1), ZERO, dtype=object)]
    size, dtype = 1, torch.bool
    named = {argument.name: argument for argument in node.target._schema.arguments}

    def placed(entries: np.ndarray, numbers: bool = False) -> Callable[[Tensor], Any]:
        nonlocal size
        pool.append(entries.reshape(entries.shape[0], -1))
        start, size = size, size + pool[-1].shape[1]
        stop = size
        if numbers:
            return lambda x: float(x[start])
        return lambda x: x[start:stop].reshape(entries.shape[1:])

    def entered(argument: Any, leaf: Any) -> Callable[[Tensor], Any]:
        nonlocal dtype
        if isinstance(leaf, (tuple, list)):
            parts = [entered(argument, part) for part in leaf]
            return lambda x: type(leaf)(part(x) for part in parts)
        if argument.name in _CONTROL:
            control = _integers(leaf, argument.name in ("mask", "condition"))
            return lambda x: control
        if isinstance(leaf, (Series, Tensor)):
            held = leaf.data if isinstance(leaf, Series) else BallArray(balls(leaf)[None, None], leaf.dtype)
            dtype = torch.promote_types(dtype, held.dtype)
            return placed(held.balls[:, 0])
        if str(argument.type) == "number":
            return placed(np.full((1, 1), ball(leaf), dtype=object), numbers=True)
        return lambda x: leaf

    given = [entered(argument, value) for argument, value in zip(named.values(), args, strict=False)]
    options = {name: entered(named[name], value) for name, value in kwargs.items()}
    entries = np.full((max(part.shape[0] for part in pool), size), ZERO, dtype=object)
    start = 0
    for part in pool:
        entries[: part.shape[0], start : start + part.shape[1]] = part
        start += part.shape[1]
    return entries, dtype, lambda x: node.target(*(g(x) for g in given), **{n: g(x) for n, g in options.items()})


def _integers(leaf: Any, boolean: bool) -> Any:
    """Indices or a mask as a tensor."""
    if not isinstance(leaf, Series):
        return leaf
    values = np.asarray(leaf.data.balls[0, 0], dtype=object)
    exact = filled((int(x.unique_fmpz()) for x in values.ravel()), values.shape).astype(np.int64)
    return torch.from_numpy(exact).bool() if boolean else torch.from_numpy(exact)
