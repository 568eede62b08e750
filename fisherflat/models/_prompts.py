"""A prompt as a model sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fisherflat._arrays import as_float64, check_dense
from fisherflat._display import displayed
from fisherflat._typing import Float, Int, Tensor
from fisherflat.errors import InputError
from fisherflat.models._tokens import Token, unknown


@displayed
@dataclass(frozen=True, eq=False)
class Encoded:
    """A prompt as the model sees it.

    `Model.encode` makes one.

    **Attributes:**

    - `text`: the prompt.
    - `ids`: `[n]`; `tokens`: their names in the vocabulary.
    - `special`: whether each token is special (such as [CLS]) rather than text.
    - `hidden`: `[n, d]`, where hidden states were given instead of ids, which then only set the length.
    - `lead`: how many tokens a decoder reads before the prompt.
    - `inputs`: a dictionary of the model's own arguments, or its first one, where such were given.
    - `read`: what each token is to people: its text as a `label`, and its `kind`.

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
    inputs: Any = None
    read: Sequence[Token] = ()

    def __post_init__(self) -> None:
        if not self.read:
            object.__setattr__(self, "read", unknown(self.tokens))

    @classmethod
    def of_rows(cls, rows: int, text: str, **given: Any) -> Encoded:
        """What has rows, and no tokens of its own."""
        names = [str(i) for i in range(rows)]
        return cls(text, torch.zeros(rows, dtype=torch.long), names, [False] * rows, **given)

    @property
    def kind(self) -> str:
        """What the model is given: `ids`, `hidden` states, or `inputs` of its own."""
        return "inputs" if self.inputs is not None else "ids" if self.hidden is None else "hidden"

    @property
    def key(self) -> Any:
        """What tells the runs of a model apart."""
        return (tuple(self.ids.tolist()), id(self.hidden), id(self.inputs))

    def repeated(self) -> Encoded:
        """Several tokens for one, which cannot show what mixes tokens."""
        hidden = None if self.hidden is None else self.hidden.repeat(4, 1)
        return replace(self, ids=self.ids.repeat(4), hidden=hidden)

    @property
    def prompt_ids(self) -> list[int]:
        """The prompt as token ids, which `Model.encode` turns into this again."""
        return self.ids[self.lead :].tolist()


#: arguments of models whose first axis is that of a batch
BATCHED = ("input_ids", "pixel_values", "input_features", "input_values", "inputs_embeds")


def batch_of(shape: Sequence[int]) -> int:
    """How many prompts a floating tensor is by its shape: `[b, n, d]` or `[b, ...]` b, `[n, d]` and `[n, 1, d]` one."""
    return 1 if len(shape) < 3 or (len(shape) == 3 and shape[1] == 1) else shape[0]


def floating(prompt: Any) -> Tensor | None:
    """Hidden states or inputs in any form as a tensor in float64; `None` where they are no floating numbers."""
    if isinstance(prompt, str) or prompt is None:
        return None
    try:
        tensor = torch.as_tensor(prompt)
    except (TypeError, ValueError, RuntimeError):
        return None
    check_dense(tensor, "a prompt")
    if tensor.is_meta:
        raise InputError("a prompt on the meta device is without values; give it on the device of the model")
    if not tensor.is_floating_point() or not tensor.numel() or tensor.dim() < 2:
        return None
    return as_float64(tensor, "hidden states")


def arguments(given: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Arguments of a model: tensors on its device, floating ones in float64, without the padding that a mask marks.

    **Raises:** `InputError` where there are none, several prompts at once, or a mask that leaves nothing.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        if not isinstance(name, str):
            raise InputError(f"a dictionary of inputs has the names of a model's arguments; {name!r} is none")
        if value is None or isinstance(value, (bool, int, float, str)):
            found[name] = value
            continue
        try:
            tensor = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"the input {name!r} cannot be made a tensor: {error}") from error
        found[name] = (as_float64(tensor, name) if tensor.is_floating_point() else tensor).to(device)
    for name in BATCHED[1:]:
        batch = found.get(name)
        if isinstance(batch, Tensor) and batch.dim() > 1 and len(batch) != 1:
            raise InputError(f"{name} {list(batch.shape)} are {len(batch)} prompts, and one is asked for: {name}[:1]")
    if not any(isinstance(value, Tensor) for value in found.values()):
        raise InputError("a dictionary of inputs holds at least one tensor; this one has none")
    ids = found.get("input_ids")
    if not isinstance(ids, Tensor):
        return found
    ids = found["input_ids"] = ids[None] if ids.dim() == 1 else ids
    if ids.dim() != 2 or ids.shape[0] != 1:
        raise InputError(f"one prompt has token ids [1, n]; these are {list(ids.shape)}: give several as prompts")
    mask = found.get("attention_mask")
    if isinstance(mask, Tensor) and mask.numel() == ids.numel():
        kept = mask.reshape(-1).bool().nonzero().reshape(-1)
        if not len(kept):
            raise InputError("the attention mask leaves no token of the prompt")
        if int(kept[-1] - kept[0]) + 1 == len(kept):  # what is left out is padding
            del found["attention_mask"]
            part = slice(int(kept[0]), int(kept[-1]) + 1)
            alike = {name: value for name, value in found.items() if isinstance(value, Tensor)}
            alike = {name: value for name, value in alike.items() if value.numel() == mask.numel()}
            found |= {name: value.reshape(1, -1)[:, part] for name, value in alike.items()}
    if isinstance(kinds := found.get("token_type_ids"), Tensor) and not kinds.any():
        del found["token_type_ids"]  # which is what they are where none are given
    return found


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
        of = (
            f"outside the vocabulary of {vocabulary} tokens"
            if vocabulary
            else "negative; give states in floating point"
        )
        raise InputError(f"token id {wrong[0]} is {of}")
    return ids.long().cpu()
