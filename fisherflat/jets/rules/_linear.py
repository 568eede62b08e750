"""The rule of ops that are affine in all their floating arguments together: they act on each coefficient alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fisherflat.jets.graph import Node, leaves
from fisherflat.jets.rules._series import Algebra, Series

#: rule(algebra, node, *args, **kwargs), args as in the op with series for nodes
Rule = Callable[..., Any]


def linear(xp: Algebra, node: Node, *args: Any, **kwargs: Any) -> Series:
    order, k = order_of(args, kwargs)
    return xp.linear(node, args, kwargs, order, k)


def cast(xp: Algebra, node: Node, x: Series, **kwargs: Any) -> Series:
    dtype = kwargs.get("dtype")
    if dtype is None or dtype.is_floating_point:
        return linear(xp, node, x, **kwargs)
    return xp.values(node, (x,), kwargs, x.k)


def series_in(*things: Any) -> Iterator[Series]:
    """The series in nested arguments."""
    return (leaf for leaf in leaves(things) if isinstance(leaf, Series))


def order_of(*things: Any) -> tuple[int, int]:
    """The largest order among the series in nested arguments, and k."""
    found = list(series_in(*things))
    return max(series.order for series in found), found[0].k
