"""Calling an op for many points at once, as it would be for each of them.

`torch.func.vmap` does that, but not for every op, and for some of them wrongly (`roll` of a scalar mixes points, and so
did others). So what it gives is compared with two calls of their own, once a node, and where it cannot be had or is not
the same the op is called point by point. Where calls are recorded nothing can be compared: what is not known to be
wrong is taken to be right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_leaves, tree_map

from fisherflat._modes import recorded
from fisherflat.errors import UnsupportedOpError
from fisherflat.jets.engines._chunks import is_out_of_memory
from fisherflat.jets.graph import Node

#: node -> whether `vmap` is right
_KNOWN: WeakKeyDictionary[Node, bool] = WeakKeyDictionary()


def batched(node: Node, call: Callable[..., Any], axes: tuple[bool, ...], values: list[Any]) -> Any:
    """`call` on the values, for each position along the first axis of those where `axes` is true."""
    count = next(len(value) for value, along in zip(values, axes, strict=True) if along)
    alone = count == 1 and not recorded()
    if not alone and _KNOWN.get(node, True):
        try:
            out = vmap(call, in_dims=tuple(0 if along else None for along in axes))(*values)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
        else:
            if node in _KNOWN or recorded():
                return out
            if all(_same(_at(out, i), _one(call, axes, values, i)) for i in (0, count - 1)):
                moving = [value for value, along in zip(values, axes, strict=True) if along]
                if not _same([value[0] for value in moving], [value[-1] for value in moving]):
                    _KNOWN[node] = True  # two equal points would not show that they are mixed
                return out
        _KNOWN[node] = False
    try:
        found = [_one(call, axes, values, i) for i in range(count)]
        if alone:
            return found[0][None] if isinstance(found[0], Tensor) else tuple(part[None] for part in found[0])
        if isinstance(found[0], Tensor):
            return torch.stack(found)
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True))
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise UnsupportedOpError(
            f"{node.op} at {node.source} does not run at all points ({error}); write that step in simpler ops, or use "
            'engine="autodiff"'
        ) from error


def _one(call: Callable[..., Any], axes: tuple[bool, ...], values: list[Any], i: int) -> Any:
    return call(*(value[i] if along else value for value, along in zip(values, axes, strict=True)))


def _at(out: Any, i: int) -> Any:
    return tree_map(lambda part: part[i] if isinstance(part, Tensor) else part, out)


def _same(got: Any, want: Any) -> bool:
    """Up to what the order of summation makes of rounding."""
    return all(map(_close, tree_leaves(got), tree_leaves(want)))


def _close(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor):
        return True
    if a.shape != b.shape:
        return False
    if a.is_meta:
        return True
    if not a.is_floating_point():
        return torch.equal(a, b)
    a, b = a.detach(), b.detach()
    scale = b.abs().nan_to_num(0.0, 0.0, 0.0).amax() if b.numel() else 0.0
    return torch.allclose(a, b, rtol=0, atol=float(scale) * 1e3 * torch.finfo(a.dtype).eps, equal_nan=True)
