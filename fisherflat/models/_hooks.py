"""Hooks on blocks while a model runs: where it stops, and what enters the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from fisherflat.errors import InputError
from fisherflat.models._recorded_calls import Arguments


class Enough(Exception):
    """Raised inside the model once all blocks that are wanted have run."""


@contextmanager
def ended(blocks: Sequence[nn.Module], stop: int | None) -> Iterator[None]:
    """The model stops when one of `blocks` is called after `stop` calls of them."""
    called = 0

    def count(module: nn.Module, args: Any) -> None:
        nonlocal called
        if called == stop:
            raise Enough
        called += 1

    with _hooked(blocks if stop is not None else (), count):
        yield


@contextmanager
def entered(blocks: Sequence[nn.Module], rows: Tensor | None) -> Iterator[None]:
    """The first call of one of `blocks` gets `rows` `[n, d]` as its hidden states."""
    given = False

    def give(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal given
        if given or rows is None:
            return None
        given = True
        arguments = Arguments.of(args, kwargs, len(rows))
        if arguments is None or arguments.rows.shape != rows.shape:
            width = "none" if arguments is None else list(arguments.rows.shape)
            raise InputError(f"the hidden states are {list(rows.shape)}, the first block takes {width}")
        return arguments.with_hidden(rows)

    with _hooked(blocks if rows is not None else (), give, with_kwargs=True):
        yield


@contextmanager
def _hooked(modules: Sequence[nn.Module], hook: Any, **options: bool) -> Iterator[None]:
    with ExitStack() as stack:
        for module in dict.fromkeys(modules):
            stack.callback(module.register_forward_pre_hook(hook, **options).remove)
        yield
