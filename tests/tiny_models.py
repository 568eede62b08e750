"""Small models of many architectures with random weights, made by the tests themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

VOCABULARY = 60

#: sizes under the names that architectures give them; each takes those that it knows
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "dim": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "num_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "d_kv": 8,
    "intermediate_size": 48,
    "d_ff": 48,
    "ffn_dim": 48,
    "hidden_dim": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "num_dense_layers": 1,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
#: what else an architecture needs to be small and to show all its kinds of layer
SPECIAL: dict[str, dict[str, Any]] = {
    "gptj": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "modernbert": {"global_attn_every_n_layers": 2},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
}


def tiny_config(kind: str, **overrides: Any) -> Any:
    """A small configuration of an architecture, by its `model_type`; of one with several parts, of its text model."""
    from transformers import AutoConfig

    default = AutoConfig.for_model(kind).get_text_config()
    known = {*default.to_dict(), *getattr(default, "attribute_map", {})}
    sizes = {name: value for name, value in SIZES.items() if name in known}
    return AutoConfig.for_model(default.model_type, **{**sizes, **SPECIAL.get(kind, {}), **overrides})


def tiny_model(kind: str, seed: int = 0, **overrides: Any) -> nn.Module:
    """The model in float64, eager, with weights large enough that every part bends."""
    from transformers import AutoModel

    config = tiny_config(kind, **overrides)
    config._experts_implementation = "batched_mm"
    model = AutoModel.from_config(config, dtype=torch.float64, attn_implementation="eager").double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data.copy_(0.2 * noise + (1.0 if parameter.dim() == 1 else 0.0))
    return model.eval().requires_grad_(False)


def save_tiny(folder: Path, kind: str, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """Write a tiny model as a checkpoint folder (safetensors, no tokenizer)."""
    tiny_model(kind).to(dtype).save_pretrained(folder, **options)
    return folder


def save_word_tokenizer(folder: Path) -> None:
    """Write a tokenizer that splits at blanks; `[CLS]` and `[SEP]` go around the words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "the", "cat", "sat", "on", "a", "mat", "and", "saw", "dogs", "run"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
    ).save_pretrained(folder)
