"""One prompt or several."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor

from fisherflat.errors import InputError
from fisherflat.models import Encoded


def as_prompts(prompts: Any) -> list[Any]:
    """One prompt or several, as a list.

    **Args:** `prompts`: a text; token ids, as a list `[n]`, an array or a tensor `[n]` or `[1, n]`; hidden states
    `[n, d]`; or a sequence of those.

    **Raises:** `InputError` for something else, or none.
    """
    if isinstance(prompts, (str, Tensor, np.ndarray, Encoded)):
        return [prompts]
    if not isinstance(prompts, Sequence):
        raise InputError(f"prompts are a text, token ids, or a sequence of those; got {type(prompts).__name__}")
    if prompts and all(isinstance(item, Integral) for item in prompts):
        return [prompts]
    if not prompts:
        raise InputError("there are no prompts; give at least one text")
    return list(prompts)
