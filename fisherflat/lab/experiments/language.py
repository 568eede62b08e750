"""Two small language models of Python source code: a Llama, and a Qwen3-Next-like with gated attention.

Both are transformers' own classes at small sizes, so that everything that reads checkpoints meets what it will meet in
large ones. A third, `CONSTANT_GATE`, is the second with its attention gates held at a constant: the same class, size
and initial weights otherwise, for a comparison that nothing but the gate enters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from fisherflat.errors import InputError
from fisherflat.zoo import CHECKPOINTS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

LLAMA, QWEN3_NEXT = CHECKPOINTS
CONSTANT_GATE = f"{QWEN3_NEXT}-constant-gate"
#: tokens that the models see at once, and have
CONTEXT, VOCABULARY = 128, 1024
#: what the models are analysed on: code of ours, in the style of what they were trained on
PROMPTS = (
    "def mean(values):\n    return sum(values) / len(values)\n",
    "class Stack:\n    def __init__(self):\n        self._items = []\n\n    def push(self, item):\n",
    "if not isinstance(name, str):\n    raise TypeError('name must be a string')\n",
    "for key, value in sorted(table.items()):\n    print(key, value, file=out)\n",
    "try:\n    import json\nexcept ImportError:\n    json = None\n",
    "with open(path, encoding='utf-8') as file:\n    lines = file.readlines()\n",
)

_SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,  # about 1 / √hidden_size, so that states and their updates are of one size
    "bos_token_id": None,
    "eos_token_id": None,
}
_LLAMA: dict[str, Any] = {"intermediate_size": 288}  # wider than the other's, to have as many parameters without gates
_QWEN3_NEXT: dict[str, Any] = {
    "intermediate_size": 256,
    "layer_types": ["linear_attention", "full_attention", "full_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 24,
    "linear_value_head_dim": 24,
    "num_experts": 0,  # plain gated MLPs
}


def untrained(name: str, seed: int) -> PreTrainedModel:
    """A causal language model with its initial weights, float32. `CONSTANT_GATE` has those of `QWEN3_NEXT`.

    **Raises:** `InputError` for a name that is not one of the three.
    """
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3NextConfig, Qwen3NextForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == LLAMA:
            return LlamaForCausalLM(LlamaConfig(**_SHARED, **_LLAMA))
        if name not in (QWEN3_NEXT, CONSTANT_GATE):
            raise InputError(
                f"there is no language model {name!r}; there are {LLAMA}, {QWEN3_NEXT} and {CONSTANT_GATE}"
            )
        model = Qwen3NextForCausalLM(Qwen3NextConfig(**_SHARED, **_QWEN3_NEXT))
    if name == CONSTANT_GATE:
        hold_gates(model)
    return model


@torch.no_grad()
def hold_gates(model: PreTrainedModel) -> None:
    """Set the weights of the attention gates to zero: each is then sigmoid(0), a half, whatever the input.

    A Qwen3-Next-like model keeps query and gate in one projection, for each head the query's rows and then the gate's.
    """
    for name, weight in model.named_parameters():
        if name.endswith("q_proj.weight"):
            weight.view(-1, 2, model.config.head_dim, weight.shape[1])[:, 1] = 0


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `VOCABULARY` tokens, without special ones: each token is a piece of the text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=CONTEXT)
