"""How well a language model predicts a text, in a unit that does not depend on its tokenizer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from fisherflat._typing import Float, Int, Tensor
from fisherflat.lab.experiments.language import CONTEXT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def nats(model: nn.Module, windows: Int[Tensor, "batch window"]) -> Float[Tensor, "batch rest"]:
    """The loss at each token of each window but the first, `-log p(token | those before it)`."""
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    return nn.functional.cross_entropy(logits.transpose(1, 2), windows[:, 1:], reduction="none")


@torch.no_grad()
def bits_per_byte(model: nn.Module, tokenizer: PreTrainedTokenizerFast, text: str, windows: int | None = None) -> float:
    """The loss on a text in bits per byte, over windows of the full context whose first token is given.

    **Args:** `windows`: how many, from the start of the text (default: all of them).
    """
    stream = encode(tokenizer, [text])
    lengths = torch.tensor([len(piece) for piece in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))])
    total = size = 0.0
    starts = torch.arange(0, len(stream) - CONTEXT, CONTEXT)[:windows, None]
    for part in (starts + torch.arange(CONTEXT + 1)).split(32):
        total += nats(model, stream[part]).double().sum().item()
        size += lengths[stream[part][:, 1:]].sum().item()
    return total / math.log(2) / size


def encode(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Int[Tensor, " tokens"]:
    """The tokens of all texts in a row."""
    parts = [part.ids for part in tokenizer.backend_tokenizer.encode_batch(list(texts))]
    return torch.tensor([token for ids in parts for token in ids])


def unigram_bits_per_byte(tokenizer: PreTrainedTokenizerFast, text: str) -> float:
    """What a model that knows the frequency of each token in the text itself, and nothing else, would need."""
    stream = encode(tokenizer, [text])
    share = torch.bincount(stream).double() / len(stream)
    entropy = -(share[share > 0] * share[share > 0].log2()).sum().item()
    return entropy * len(stream) / len(text.encode())


def causal(folder: Path) -> tuple[nn.Module, PreTrainedTokenizerFast]:
    """The causal language model in a folder, with its head, in float32, and its tokenizer."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.eval().requires_grad_(False), PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
