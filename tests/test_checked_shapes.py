"""What the hook puts on functions of the package: types and sizes are compared in every call, of closures too."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from conftest import checked, jaxtyped
from jaxtyping import TypeCheckError

from fisherflat._typing import Float, Tensor

hooked: Any = jaxtyped(typechecker=checked)
WRONG = (BeartypeCallHintViolation, TypeCheckError)
TALL, WIDE = torch.ones(3, 2), torch.ones(2, 4)


def product(scale: Any) -> Callable[..., Any]:
    @hooked
    def inner(a: Float[Tensor, "n m"], b: Float[Tensor, "m q"], how: str = "") -> Float[Tensor, "n q"]:
        return a if how == "wrong" else scale * (a @ b)

    return inner


@pytest.mark.parametrize("scale", [2.0, 3.0])
def test_each_closure_is_checked_and_is_itself(scale: float) -> None:
    made = product(scale)
    assert made.__name__ == "inner" and (made(TALL, WIDE) == 2 * scale).all()
    for arguments in ((TALL, TALL), (TALL, WIDE, 1), (TALL, WIDE, "wrong"), (TALL[0], WIDE), (TALL.long(), WIDE)):
        with pytest.raises(WRONG):
            made(*arguments)
    assert made(TALL[:1], WIDE).shape == (1, 4)  # another call has other sizes


def test_nothing_is_kept_that_a_closure_held() -> None:
    made = product(held := torch.ones(()))
    made(TALL, WIDE)
    alive = weakref.ref(held)
    del made, held
    gc.collect()
    assert alive() is None


@hooked
def pieces(a: Float[Tensor, "n m"], size: int) -> Iterator[Float[Tensor, "c m"]]:
    yield from a.split(size)


@hooked
def joined(a: Float[Tensor, "n m"]) -> Float[Tensor, "c m"]:
    return torch.cat([*pieces(torch.ones(5, 2), 2), *pieces(a, 3)])


@hooked
@dataclass
class Pair:
    a: Float[Tensor, "n"]
    b: Float[Tensor, "n"]


def test_sizes_are_those_of_one_call_alone() -> None:
    assert joined(TALL).shape == (8, 2)
    with pytest.raises(WRONG):
        joined(TALL[0])
    with pytest.raises(WRONG):
        list(pieces(TALL, "2"))
    Pair(TALL[0], TALL[1])
    with pytest.raises(WRONG):
        Pair(TALL[0], TALL[:, 0])


def test_types_without_shapes_are_checked() -> None:
    @hooked
    def count(a: int, rest: Any) -> int:
        return rest

    assert count(1, 2) == 2
    for arguments in (("1", 2), (1, "2")):
        with pytest.raises(WRONG):
            count(*arguments)
