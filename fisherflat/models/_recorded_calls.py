"""Calls of modules as they happened in a real forward pass: what went in, what came out, inside which other call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from fisherflat._modes import lasting
from fisherflat.jets.recording import alone


def rows_of(value: object) -> int | None:
    """How many rows a hidden state has: a floating tensor `[n, d]`, `[1, n, d]`, `[n, 1, d]`, or a grid `[1, h, w, d]`.

    `None` for what is none.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.dim() not in (2, 3, 4):
        return None
    rows = value.shape[:-1]
    batched = (len(rows) == 2 and 1 not in rows) or (len(rows) == 3 and (rows[0] != 1 or 1 in rows[1:]))
    return None if batched else rows.numel()


def is_hidden(value: object, tokens: int, width: int | None = None) -> bool:
    """Whether `value` is a floating tensor with one row a token; see `rows_of`."""
    return rows_of(value) == tokens and (width is None or cast(Tensor, value).shape[-1] == width)


def is_state(value: object, tokens: int, width: int | None = None) -> bool:
    """Whether `value` is what blocks hand on: a hidden state, or several residual streams `[1, n, streams, d]`."""
    streams = isinstance(value, Tensor) and value.dim() == 4 and value.is_floating_point()
    if streams and cast(Tensor, value).shape[:2] == (1, tokens):
        return width is None or cast(Tensor, value).shape[-1] == width
    return is_hidden(value, tokens, width)


def first_tensor(output: Any, like: Tensor | None = None) -> Tensor | None:
    """The tensor that a module returned, alone or in a tuple, a dictionary or a model output.

    Of several the first that has the shape of `like`, the hidden state that went in; where none has, the first.
    """
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    alike = [leaf for leaf in tensors if like is not None and leaf.shape == like.shape and leaf.is_floating_point()]
    return next(iter(alike or tensors), None)


