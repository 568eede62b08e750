"""Tables that a model computes rather than stores, and that were rounded before it came here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def rounded_tables(module: nn.Module) -> dict[str, str]:
    """The formats, by name, of a module's computed tables in half precision, such as its rotary frequencies.

    Weights in half precision are what the model is, and are promoted exactly. A table that is not in the state of the
    module is computed once from its configuration; casting the module rounds it to two or three digits, and then it is
    not the one that the model was trained with. Whole numbers, as in masks, have lost nothing.
    """
    half = (torch.float16, torch.bfloat16)
    return {
        name: str(part._buffers[own].dtype).removeprefix("torch.")  # type: ignore[union-attr]
        for name, part, own in computed_tables(module)
        if part._buffers[own].dtype in half  # type: ignore[union-attr]
    }


def stored_tables(module: nn.Module) -> list[str]:
    """The names of buffers in half precision that are in the state of a module: whether computed, nobody can tell."""
    return [
        f"{prefix}.{name}".lstrip(".")
        for prefix, part in module.named_modules()
        for name, table in part._buffers.items()
        if name not in part._non_persistent_buffers_set
        and table is not None
        and table.dtype in (torch.float16, torch.bfloat16)
        and _rounds(table)
    ]


def computed_tables(module: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """The tables that a module computes, of numbers that are not whole: name, the part that has it, its name there."""
    return [
        (f"{prefix}.{name}".lstrip("."), part, name)
        for prefix, part in module.named_modules()
        for name in sorted(part._non_persistent_buffers_set)
        if (table := part._buffers.get(name)) is not None and table.is_floating_point() and _rounds(table)
    ]


def _rounds(table: Tensor) -> bool:
    """Whether it holds anything that rounding could change."""
    return not table.is_meta and not bool((table == table.round()).all())


@contextmanager
def rounded_anew(module: nn.Module, formats: Mapping[str, str]) -> Iterator[None]:
    """While it is on, each computed table of a module is off by about its own rounding.

    **Args:** `formats`, in which tables were computed, by name, where that is not float32.
    """
    before = []
    generator = torch.Generator().manual_seed(0)
    try:
        for name, part, own in computed_tables(module):
            table = part._buffers[own]
            assert table is not None
            eps = torch.finfo(getattr(torch, formats.get(name, "float32"))).eps
            signs = torch.randint(0, 2, table.shape, generator=generator).to(table) * 2 - 1
            before.append((part, own, table))
            part._buffers[own] = table * (1 + eps / 2 * signs)  # another tensor: who watches the table sees no change
        yield
    finally:
        for part, own, table in before:
            part._buffers[own] = table


def in_words(tables: dict[str, str]) -> str:
    """What follows from them, in a sentence."""
    name, dtype = next(iter(tables.items()))
    many = f"{len(tables)} tables that the model computes are" if len(tables) > 1 else "a table that it computes is"
    digits = "two to three" if dtype == "bfloat16" else "three to four"
    return (
        f"the module was cast to {dtype}, and {many} rounded to {digits} digits ({name}): curvature may be off by more "
        "than its error says. Load its folder, or cast no further than float32"
    )
