"""The rules of choices by the value: the chosen entries, and where they are."""

from __future__ import annotations

from typing import Any

import torch

from fisherflat.jets.graph import Node
from fisherflat.jets.rules._series import Algebra, Series

aten = torch.ops.aten


def _chosen(xp: Algebra, x: Series, index: Series, dim: int, shape: tuple[int, ...], node: Node) -> Series:
    gather = Node(node.index, aten.gather.default, (), {}, shape, module_path=node.module_path, source=node.source)
    return xp.linear(gather, (x, dim, index), {}, x.order, x.k)


def ranked(xp: Algebra, node: Node, x: Series, *args: Any, **kwargs: Any) -> tuple[Series, Series]:
    _, index = xp.values(node, (x, *args), kwargs, x.k)
    names = [argument.name for argument in node.target._schema.arguments]
    options = dict(zip(names[1:], args, strict=False)) | kwargs
    return _chosen(xp, x, index, options.get("dim", -1), index.shape, node), index


def extreme(xp: Algebra, node: Node, x: Series, *args: Any, **kwargs: Any) -> Any:
    if not args and not kwargs:
        flat = Series(x.data.reshape(*x.data.shape[:2], -1), x.k)
        return _extreme_along(xp, node, flat, 0, False, node.packet)[0]
    keepdim = args[1] if len(args) > 1 else kwargs.get("keepdim", False)
    return _extreme_along(xp, node, x, args[0], keepdim, node.packet)


def _extreme_along(xp: Algebra, node: Node, x: Series, dim: int, keepdim: bool, packet: Any) -> tuple[Series, Series]:
    if not x.shape:
        return x, xp.values(Node(node.index, aten.argmax.default, (), {}, ()), (x,), {}, x.k)
    shape = list(x.shape)
    shape[dim] = 1
    arg = Node(
        node.index, (aten.argmax if packet in (aten.max, aten.amax) else aten.argmin).default, (), {}, tuple(shape)
    )
    index = xp.values(arg, (x, dim, True), {}, x.k)
    value = _chosen(xp, x, index, dim, tuple(shape), node)
    if keepdim:
        return value, index
    squeezed = tuple(s for position, s in enumerate(shape) if position != dim % len(shape))
    return tuple(Series(s.data.reshape(*s.data.shape[:2], *squeezed), x.k) for s in (value, index))  # type: ignore[return-value]


def extreme_over(xp: Algebra, node: Node, x: Series, dim: Any = (), keepdim: bool = False) -> Series:
    dims = list(dim) if isinstance(dim, (tuple, list)) else [dim]
    for d in dims or range(len(x.shape)):
        x = _extreme_along(xp, node, x, d, True, node.packet)[0]
    return Series(x.data.reshape(*x.data.shape[:2], *node.shape), x.k)


def max_pool(xp: Algebra, node: Node, x: Any, *args: Any, **kwargs: Any) -> tuple[Series, Series]:
    if not isinstance(x, Series):  # what moves says where the windows lie
        moving = next(a for a in (*args, *kwargs.values()) if isinstance(a, Series))
        return xp.values(node, (x, *args), kwargs, moving.k)
    _, index = xp.values(node, (x, *args), kwargs, x.k)  # counts along the pooled axes taken together
    pooled = 3 if "3d" in node.packet.__name__ else 2
    flat, where = (Series(s.data.reshape(*s.data.shape[:-pooled], -1), x.k) for s in (x, index))
    value = _chosen(xp, flat, where, -1, where.shape, node)
    return Series(value.data.reshape(*value.data.shape[:2], *index.shape), x.k), index
