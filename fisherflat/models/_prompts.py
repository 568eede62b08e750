"""A prompt as a model sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from fisherflat._typing import Float, Int, Tensor
from fisherflat.errors import InputError


@dataclass(frozen=True, eq=False)
class Encoded:
    """A prompt as the model sees it.

    `Model.encode` makes one.

    **Attributes:**

    - `text`: the prompt.
    - `ids`: `[n]`; `tokens`: the same as text.
    - `special`: whether each token is special (such as [CLS]) rather than text.
    - `hidden`: `[n, d]`, where hidden states were given instead of ids, which then only set the length.
    - `lead`: how many tokens a decoder reads before the prompt.

    >>> import fisherflat as ff
    >>> ff.load("python-llama").encode("def mean(values):").tokens[0]
    'def'
    """

    text: str
    ids: Int[Tensor, " n"]
    tokens: list[str]
    special: list[bool]
    hidden: Float[Tensor, "n d"] | None = None
    lead: int = 0

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt as token ids, which `Model.encode` turns into this again."""
        return self.ids[self.lead :].tolist()


def token_ids(prompt: Any, vocabulary: int | None) -> Int[Tensor, " n"]:
    """Token ids `[n]` from those or `[1, n]`, in any form.

    **Raises:** `InputError` where they are none, or outside the vocabulary.
    """
    try:
        ids = torch.as_tensor(prompt)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"a prompt is text, token ids, [n] or [1, n], or hidden states [n, d]; got {type(prompt).__name__}: {error}"
        ) from error
    if ids.dim() == 2 and ids.shape[0] == 1:
        ids = ids[0]
    if ids.dim() != 1 or (ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)):
        raise InputError(f"token ids are integers, [n] or [1, n]; these have shape {list(ids.shape)} and {ids.dtype}")
    wrong = [i for i in ids.tolist() if i < 0 or (vocabulary is not None and i >= vocabulary)]
    if wrong:
        raise InputError(f"token id {wrong[0]} is outside the vocabulary of {vocabulary} tokens")
    return ids.long().cpu()