def same_tensor(a: object, b: object) -> bool:
    """Whether two tensors are one object or views of all of the same memory."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return False
    return a is b or (a.numel() == b.numel() > 0 and a.data_ptr() == b.data_ptr())


def same_values(a: Tensor | None, b: Tensor) -> bool:
    """Whether two tensors hold the same numbers, in any arrangement of axes of length one."""
    return a is not None and a.dtype == b.dtype and a.numel() == b.numel() and torch.equal(a.reshape(b.shape), b)


@dataclass(eq=False)
class Arguments:
    """The arguments of one call, one of which is the hidden state that may be replaced.

    **Attributes:** `args`, `kwargs`; `hidden`, the tensor among them that has one row a token (the first such; where
    there is none, the first with parallel residual streams). A key-value cache is dropped: a module that is called
    again would append to it.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    hidden: Tensor
    tokens: int

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any], tokens: int) -> Arguments | None:
        """The arguments of a call, or `None` where no hidden state is among them."""
        plain = (*args, *kwargs.values())  # before what is in a tuple, as positions are
        kinds = [(given, fits) for given in (plain, tree_leaves((args, kwargs))) for fits in (is_hidden, is_state)]
        hidden = next((value for given, fits in kinds for value in given if fits(value, tokens)), None)
        if hidden is None:
            return None
        args, kwargs = tree_map(lambda leaf: None if _is_cache(leaf) else leaf, (args, kwargs))
        return cls(args, kwargs, hidden, tokens)

    def answered(self, output: Any) -> Arguments:
        """The same, with the hidden state that the output is like, where a mask or a bias looks like one, too."""
        shapes = [leaf.shape for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        if self.hidden.shape in shapes:
            return self
        alike = [leaf for leaf in self.others() if rows_of(leaf) == rows_of(self.hidden) and leaf.shape in shapes]
        return replace(self, hidden=alike[0]) if alike else self

    @property
    def rows(self) -> Tensor:
        """The hidden state `[n, d]`; parallel streams are side by side, `[n, streams · d]`."""
        return self.hidden.reshape(self.tokens, -1)

    def others(self) -> list[Tensor]:
        """The other tensors among the arguments."""
        leaves = tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf is not self.hidden]

    def with_hidden(self, rows: Tensor | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`args, kwargs` with `rows` `[n, d]` wherever the hidden state was passed, and copies of all other tensors.

        Copies, because some modules change their arguments in place.
        """
        replacement = self.hidden.clone() if rows is None else rows.clone().reshape(self.hidden.shape)

        def replace(leaf: Any) -> Any:
            if leaf is self.hidden:
                return replacement
            if not isinstance(leaf, Tensor):
                return leaf
            # what is in the hidden state's precision follows it; clone, because `to(copy=True)` cannot be traced
            return (leaf.to(replacement.dtype) if leaf.dtype == self.hidden.dtype else leaf).clone()

        args, kwargs = tree_map(replace, (self.args, self.kwargs))
        return args, kwargs


def _is_cache(leaf: object) -> bool:
    return any(base.__name__ == "Cache" and base.__module__.startswith("transformers.") for base in type(leaf).__mro__)


@dataclass(eq=False)
class Call:
    """One call of a module.

    **Attributes:** `path`, the module's name below the recorded root; `module`; `arguments`, `None` where no hidden
    state went in; `output`, its first tensor; `parent`, the recorded call that it happened in; `order` of the start;
    `given`, its `args` and `kwargs`; `versions` of the tensors among them and of the output, by then (`_version`).
    """

    path: str
    module: nn.Module
    arguments: Arguments | None
    parent: Call | None
    order: int
    output: Tensor | None = field(default=None, repr=False)
    given: tuple[tuple[Any, ...], dict[str, Any]] = field(default=((), {}), repr=False)
    versions: list[tuple[Tensor, int | None]] = field(default_factory=list, repr=False)

    @property
    def untouched(self) -> bool:
        """Whether the output is still what the module made of these arguments: nobody has written into either since."""
        versions = self.versions
        return self.output is not None and all(v is not None and tensor._version == v for tensor, v in versions)

    def inside(self, other: Call) -> bool:
        """Whether this call happened within `other`."""
        parent = self.parent
        while parent is not None and parent is not other:
            parent = parent.parent
        return parent is other


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was written into; `None` for one of the inference mode, which torch does not watch."""
    return None if tensor.is_inference() else tensor._version


@contextmanager
def recording(modules: Iterable[tuple[str, nn.Module]], tokens: int, copy: bool) -> Iterator[list[Call]]:
    """Record the calls of `modules` (path, module) in order, outside of the inference mode.

    **Args:** `tokens`, the number of rows of a hidden state; `copy`: keep arguments as they were when the call began,
    even if the model changes them in place later. Without it tensors keep their identity, which shows who consumed
    what.
    """
    calls: list[Call] = []
    stack: list[Call] = []
    copies: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def keep(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if (version := _version(leaf)) is None:
            return leaf.detach().clone()
        key = (id(leaf), version)
        if key not in copies:
            copies[key] = (leaf, leaf.detach().clone())  # holding the original keeps its id from being used again
        return copies[key][1]

    def enter(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if copy:
                args, kwargs = tree_map(keep, (args, kwargs))
            parent = stack[-1] if stack else None
            call = Call(path, module, Arguments.of(args, kwargs, tokens), parent, len(calls), given=(args, kwargs))
            call.versions += [(leaf, _version(leaf)) for leaf in tree_leaves(call.given) if isinstance(leaf, Tensor)]
            calls.append(call)
            stack.append(call)

        return hook

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        call = stack.pop()
        if call.arguments is not None:
            call.arguments = call.arguments.answered(output)
        output = first_tensor(output, call.arguments.hidden if call.arguments else None)
        call.output = keep(output) if copy else output
        if call.output is not None:
            call.versions.append((call.output, _version(call.output)))

    with ExitStack() as hooks:
        hooks.enter_context(alone)
        hooks.enter_context(lasting())
        for path, module in modules:
            hooks.callback(module.register_forward_pre_hook(enter(path), with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        yield calls
