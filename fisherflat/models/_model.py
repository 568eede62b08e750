"""A loaded model: prompts in, blocks out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, SupportsIndex

import torch
from torch import nn

from fisherflat._arrays import integer
from fisherflat._display import Card, displayed
from fisherflat._typing import Tensor
from fisherflat.errors import CheckpointError, CheckpointWarning, InputError, warn
from fisherflat.jets.recording import alone, own
from fisherflat.models._blocks import Block, Blocks
from fisherflat.models._forward import Forward, arguments_of
from fisherflat.models._part import Part
from fisherflat.models._prompts import Encoded, arguments, batch_of, floating, token_ids
from fisherflat.models._readout import Readout, Readouts
from fisherflat.models._recorded_calls import Call, rows_of
from fisherflat.models._rounded import computed_tables, in_words, rounded_anew, rounded_tables, stored_tables
from fisherflat.models._sections import Sections, find_sections
from fisherflat.models._task import Task
from fisherflat.models._tokens import read
from fisherflat.models._weights import Weights
from fisherflat.spaces.families import ParametricFamily


@displayed
class Model:
    """A transformer and its tokenizer.

    `fisherflat.load` makes one.

    **Args:**

    - `module`: any that takes token ids `[1, n]`; it is put into eval mode.
    - `tokenizer`: one of transformers, or `None`; `name`: for reports.
    - `blocks`: the path of the list of blocks (default: found from a forward pass).
    - `part`: of an encoder-decoder, `"encoder"` (default) or `"decoder"`.
    - `weights`: where they are (default: in memory); `stored_dtypes`: their formats on disk.
    - `rounded`: formats of tables that were computed, and rounded to half precision (default: those of the module);
      `halved`: names of buffers in half precision that are part of its state (likewise).
    - `task`: the same checkpoint with its head, where it is in files and has one.
    - `again`: what makes the same model in another process (default: this, with the module sent along).

    The decoder of an encoder-decoder reads its start token and then the prompt, with the encoder's states of the prompt
    held constant.

    >>> import fisherflat as ff
    >>> model = ff.load("python-llama")
    >>> model.name, len(model.blocks("def mean(values):"))
    ('python-llama', 4)
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any = None,
        *,
        name: str = "model",
        blocks: str | None = None,
        part: str | None = None,
        weights: Weights | None = None,
        tokenizer_error: str | None = None,
        again: Callable[[], Model] | None = None,
        stored_dtypes: Sequence[str] = (),
        rounded: Mapping[str, str] | None = None,
        task: Task | None = None,
        halved: Sequence[str] | None = None,
    ) -> None:
        self.config: Any = getattr(module, "config", None)
        two = bool(getattr(self.config, "is_encoder_decoder", False))
        if part not in (None, "encoder", "decoder"):
            raise InputError(f'part is "encoder" or "decoder", got {part!r}')
        if part is not None and not two:
            raise InputError(f"{name} is not an encoder-decoder, so it has no part {part!r}; leave part out")
        #: formats of tables that were computed, and rounded to half precision before
        self.rounded = rounded_tables(module) if rounded is None else dict(rounded)
        #: buffers in half precision that may have been computed, or trained
        self.halved = tuple(stored_tables(module) if halved is None else halved)
        if self.rounded:
            warn(f"{name}: {in_words(self.rounded)}", CheckpointWarning)
        whole: Any = module if weights is not None else own(module)  # the user's own is not touched
        #: what runs on a prompt; in a decoder's case with the encoder
        self.module: nn.Module = whole.get_encoder() if two and part != "decoder" else whole
        self._searched: nn.Module = whole.get_decoder() if part == "decoder" else self.module
        self.weights = weights or Weights(whole)
        #: of a control, see `fisherflat.control`, its kind; and what puts the tokens of a prompt into another order
        self.control: str | None = None
        self.reorder: Callable[[Encoded], Tensor] | None = None
        self.tokenizer, self.name, self.part = tokenizer, name, part or ("encoder" if two else None)
        self.stored_dtypes, self.task = tuple(stored_dtypes), task
        self._readouts = Readouts(self)
        self._tokenizer_error = tokenizer_error or "the model has no tokenizer"
        self._forward = Forward(self.module, self._searched, self.weights, blocks, self.part == "decoder", name)
        #: by layer; the same for every prompt
        self._sections: dict[int, Sections] = {}
        #: what makes the same model in another process
        self.again: Callable[[], Model] = again or partial(
            Model, module, tokenizer, name=name, blocks=blocks, part=part, tokenizer_error=tokenizer_error,
            rounded=self.rounded, halved=self.halved,
        )  # fmt: skip

    def __reduce__(self) -> tuple[Callable[[], Model], tuple[()]]:
        """Pickled, a model that was read from disk is where it is read from."""
        return self.again, ()

    @property
    def notes(self) -> list[str]:
        """What was worse about the model than it looks, in sentences, and that it is a control, where it is one."""
        said = [f"This is a control, not the model as it was trained: {self.control}."] if self.control else []
        said += [f"In {self.name}, {in_words(self.rounded)}."] if self.rounded else []
        if self.halved:
            more = f" and {len(self.halved) - 1} more" if len(self.halved) > 1 else ""
            said.append(
                f"{self.name} has buffers in half precision in its state ({self.halved[0]}{more}). They are taken as "
                "they are; if it computed them before it was cast, they have lost digits that no error shows."
            )
        return said

    @property
    def tables(self) -> list[str]:
        """The names of tables that the model computes rather than stores, such as rotary frequencies."""
        return [name for name, _, _ in computed_tables(self.module)]

    @contextmanager
    def tables_rounded_anew(self) -> Iterator[None]:
        """While it is on, these tables are off by about their own rounding: in this model, and for this thread.

        Others that run it wait. What differs meanwhile shows how far off they may have put it.
        """
        with alone, rounded_anew(self.module, self.rounded):
            yield

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.weights.device(self.module)

    @property
    def tokenizer_said(self) -> str:
        """The class of the tokenizer, or why there is none."""
        return self._tokenizer_error if self.tokenizer is None else type(self.tokenizer).__name__

    @property
    def context(self) -> int | None:
        """The longest prompt that the model takes, in tokens; `None` where it names no limit."""
        text = self.config.get_text_config() if hasattr(self.config, "get_text_config") else self.config
        length = getattr(text, "max_position_embeddings", None)
        return length if isinstance(length, int) and length > 0 else None

    def encode(self, prompt: Any) -> Encoded:
        """A prompt as the model sees it: a text, token ids `[n]` or `[1, n]`, hidden states, or inputs of its own.

        Hidden states are floating, `[n, d]`, `[1, n, d]` or `[n, 1, d]`. They enter the first block instead of the
        embeddings of n tokens; a model that takes hidden states is given them. Inputs of the model's own are a
        dictionary of its arguments, such as `{"input_ids": ..., "attention_mask": ...}`, or a floating tensor of
        another shape, such as pixels `[1, 3, h, w]`. Padding is dropped where a mask leaves one stretch of tokens. A
        batch of several prompts is refused here; studies take it as so many prompts.

        **Raises:** `InputError` for an empty prompt, one longer than the context, or ids that the model does not have;
        `CheckpointError` for text where there is no tokenizer.
        """
        if isinstance(prompt, Encoded):
            return prompt
        if isinstance(prompt, Mapping):
            encoded = self._given(arguments(prompt, self.device))
        elif (states := floating(prompt)) is not None:
            encoded = self._states(states)
        elif isinstance(prompt, str):
            if self.tokenizer is None:
                raise CheckpointError(
                    f"{self._tokenizer_error}; give the prompt as token ids instead, e.g. [5, 17, 3], or as hidden "
                    "states [n, d]"
                )
            if not prompt.strip():
                raise InputError("the prompt is empty; give at least one word")
            if re.search("[\ud800-\udfff]", prompt):  # as the shell hands over bytes that are no UTF-8
                raise InputError("the prompt holds half a character, which is no text; is it in UTF-8?")
            ids = torch.tensor(self.tokenizer(prompt)["input_ids"], dtype=torch.long)
            encoded = self._reordered(self.with_ids(self._known(ids), prompt))
        else:
            encoded = self._reordered(self.with_ids(token_ids(prompt, self._vocabulary)))
        if self.reorder is not None and encoded.kind != "ids":
            raise InputError(f"{self.name} takes texts and token ids: only their tokens have an order to lose")
        length = len(encoded.ids)
        if self.context is not None and length > self.context:
            raise InputError(f"the prompt has {length} tokens, the context of {self.name} {self.context}; shorten it")
        return encoded

    def _known(self, ids: Tensor) -> Tensor:
        """Token ids of the tokenizer, if the model has them all."""
        outside = [i for i in ids.tolist() if self._vocabulary is not None and i >= self._vocabulary]
        if outside:
            token = self.tokenizer.convert_ids_to_tokens(outside[:1])[0]
            raise InputError(
                f"the tokenizer ({self.tokenizer_said}) gives {token!r} the id {outside[0]}, outside the table of "
                f"{self._vocabulary} tokens of {self.name}; they do not belong together: give the tokenizer of the "
                "model, or token ids"
            )
        return ids

    def _reordered(self, encoded: Encoded) -> Encoded:
        return encoded if self.reorder is None else self.with_ids(self.reorder(encoded)[encoded.lead :])

    def with_ids(self, ids: Tensor, text: str | None = None) -> Encoded:
        """The prompt of these token ids, exactly, and its text where that is known."""
        if ids.numel() == 0:
            raise InputError("the prompt is empty: it holds no tokens")
        start = self._start if self.part == "decoder" else []
        ids = torch.cat([torch.tensor(start, dtype=torch.long), ids])
        numbers = ids.tolist()
        if self.tokenizer is None:
            return Encoded(str(numbers), ids, [str(i) for i in numbers], [False] * len(ids), lead=len(start))
        # an unknown word is text, although its token counts as special
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        if text is None:
            text = self.tokenizer.decode(numbers)
        tokens, marked = self.tokenizer.convert_ids_to_tokens(numbers), [i in special for i in numbers]
        words = read(self.tokenizer, numbers, tokens, marked)
        return Encoded(text, ids, tokens, marked, lead=len(start), read=words)

    def _states(self, states: Tensor) -> Encoded:
        """Hidden states where the model takes them, inputs of its own where it does not, or the shape is another."""
        states = states.to(self.device)
        if (prompts := batch_of(states.shape)) != 1:
            one = f"; a single input of the model's own, such as an image, is {[1, *states.shape]}"
            raise InputError(
                f"floating numbers {list(states.shape)} are a batch of {prompts} prompts, and one is asked for: take "
                f"one of them{one if states.dim() == 3 else ''}"
            )
        rows = rows_of(states) if states.dim() < 4 else None
        try:
            if rows is None:
                raise InputError(
                    f"hidden states are [n, d], those of several prompts [b, n, d]; these have shape "
                    f"{list(states.shape)}, and {self.name} does not take them as inputs of its own"
                )
            encoded = Encoded.of_rows(rows, f"hidden states {list(states.shape)}", hidden=states.reshape(rows, -1))
            # ids only set the length: they must not look like padding
            encoded = replace(encoded, ids=encoded.ids + (getattr(self.config, "pad_token_id", None) == 0))
            self._forward.run(encoded, 1)
            return encoded
        except (CheckpointError, InputError) as error:
            try:
                return self._given(states)
            except (CheckpointError, InputError) as instead:
                raise error from instead

    def _given(self, inputs: Any) -> Encoded:
        """Inputs of the model's own: token ids that are all there is are a prompt like any other."""
        ids = inputs.get("input_ids") if isinstance(inputs, dict) else None
        if ids is not None and len(inputs) == 1:
            return self.encode(ids)
        if ids is not None:
            encoded = self.with_ids(token_ids(ids, self._vocabulary))
            return replace(encoded, inputs=inputs)
        named = inputs.items() if isinstance(inputs, dict) else [("inputs", inputs)]
        text = ", ".join(f"{name} {list(value.shape)}" for name, value in named if isinstance(value, Tensor))
        encoded = Encoded.of_rows(1, text, inputs=inputs)
        return Encoded.of_rows(self._forward.rows(encoded), text, inputs=inputs)

    def blocks(self, prompt: Any, stop: SupportsIndex | None = None) -> Blocks:
        """The model's blocks as they ran on `prompt`: anything that `encode` takes, or what it returned.

        **Args:** `stop`: the forward pass ends after so many blocks, and only those are returned.

        **Returns:** a sequence of `Block`. Where the weights stay on disk, each is read when it is taken out of the
        sequence, and lives as long as somebody holds it: use them one after the other.

        **Raises:** as `encode`, and `CheckpointError` where no list of blocks is found.
        """
        stop = None if stop is None else integer(stop, "stop", 1)
        encoded = self.encode(prompt)
        calls = self._forward.run(encoded, stop)
        return Blocks(_Making(self, encoded, calls), range(len(calls)), keep=not self.weights.lazy)

    def readout(self, kind: str | ParametricFamily, prompt: Any) -> Readout:
        """What the model's own final norm, pooling and head make of hidden states on a prompt.

        **Args:**

        - `kind`: `"next-token"`, the distribution of the token that follows each one (a logit lens); `"class"`, that
          of the classes of a classifier; `"direction"`, the unit vector of a sentence encoder; or one of
          `fisherflat.families`, whose parameters the states before the unembedding are.
        - `prompt`: anything that `encode` takes.

        **Returns:** a `Readout`: `.lens`, a map of states `[n, d]`, and the `.family` of what it returns.

        **Raises:** `CheckpointError` where the model has no such head, saying what to pass.

        >>> import fisherflat as ff
        >>> model = ff.load("python-llama")
        >>> model.readout("next-token", "def mean(values):").family
        NextToken(1024 tokens, d=96)
        """
        return self._readouts.find(kind, self.encode(prompt))

    def _block(self, layer: int, encoded: Encoded, calls: list[Call]) -> Block:
        call = calls[layer]
        module = self.weights.module(call.module)
        if layer not in self._sections:
            one = len(encoded.ids) == 1 and encoded.inputs is None  # which cannot show what mixes tokens
            several = self._forward.run(encoded.repeated(), len(calls)) if one else calls
            self._sections[layer] = find_sections(Part(module, arguments_of(several[layer])))
        return Block(layer, module, arguments_of(call), self._sections[layer], encoded.tokens)

    @cached_property
    def _vocabulary(self) -> int | None:
        """The number of token ids that the model has an embedding for."""
        try:
            return getattr(self.module.get_input_embeddings(), "num_embeddings", None)  # type: ignore[operator]
        except (AttributeError, NotImplementedError):
            return getattr(self.config, "vocab_size", None)

    @cached_property
    def _start(self) -> list[int]:
        """What a decoder reads before the prompt."""
        names = ("decoder_start_token_id", "bos_token_id", "pad_token_id")
        given = [getattr(self.config, name, None) for name in names]
        return [next((i for i in given if isinstance(i, int) and i < (self._vocabulary or i + 1)), 0)]

    def _card(self) -> Card:
        about: dict[str, Any] = {"architecture": type(self.module).__name__, "part": self.part}
        about |= {"tokenizer": self.tokenizer_said, "context": self.context}
        about["parameters"] = f"{sum(parameter.numel() for parameter in self.module.parameters()):,}"
        return Card(self.name, {name: value for name, value in about.items() if value is not None})


@dataclass(frozen=True)
class _Making:
    """Makes the blocks of a model as they ran on a prompt; a copy has run itself."""

    model: Model
    encoded: Encoded
    calls: list[Call]

    def __call__(self, layer: int) -> Block:
        return self.model._block(layer, self.encoded, self.calls)

    def __reduce__(self) -> Any:
        return _made_anew, (self.model, self.encoded, len(self.calls))


def _made_anew(model: Model, encoded: Encoded, count: int) -> _Making:
    return _Making(model, encoded, model._forward.run(encoded, count))
