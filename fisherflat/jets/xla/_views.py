"""The ATen ops that return views: functions of a place, the shape or shapes of the result, and further arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fisherflat.jets.xla._pieces import filled
from fisherflat.jets.xla._places import Place, View, permute, reshape, take

#: torch writes the end of an axis so
_END = 2**63 - 1


def _axis(of: Place, dim: int) -> int:
    return dim % max(of.read().ndim, 1)


def _transpose(of: Place, shape: tuple[int, ...], one: int = 0, other: int = 1) -> Place:
    axes = list(range(len(shape)))
    if axes:
        one, other = one % len(axes), other % len(axes)
        axes[one], axes[other] = axes[other], axes[one]
    return permute(of, axes) if axes else of


def _t(of: Place, shape: tuple[int, ...]) -> Place:
    return _transpose(of, shape) if len(shape) > 1 else of


def _slice(of: Place, shape: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Place:
    return take(of, _axis(of, dim), slice(start, None if end is None or end >= _END else end, step))


def _select(of: Place, shape: Any, dim: int, index: int) -> Place:
    axis = _axis(of, dim)
    return take(of, axis, index % of.read().shape[axis])


def _narrow(of: Place, shape: Any, dim: int, start: int, length: int) -> Place:
    return take(of, _axis(of, dim), slice(start, start + length))


def _expand(of: Place, shape: tuple[int, ...], *_: Any, implicit: bool = False) -> Place:
    def refuse(x: Any, value: Any) -> Any:
        raise NotImplementedError("a write into an expanded tensor")

    return View(of, lambda x: filled(x, shape, x.dtype), refuse)


def _same(of: Place, shape: Any, *_: Any, **__: Any) -> Place:
    return of


def _reshape(of: Place, shape: tuple[int, ...], *_: Any) -> Place:
    return reshape(of, shape)


def _permute(of: Place, shape: tuple[int, ...], dims: Sequence[int]) -> Place:
    return permute(of, [dim % len(dims) for dim in dims]) if dims else of


def _split(of: Place, shapes: Any, sizes: int | Sequence[int], dim: int = 0) -> list[Place]:
    axis, start = _axis(of, dim), 0
    found: list[Place] = []
    for shape in shapes:
        found.append(take(of, axis, slice(start, start + shape[axis])))
        start += shape[axis]
    return found


def _unbind(of: Place, shapes: Any, dim: int = 0) -> list[Place]:
    return [take(of, _axis(of, dim), index) for index in range(len(shapes))]


#: by ATen name
VIEWS: dict[str, Callable[..., Any]] = {
    "_reshape_alias": _reshape,
    "_unsafe_view": _reshape,
    "alias": _same,
    "detach": _same,
    "detach_": _same,
    "expand": _expand,
    "lift_fresh": _same,
    "narrow": _narrow,
    "permute": _permute,
    "reshape": _reshape,
    "select": _select,
    "slice": _slice,
    "split": _split,
    "split_with_sizes": _split,
    "squeeze": _reshape,
    "squeeze_": _reshape,
    "t": _t,
    "transpose": _transpose,
    "unbind": _unbind,
    "unsafe_split": _split,
    "unsqueeze": _reshape,
    "unsqueeze_": _reshape,
    "view": _reshape,
}
