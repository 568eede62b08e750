"""A loaded model: prompts in, blocks out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn

from fisherflat._arrays import as_float64
from fisherflat._typing import Tensor
from fisherflat.errors import CheckpointError, FisherflatError, InputError
from fisherflat.jets.recording import evaluating, own
from fisherflat.models._block_list import find_stack, lists_of_modules, most_weights
from fisherflat.models._blocks import Block, Blocks
from fisherflat.models._part import Part
from fisherflat.models._prompts import Encoded, token_ids
from fisherflat.models._recorded_calls import Arguments, Call, recording
from fisherflat.models._sections import Sections, find_sections
from fisherflat.models._weights import Weights


class _Enough(Exception):
    """Raised inside the model once all blocks that are wanted have run."""


class Model:
    """A transformer and its tokenizer.

    `fisherflat.load` makes one.

    **Args:**

    - `module`: any that takes token ids `[1, n]`; it is put into eval mode.
    - `tokenizer`: one of transformers, or `None`; `name`: for reports.
    - `blocks`: the path of the list of blocks (default: found from a forward pass).
    - `part`: of an encoder-decoder, `"encoder"` (default) or `"decoder"`.
    - `weights`: where they are (default: in memory); `stored_dtypes`: their formats on disk.
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
    ) -> None:
        self.config: Any = getattr(module, "config", None)
        two = bool(getattr(self.config, "is_encoder_decoder", False))
        if part not in (None, "encoder", "decoder"):
            raise InputError(f'part is "encoder" or "decoder", got {part!r}')
        if part is not None and not two:
            raise InputError(f"{name} is not an encoder-decoder, so it has no part {part!r}; leave part out")
        whole: Any = module if weights is not None else own(module)  # the user's own is not touched
        #: what runs on a prompt; in a decoder's case with the encoder
        self.module: nn.Module = whole.get_encoder() if two and part != "decoder" else whole
        self._searched: nn.Module = whole.get_decoder() if part == "decoder" else self.module
        self.weights = weights or Weights(whole)
        self.tokenizer, self.name, self.part = tokenizer, name, part or ("encoder" if two else None)
        self.stored_dtypes = tuple(stored_dtypes)
        self._blocks_path = blocks
        self._tokenizer_error = tokenizer_error or "the model has no tokenizer"
        self._stack: str | None = None
        #: by layer; the same for every prompt
        self._sections: dict[int, Sections] = {}
        self._again = again or partial(
            Model, module, tokenizer, name=name, blocks=blocks, part=part, tokenizer_error=tokenizer_error
        )

    def __reduce__(self) -> tuple[Callable[[], Model], tuple[()]]:
        """Pickled, a model that was read from disk is where it is read from."""
        return self._again, ()

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
        """A prompt as the model sees it: a text, token ids `[n]` or `[1, n]`, or hidden states.

        Hidden states are a floating tensor `[n, d]` that enters the first block instead of the embeddings of n tokens.

        **Raises:** `InputError` for an empty prompt, one longer than the context, or ids that the model does not have;
        `CheckpointError` for text where there is no tokenizer.
        """
        if isinstance(prompt, torch.Tensor) and prompt.is_floating_point() and prompt.numel():
            encoded = self._hidden(prompt)
        elif isinstance(prompt, str):
            if self.tokenizer is None:
                raise CheckpointError(
                    f"{self._tokenizer_error}; give the prompt as token ids instead, e.g. [5, 17, 3], or as hidden "
                    "states [n, d]"
                )
            if not prompt.strip():
                raise InputError("the prompt is empty; give at least one word")
            encoded = self._encoded(torch.tensor(self.tokenizer(prompt)["input_ids"], dtype=torch.long), prompt)
        else:
            encoded = self._encoded(token_ids(prompt, self._vocabulary), None)
        length = len(encoded.ids)
        if self.context is not None and length > self.context:
            raise InputError(f"the prompt has {length} tokens, the context of {self.name} {self.context}; shorten it")
        return encoded

    def _encoded(self, ids: Tensor, text: str | None) -> Encoded:
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
        tokens = self.tokenizer.convert_ids_to_tokens(numbers)
        return Encoded(text, ids, tokens, [i in special for i in numbers], lead=len(start))

    def _hidden(self, prompt: Tensor) -> Encoded:
        rows = prompt[0] if prompt.dim() == 3 and prompt.shape[0] == 1 else prompt
        if rows.dim() != 2:
            raise InputError(f"token ids are integers, hidden states [n, d]; these have shape {list(prompt.shape)}")
        rows = as_float64(rows, "hidden states").to(self.device)
        # ids only set the length: they must not look like padding
        filler = next(i for i in range(2) if i != getattr(self.config, "pad_token_id", None))
        places = [str(i) for i in range(len(rows))]
        text = f"hidden states {list(rows.shape)}"
        return Encoded(text, torch.full((len(rows),), filler), places, [False] * len(rows), rows)

    def blocks(self, prompt: Any, stop: int | None = None) -> Blocks:
        """The model's blocks as they ran on `prompt`: anything that `encode` takes, or what it returned.

        **Args:** `stop`: the forward pass ends after so many blocks, and only those are returned.

        **Returns:** a sequence of `Block`. Where the weights stay on disk, each is read when it is taken out of the
        sequence, and lives as long as somebody holds it: use them one after the other.

        **Raises:** as `encode`, and `CheckpointError` where no list of blocks is found.
        """
        if stop is not None and stop < 1:
            raise InputError(f"stop must be at least 1, got {stop}")
        encoded = prompt if isinstance(prompt, Encoded) else self.encode(prompt)
        calls = self._run(encoded, stop)
        return Blocks(lambda layer: self._block(layer, encoded, calls), range(len(calls)), keep=not self.weights.lazy)

    def _block(self, layer: int, encoded: Encoded, calls: list[Call]) -> Block:
        call = calls[layer]
        module = self.weights.module(call.module)
        if layer not in self._sections:
            several = calls if len(encoded.ids) > 1 else self._run(_repeated(encoded), len(calls))
            self._sections[layer] = find_sections(Part(module, _arguments(several[layer])))
        return Block(layer, module, _arguments(call), self._sections[layer], encoded.tokens)

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

    # -- a real forward pass -------------------------------------------------------------------------------------------

    def _run(self, encoded: Encoded, stop: int | None = None) -> list[Call]:
        """One real forward pass; the calls of the blocks in order."""
        lists = lists_of_modules(self._searched, self._blocks_path)
        expected = self._stack or most_weights(lists)
        members = {f"{path}.{i}": block for path, blocks in lists.items() for i, block in enumerate(blocks)}
        if encoded.hidden is not None and self._stack is None and self._reads_ids:
            self._run(replace(encoded, hidden=None), stop)  # to see which block is the first
        with (
            torch.no_grad(),
            evaluating(self.module),
            _ended(lists.get(expected or "", ()), stop),  # before the next block's weights are read
            self.weights.running(),
            _entered(lists.get(self._stack or "", ()), encoded.hidden if self._reads_ids else None),
            recording(members.items(), tokens=len(encoded.ids), copy=True) as calls,
        ):
            self._call(encoded)
        chosen = find_stack(calls, lists, len(encoded.ids))
        found = chosen[0].path.rpartition(".")[0] if chosen else None
        if stop is not None and found != expected:  # stopped too early: the list with most weights is not the blocks
            if found is not None:
                self._stack = found
            return self._run(encoded)[:stop]
        if found is None:
            raise CheckpointError(
                f"{type(self.module).__name__} has no list of blocks that take and return hidden states; "
                "give the part you mean to ff.StatisticalManifold as a function"
            )
        self._stack = found
        return chosen

    def _call(self, encoded: Encoded) -> None:
        tokens = encoded.ids[None].to(self.device)
        if not self._reads_ids and encoded.hidden is not None:
            tokens = encoded.hidden[None]
        inputs = {"input_ids": tokens, "use_cache": False}
        if self.part == "decoder":
            inputs |= {"input_ids": tokens[:, 1:] if encoded.hidden is None else tokens, "decoder_input_ids": tokens}
        takes = inspect.signature(self.module.forward).parameters
        args = () if "input_ids" in takes else (tokens,)
        try:
            self.module(*args, **{name: value for name, value in inputs.items() if name in takes})
        except _Enough:
            return
        except FisherflatError:
            raise
        except Exception as error:
            if isinstance(error, IndexError) or "out of bounds" in str(error):
                raise InputError(
                    f"{tokens.shape[1]} tokens do not fit into the embeddings of {self.name} ({error}); shorten the "
                    "prompt"
                ) from error
            lazily = "; if that is because a weight is on disk, load with lazy=False" if self.weights.lazy else ""
            raise CheckpointError(
                f"{self.name} ({type(self.module).__name__}) failed on token ids: {type(error).__name__}: "
                f"{error}{lazily}"
            ) from error

    @property
    def _reads_ids(self) -> bool:
        """Whether the model embeds tokens itself; one of your own may take hidden states."""
        return any(isinstance(module, nn.Embedding) for module in self.module.modules())


