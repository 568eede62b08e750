"""Small models of many architectures with random weights, made by the tests themselves."""

from __future__ import annotations

import importlib
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
    "emb_dim": 32,
    "embedding_size": 32,
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
    "d_inner": 48,
    "ffn_dim": 48,
    "hidden_dim": 48,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "num_dense_layers": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "chunk_size": 4,
    "mamba_chunk_size": 4,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
#: what else an architecture needs to be small and to show all its kinds of layer
AXES = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}}
SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 8},
    "cpmant": {"prompt_length": 0},
    "diffusion_gemma_text": {"top_k_experts": 2},
    "dots1": {"n_shared_experts": 1},
    "dots3_note_text": {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 4},
    "esm": {"vocab_size": VOCABULARY, "position_embedding_type": "rotary"},
    "esmc": {"num_key_value_heads": 4},
    "gemma4_text": {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8},
    "glm5_next_text": {"qk_rope_head_dim": 0, "head_dim": 0, "linear_head_dim": 8, "linear_num_heads": 4},
    "glm4v_text": AXES,
    "glm_image_text": AXES,
    "glm_ocr_text": AXES,
    "gptj": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {
        "layer_types": ["linear_attention", "full_attention"], "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8, "visual_embed": False},
    "led": {"attention_window": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lilt": {"hidden_size": 48},
    "longformer": {"attention_window": 4},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 16},
    "mistral4": {"head_dim": 16},
    "mobilebert": {"intra_bottleneck_size": 16},
    "falcon_h1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
    "nemotron_h": {"mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 1},
    "modernbert": {"global_attn_every_n_layers": 2},
    "muse_spark_text": {"moe_hidden_size": 16},
    "neomme": {"head_dim": 16, "embedding_rank": 16},
    "paddleocr_vl_text": AXES,
    "pegasus_x": {"block_size": 4, "num_global_tokens": 4},
    "qwen2_5_omni_text": AXES,
    "qwen2_5_vl_text": AXES,
    "qwen2_vl_text": AXES,
    "qwen4_exp_text": {
        "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 16,
        "indexer_compress_ratio": 2, "ple_layer_ids": [], "ple_embed_dim": 32, "hc_lowrank": 8,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32},
    "roc_bert": {"shape_vocab_size": 16, "pronunciation_vocab_size": 16, "shape_embed_dim": 8},
    "step3p5": {"sliding_window": 8},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 3, "layers_block_type": ["mamba", "hybrid", "hybrid"]},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
#: kinds of layer, one a layer
KINDS = ("layer_types", "layers_block_type", "mlp_layer_types")


def tiny_config(kind: str, **overrides: Any) -> Any:
    """A small configuration of an architecture, by its `model_type`; of one with several parts, of its text model.

    It has two layers, or one of each kind that the common configuration has.
    """
    from transformers import AutoConfig

    default = AutoConfig.for_model(kind).get_text_config()
    known = {*default.to_dict(), *getattr(default, "attribute_map", {})}
    sizes = {name: value for name, value in SIZES.items() if name in known}
    if "kv_lora_rank" in known:
        sizes["num_key_value_heads"] = 4  # latent attention has no groups
    sizes |= _each_kind_of_layer(default) | _rotary(default, sizes.get("head_dim", 8))
    return AutoConfig.for_model(default.model_type, **{**sizes, **SPECIAL.get(default.model_type, {}), **overrides})


def _each_kind_of_layer(default: Any) -> dict[str, Any]:
    """The kinds of layer of a configuration, each once; nothing where there is but one."""
    names = dict.fromkeys(default.attribute_map.get(name, name) for name in KINDS)
    settable = [name for name in names if not isinstance(getattr(type(default), name, None), property)]
    found = {name: list(dict.fromkeys(getattr(default, name, None) or ())) for name in settable}
    number = max(2, *map(len, found.values()))
    if not any(len(kinds) > 1 for kinds in found.values()):
        return {}
    lists = {name: (kinds + kinds[-1:] * number)[:number] for name, kinds in found.items() if kinds}
    return {"num_hidden_layers": number, **lists}


def _rotary(default: Any, head_dim: int) -> dict[str, Any]:
    """Rotary codes of several axes share out the frequencies of a head; these are fewer in a small one."""
    given = getattr(default, "rope_parameters", None) or {}
    sections = given.get("mrope_section")
    if not sections:
        return {}
    share = [max(1, head_dim // 2 * size // sum(sections)) for size in sections]
    share[0] += head_dim // 2 - sum(share)
    return {"rope_parameters": {**given, "mrope_section": share}}


def tiny_model(kind: str, seed: int = 0, **overrides: Any) -> nn.Module:
    """The model in float64, eager, with weights large enough that every part bends."""
    config = tiny_config(kind, **overrides)
    config._experts_implementation = "batched_mm"
    model = _class_of(config)._from_config(config, dtype=torch.float64, attn_implementation="eager").double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        parameter.data.copy_(0.2 * noise + (1.0 if parameter.dim() == 1 else 0.0))
    return model.eval().requires_grad_(False)


def _class_of(config: Any) -> Any:
    """The model of a configuration: that of `AutoModel`, or what its module has for it, as parts of larger models."""
    from transformers import AutoModel, PreTrainedModel

    if type(config) in AutoModel._model_mapping:
        found = AutoModel._model_mapping[type(config)]
        return found[0] if isinstance(found, tuple) else found
    module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    fitting = [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type) and issubclass(thing, PreTrainedModel) and thing.config_class is type(config)
    ]
    return next(thing for thing in fitting if thing.__name__.endswith(("TextModel", "Model", "Encoder")))


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
