"""A loaded model: prompts in, blocks out."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fisherflat._typing import Int, Tensor
from fisherflat.checkpoints.anatomy import Anatomy, dissect
from fisherflat.checkpoints.blocks import Block
from fisherflat.checkpoints.calls import Call, is_hidden, recording
from fisherflat.checkpoints.operator import Operator
from fisherflat.errors import CheckpointError, FisherflatError, InputError

#: a prompt: text, or token ids [n] or [1, n]
Prompt = str | Sequence[int] | Tensor


@dataclass(frozen=True, eq=False)
class Encoded:
    """A prompt as the model sees it.

    **Attributes:** `text`; `ids` `[n]`; `tokens`, as text; `special`, whether each is special (such as [CLS]) rather than text.
    """

    text: str
    ids: Int[Tensor, " n"]
    tokens: list[str]
    special: list[bool]


class Model:
    """A transformer and its tokenizer.

    **Args:** `module`, which takes `input_ids` `[1, n]`; `tokenizer` or `None`; `name`, for reports; `blocks`, the path
    of the list of blocks (default: found from a forward pass).

    Of an encoder-decoder the encoder is used.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any = None,
        *,
        name: str = "model",
        blocks: str | None = None,
        tokenizer_error: str | None = None,
    ) -> None:
        self.config = getattr(module, "config", None)
        self.module = module.get_encoder() if getattr(self.config, "is_encoder_decoder", False) else module
        self.tokenizer, self.name = tokenizer, name
        self._blocks_path = blocks
        self._tokenizer_error = tokenizer_error or "the model has no tokenizer"
        self._anatomy: list[Anatomy] | None = None
        self._takes = inspect.signature(self.module.forward).parameters

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def context(self) -> int | None:
        """The longest prompt that the model takes, in tokens; `None` where it names no limit."""
        text = self.config.get_text_config() if hasattr(self.config, "get_text_config") else self.config
        length = getattr(text, "max_position_embeddings", None)
        return length if isinstance(length, int) and length > 0 else None

    def encode(self, prompt: Prompt) -> Encoded:
        """Tokenize a prompt, or check token ids.

        **Raises:** `InputError` for an empty prompt, one longer than the context, or ids that the model does not have;
        `CheckpointError` for text where there is no tokenizer.
        """
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise CheckpointError(f"{self._tokenizer_error}, so text cannot be read; give the prompt as token ids, e.g. [5, 17, 3]")
            if not prompt.strip():
                raise InputError("the prompt is empty; give at least one word")
            ids = torch.tensor(self.tokenizer(prompt)["input_ids"], dtype=torch.long)
        else:
            ids = self._checked(prompt)
        if ids.numel() == 0:
            raise InputError("the prompt is empty: it holds no tokens")
        if self.context is not None and len(ids) > self.context:
            raise InputError(f"the prompt has {len(ids)} tokens, but {self.name} has a context of {self.context}; shorten it")
        if self.tokenizer is None:
            return Encoded(str(ids.tolist()), ids, [str(i) for i in ids.tolist()], [False] * len(ids))
        special = set(self.tokenizer.all_special_ids)
        text = prompt if isinstance(prompt, str) else self.tokenizer.decode(ids)
        return Encoded(text, ids, self.tokenizer.convert_ids_to_tokens(ids.tolist()), [i in special for i in ids.tolist()])

    def blocks(self, prompt: Prompt | Encoded) -> list[Block]:
        """The model's blocks as they ran on `prompt`: text, or token ids `[n]` or `[1, n]`.

        **Raises:** as `encode`, and `CheckpointError` where no list of blocks is found.
        """
        encoded = prompt if isinstance(prompt, Encoded) else self.encode(prompt)
        calls = self._run(encoded.ids)
        if self._anatomy is None:
            # one token cannot show what mixes tokens
            probe = calls if len(encoded.ids) > 1 else self._run(encoded.ids.repeat(4))
            self._anatomy = [dissect(Operator(call.module, call.arguments)) for call in probe if call.arguments]
        return [
            Block(index, call.module, call.arguments, anatomy, encoded.tokens)
            for index, (call, anatomy) in enumerate(zip(calls, self._anatomy, strict=True))
            if call.arguments
        ]

    def _checked(self, prompt: Sequence[int] | Tensor) -> Tensor:
        try:
            ids = torch.as_tensor(prompt)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(f"a prompt is a string or token ids [n] or [1, n]; this {type(prompt).__name__} cannot be read: {error}") from error
        if ids.dim() == 2 and ids.shape[0] == 1:
            ids = ids[0]
        if ids.dim() != 1 or (ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)):
            raise InputError(f"token ids must be integers of shape [n] or [1, n]; these have shape {list(ids.shape)} and {ids.dtype}")
        embedding = self.module.get_input_embeddings() if hasattr(self.module, "get_input_embeddings") else None
        size = getattr(embedding, "num_embeddings", None)
        wrong = [i for i in ids.tolist() if i < 0 or (size is not None and i >= size)]
        if wrong:
            raise InputError(f"token id {wrong[0]} is outside the vocabulary of {size} tokens")
        return ids.long().cpu()

    def _run(self, ids: Tensor) -> list[Call]:
        """One real forward pass; the calls of the blocks in order."""
        lists = self._lists()
        members = {f"{path}.{i}": block for path, blocks in lists.items() for i, block in enumerate(blocks)}
        inputs = {"input_ids": ids[None].to(self.device), "use_cache": False}
        with recording(members.items(), tokens=len(ids), copy=True) as calls:
            try:
                self.module(**{name: value for name, value in inputs.items() if name in self._takes})
            except FisherflatError:
                raise
            except IndexError as error:
                raise InputError(f"the prompt of {len(ids)} tokens does not fit the embeddings of {self.name} ({error}); shorten it") from error
            except Exception as error:
                raise CheckpointError(
                    f"{self.name} ({type(self.module).__name__}) failed on token ids: {type(error).__name__}: {error}"
                ) from error
        chosen = max((self._stack(path, calls, len(ids)) for path in lists), key=_weights, default=[])
        if not chosen:
            raise CheckpointError(
                f"no list of blocks that take and return hidden states [{len(ids)}, d] was found in {type(self.module).__name__}; "
                "give the part you mean to ff.StatisticalManifold as a function"
            )
        return chosen

    def _lists(self) -> dict[str, nn.ModuleList]:
        lists = {path: module for path, module in self.module.named_modules() if isinstance(module, nn.ModuleList) and len(module)}
        if self._blocks_path is None:
            return lists
        if self._blocks_path not in lists:
            raise CheckpointError(f"{self._blocks_path!r} is no list of modules in {type(self.module).__name__}; it has {sorted(lists)}")
        return {self._blocks_path: lists[self._blocks_path]}

    @staticmethod
    def _stack(path: str, calls: list[Call], tokens: int) -> list[Call]:
        """The calls of a list's members, if all of them take and return hidden states of one width."""
        mine = [call for call in calls if call.path.rpartition(".")[0] == path]
        widths = {call.arguments.hidden.shape[-1] if call.arguments else None for call in mine}
        if len(widths) != 1 or None in widths or not all(is_hidden(call.output, tokens, *widths) for call in mine):
            return []
        return mine


def _weights(calls: list[Call]) -> int:
    return sum(parameter.numel() for module in {call.module for call in calls} for parameter in module.parameters())