def _repeated(encoded: Encoded) -> Encoded:
    """Several tokens for one, which cannot show what mixes tokens."""
    hidden = None if encoded.hidden is None else encoded.hidden.repeat(4, 1)
    return replace(encoded, ids=encoded.ids.repeat(4), hidden=hidden)


def _arguments(call: Call) -> Arguments:
    assert call.arguments is not None  # of the blocks in a stack
    return call.arguments


@contextmanager
def _ended(blocks: Sequence[nn.Module], stop: int | None) -> Iterator[None]:
    """The model stops when one of `blocks` is called after `stop` calls of them."""
    called = 0

    def count(module: nn.Module, args: Any) -> None:
        nonlocal called
        if called == stop:
            raise _Enough
        called += 1

    with _hooked(blocks if stop is not None else (), count):
        yield


@contextmanager
def _entered(blocks: Sequence[nn.Module], rows: Tensor | None) -> Iterator[None]:
    """The first call of one of `blocks` gets `rows` `[n, d]` as its hidden states."""
    given = False

    def give(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal given
        if given or rows is None:
            return None
        given = True
        arguments = Arguments.of(args, kwargs, len(rows))
        if arguments is None or arguments.rows.shape != rows.shape:
            width = "none" if arguments is None else list(arguments.rows.shape)
            raise InputError(f"the hidden states are {list(rows.shape)}, the first block takes {width}")
        return arguments.with_hidden(rows)

    with _hooked(blocks if rows is not None else (), give, with_kwargs=True):
        yield


@contextmanager
def _hooked(modules: Sequence[nn.Module], hook: Any, **options: bool) -> Iterator[None]:
    with ExitStack() as stack:
        for module in dict.fromkeys(modules):
            stack.callback(module.register_forward_pre_hook(hook, **options).remove)
        yield
