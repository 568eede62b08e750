"""One prompt or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fisherflat._arrays import check_dense
from fisherflat.errors import InputError
from fisherflat.models._prompts import BATCHED, Encoded, batch_of


def as_prompts(prompts: Any) -> list[Any]:
    """One prompt or several, as a list.

    **Args:** `prompts`: a text; token ids, as a list `[n]`, an array or a tensor `[n]` or `[b, n]`; hidden states
    `[n, d]` or `[b, n, d]`; inputs of a model's own, `[b, ...]`, or a dictionary of such, as a tokenizer's padded batch
    is; or a sequence of those.

    **Raises:** `InputError` for something else, or none.
    """
    if isinstance(prompts, Mapping):
        return _rows(prompts)
    if isinstance(prompts, Tensor):
        check_dense(prompts, "a prompt")
    if isinstance(prompts, (Tensor, np.ndarray)):
        is_ids = not np.issubdtype(prompts.dtype, np.inexact) if isinstance(prompts, np.ndarray) else _is_ids(prompts)
        if is_ids:
            return list(prompts) if prompts.ndim == 2 and len(prompts) > 1 else [prompts]
        # a row of pixels keeps its batch axis: without it, it would be a batch itself
        rows = [prompts[i] if prompts.ndim == 3 else prompts[i : i + 1] for i in range(batch_of(prompts.shape))]
        return rows if len(rows) > 1 else [prompts]
    if isinstance(prompts, (str, Encoded)):
        return [prompts]
    if not isinstance(prompts, Sequence):
        raise InputError(f"prompts are a text, token ids, or a sequence of those; got {type(prompts).__name__}")
    if prompts and all(isinstance(item, Integral) for item in prompts):
        return [prompts]
    if not prompts:
        raise InputError("there are no prompts; give at least one text")
    if all(_is_numbers(item) for item in prompts):  # hidden states as nested lists
        return [prompts]
    return [prompt for item in prompts for prompt in (_rows(item) if isinstance(item, Mapping) else [item])]


def _rows(inputs: Mapping[Any, Any]) -> list[Any]:
    """The prompts of a batch: what has as many rows is divided."""
    sizes = [np.shape(inputs[name]) for name in BATCHED if inputs.get(name) is not None]
    size = sizes[0][0] if sizes and len(sizes[0]) > 1 else 1
    if size == 1:
        return [inputs]

    def of(value: Any, row: int) -> Any:
        return value[row : row + 1] if len(np.shape(value)) > 1 and len(value) == size else value

    return [{name: of(value, row) for name, value in inputs.items()} for row in range(size)]


def _is_ids(prompt: Tensor) -> bool:
    return not prompt.is_floating_point() and not prompt.is_complex() and prompt.dtype != torch.bool


def _is_numbers(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and bool(item) and all(isinstance(number, float) for number in item)
