"""The module and the tokenizer in what people hold: a wrapper, a pipeline, a compiled or adapted model."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import nn

from fisherflat.errors import CheckpointError, InputError


class Unwrapped(NamedTuple):
    """What was found in a wrapper.

    **Attributes:** `module`, the user's own; `tokenizer`, or `None`; `name`, for reports, which says what was merged.
    """

    module: nn.Module
    tokenizer: Any
    name: str


def unwrapped(source: Any) -> Unwrapped:
    """The module in `source`, which is one or holds one; low-rank adapters are merged into a copy.

    **Raises:** `InputError` where it holds none or several; `CheckpointError` for adapters that cannot be merged.
    """
    module, tokenizer = source, _tokenizer(source)
    while (inner := _inner(module)) is not None:
        module = inner
        tokenizer = tokenizer or _tokenizer(module)
    if hasattr(module, "peft_config") and hasattr(module, "get_base_model"):  # of peft, whatever the adapters are
        base, name = merged(module)
        return Unwrapped(base, tokenizer, name)
    return Unwrapped(module, tokenizer, type(module).__name__)


def merged(module: nn.Module) -> tuple[nn.Module, str]:
    """The base model of one with adapters, these added to the weights of a copy, and a name that says so.

    **Raises:** `CheckpointError` where they are of a kind that cannot be.
    """
    adapters = getattr(module, "active_adapters", None)
    names = ", ".join(adapters() if callable(adapters) else adapters or ()) or "adapter"
    try:
        # in double, or the sum would be rounded; `merge_and_unload` changes the module that it is called on
        base = copy.deepcopy(module).to(torch.float64).merge_and_unload()  # type: ignore[operator]
    except Exception as error:
        raise CheckpointError(
            f"the adapters ({names}) of {type(module).__name__} cannot be merged into its weights "
            f"({type(error).__name__}: {error}); give the base model, or a merged one"
        ) from error
    return base, f"{type(base).__name__}, {names} merged"


def _inner(source: Any) -> nn.Module | None:
    """What a wrapper is around; `None` for a module that is none.

    **Raises:** `InputError` for what is no module and does not hold just one.
    """
    found = _modules(source)
    if isinstance(source, nn.Module):
        if isinstance(compiled := dict(source.named_children()).get("_orig_mod"), nn.Module):  # of torch.compile
            return compiled
        mine = set(map(id, source.parameters()))
        # a view of a module, which itself is not registered in it
        around = [held for held in found.values() if mine and mine <= set(map(id, held.parameters()))]
        return around[0] if len(around) == 1 else None
    if len(found) != 1:
        what = f"which holds {', '.join(found)}: give the one that you mean" if found else "which holds no module"
        raise InputError(
            "a model is one of fisherflat.load, a module or an object that holds one, a folder, or the id of a cached "
            f"model; got {type(source).__name__}, {what}"
        )
    return next(iter(found.values()))


def _modules(source: Any) -> dict[str, nn.Module]:
    """The modules among the attributes of an object by name, without those that are parts of another."""
    try:
        held = {name: value for name, value in vars(source).items() if isinstance(value, nn.Module)}
    except TypeError:
        return {}
    inner = {id(part) for value in held.values() for part in list(value.modules())[1:]}
    return {name: value for name, value in held.items() if id(value) not in inner}


def _tokenizer(source: Any) -> Any:
    """A tokenizer of transformers that something carries along."""
    found = getattr(source, "tokenizer", None)
    return found if callable(found) and hasattr(found, "convert_ids_to_tokens") else None
