"""Nested arguments of ops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def leaves(thing: Any) -> Iterator[Any]:
    """What stands in nested tuples, lists and dicts: the arguments of ops."""
    if isinstance(thing, (tuple, list, dict)):
        for item in thing.values() if isinstance(thing, dict) else thing:
            if isinstance(item, (tuple, list, dict)):
                yield from leaves(item)
            else:
                yield item
    else:
        yield thing


def mapped_leaves(function: Callable[[Any], Any], thing: Any) -> Any:
    """The same nest with `function` of each leaf; a general tree library would take most of the time of a trace."""
    nests = (tuple, list, dict)  # most things in one are leaves, and spared a call
    if isinstance(thing, dict):
        return {
            name: mapped_leaves(function, item) if isinstance(item, nests) else function(item)
            for name, item in thing.items()
        }
    if isinstance(thing, (tuple, list)):
        items = [mapped_leaves(function, item) if isinstance(item, nests) else function(item) for item in thing]
        return items if isinstance(thing, list) else tuple(items)
    return function(thing)
