"""Tables that a model computes rather than stores, and that were rounded before it came here."""

from __future__ import annotations

import torch
from torch import nn


def rounded_tables(module: nn.Module) -> dict[str, str]:
    """The formats, by name, of a module's computed tables in half precision, such as its rotary frequencies.

    Weights in half precision are what the model is, and are promoted exactly. A table that is not in the state of the
    module is computed once from its configuration; casting the module rounds it to two or three digits, and then it is
    not the one that the model was trained with. Whole numbers, as in masks, have lost nothing.
    """
    found = {}
    for prefix, part in module.named_modules():
        for name in part._non_persistent_buffers_set:
            table = part._buffers.get(name)
            if table is None or table.dtype not in (torch.float16, torch.bfloat16):
                continue
            if not (table == table.round()).all():
                found[f"{prefix}.{name}".lstrip(".")] = str(table.dtype).removeprefix("torch.")
    return found


def in_words(tables: dict[str, str]) -> str:
    """What follows from them, in a sentence."""
    name, dtype = next(iter(tables.items()))
    many = f"{len(tables)} tables that the model computes are" if len(tables) > 1 else "a table that it computes is"
    digits = "two to three" if dtype == "bfloat16" else "three to four"
    return (
        f"the module was cast to {dtype}, and {many} rounded to {digits} digits ({name}): curvature may be off by more "
        "than its error says. Load its folder, or cast no further than float32"
    )
