"""A loaded model: prompts in, blocks out."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from fisherflat._typing import Int, Tensor
from fisherflat.checkpoints.anatomy import Anatomy, dissect
from fisherflat.checkpoints.blocks import Block
from fisherflat.checkpoints.calls import Call, is_hidden, recording, same_values
from fisherflat.checkpoints.operator import Operator
from fisherflat.errors import CheckpointError, FisherflatError, InputError
from fisherflat.jets.mapping import evaluating


@dataclass(frozen=True, eq=False)
class Encoded:
    """A prompt as the model sees it.

    **Attributes:** `text`; `ids` `[n]`; `tokens`, as text; `special`, whether each is special (such as [CLS]) rather
    than text.
    """

    text: str
    ids: Int[Tensor, " n"]
    tokens: list[str]
    special: list[bool]


class Model:
    """A transformer and its tokenizer.

    **Args:** `module`, any that takes token ids `[1, n]` as `input_ids`, put into eval mode; `tokenizer` or `None`;
    `name`, for reports; `blocks`, the path of the list of blocks (default: found from a forward pass).

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
        self.config: Any = getattr(module, "config", None)
        encoder: Any = getattr(module, "get_encoder", None)
        self.module: nn.Module = encoder() if getattr(self.config, "is_encoder_decoder", False) else module
        self.module.eval()
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

    def encode(self, prompt: Any) -> Encoded:
        """Tokenize a prompt, or check token ids `[n]` or `[1, n]`.

        **Raises:** `InputError` for an empty prompt, one longer than the context, or ids that the model does not have;
        `CheckpointError` for text where there is no tokenizer.
        """
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise CheckpointError(f"{self._tokenizer_error}; give the prompt as token ids instead, e.g. [5, 17, 3]")
            if not prompt.strip():
                raise InputError("the prompt is empty; give at least one word")
            ids = torch.tensor(self.tokenizer(prompt)["input_ids"], dtype=torch.long)
        else:
            ids = self._checked(prompt)
        if ids.numel() == 0:
            raise InputError("the prompt is empty: it holds no tokens")
        if self.context is not None and len(ids) > self.context:
            raise InputError(f"the prompt has {len(ids)} tokens, the context of {self.name} {self.context}; shorten it")
        if self.tokenizer is None:
            return Encoded(str(ids.tolist()), ids, [str(i) for i in ids.tolist()], [False] * len(ids))
        # an unknown word is text, although its token counts as special
        numbers, special = ids.tolist(), set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        text = prompt if isinstance(prompt, str) else self.tokenizer.decode(numbers)
        return Encoded(text, ids, self.tokenizer.convert_ids_to_tokens(numbers), [i in special for i in numbers])

    def blocks(self, prompt: Any) -> list[Block]:
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

    def _checked(self, prompt: Any) -> Tensor:
        try:
            ids = torch.as_tensor(prompt)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"a prompt is text or token ids, [n] or [1, n]; got {type(prompt).__name__}: {error}"
            ) from error
        if ids.dim() == 2 and ids.shape[0] == 1:
            ids = ids[0]
        if ids.dim() != 1 or (ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)):
            raise InputError(
                f"token ids are integers, [n] or [1, n]; these have shape {list(ids.shape)} and {ids.dtype}"
            )
        size = self._vocabulary
        wrong = [i for i in ids.tolist() if i < 0 or (size is not None and i >= size)]
        if wrong:
            raise InputError(f"token id {wrong[0]} is outside the vocabulary of {size} tokens")
        return ids.long().cpu()

    @cached_property
    def _vocabulary(self) -> int | None:
        """The number of token ids that the model has an embedding for."""
        try:
            return getattr(self.module.get_input_embeddings(), "num_embeddings", None)  # type: ignore[operator]
        except (AttributeError, NotImplementedError):
            return getattr(self.config, "vocab_size", None)

    def _run(self, ids: Tensor) -> list[Call]:
        """One real forward pass; the calls of the blocks in order."""
        lists = self._lists()
        members = {f"{path}.{i}": block for path, blocks in lists.items() for i, block in enumerate(blocks)}
        inputs = {"input_ids": ids[None].to(self.device), "use_cache": False}
        recorded = recording(members.items(), tokens=len(ids), copy=True)
        with torch.no_grad(), evaluating(self.module), recorded as calls:
            try:
                self.module(**{name: value for name, value in inputs.items() if name in self._takes})
            except FisherflatError:
                raise
            except Exception as error:
                if isinstance(error, IndexError) or "out of bounds" in str(error):
                    raise InputError(
                        f"{len(ids)} tokens do not fit into the embeddings of {self.name} ({error}); shorten the prompt"
                    ) from error
                raise CheckpointError(
                    f"{self.name} ({type(self.module).__name__}) failed on token ids: {type(error).__name__}: {error}"
                ) from error
        chosen = max((self._stack(path, calls, len(ids)) for path in lists), key=_weights, default=[])
        if not chosen:
            raise CheckpointError(
                f"{type(self.module).__name__} has no list of blocks that take and return hidden states; "
                "give the part you mean to ff.StatisticalManifold as a function"
            )
        return chosen

    def _lists(self) -> dict[str, nn.ModuleList]:
        modules = self.module.named_modules()
        lists = {path: module for path, module in modules if isinstance(module, nn.ModuleList) and len(module)}
        if self._blocks_path is None:
            return lists
        if self._blocks_path not in lists:
            raise CheckpointError(f"{self._blocks_path!r} is no list of modules; there are {sorted(lists)}")
        return {self._blocks_path: lists[self._blocks_path]}

    @staticmethod
    def _stack(path: str, calls: list[Call], tokens: int) -> list[Call]:
        """The calls of a list's members, if these hand hidden states of one width from one to the next."""
        mine = [call for call in calls if call.path.rpartition(".")[0] == path]
        states = [call.arguments.hidden for call in mine if call.arguments]
        widths = {state.shape[-1] for state in states}
        if len(states) < len(mine) or len(widths) != 1 or not all(is_hidden(c.output, tokens, *widths) for c in mine):
            return []
        passed_on = [same_values(call.output, state) for call, state in zip(mine, states[1:], strict=False)]
        return mine if 2 * sum(passed_on) >= len(passed_on) else []


def _weights(calls: list[Call]) -> int:
    return sum(parameter.numel() for module in {call.module for call in calls} for parameter in module.parameters())
