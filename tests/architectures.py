"""The architectures that are traced, with what the source of each says about it.

`python tests/architectures.py` prints what the library finds in them as a table.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from typing import Any

import torch
from tiny_models import tiny_model
from torch import Tensor

import fisherflat as ff
from fisherflat.checkpoints import Block, Model, Operator
from fisherflat.jets import fallback

IDS = [5, 6, 7, 8]


@dataclass(frozen=True)
class Architecture:
    """What is true of an architecture.

    `sizes`: how its smallest configuration differs from the common one; `gate`: where the gate of its softmax attention
    is projected; `gated_mlp`: whether its MLP is gated; `also`: what must be frozen besides pattern and gate before its
    attention is affine in the hidden states.
    """

    sizes: dict[str, Any] = field(default_factory=dict)
    gate: str | None = None
    gated_mlp: bool = True
    also: tuple[str, ...] = ()


PLAIN = Architecture(gated_mlp=False)
GATED_MLP = Architecture()
LATENT = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8}
LATENT |= {"v_head_dim": 8, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
HYBRID = {"layer_types": ["linear_attention", "full_attention"]}

UNGATED = {
    "bert": PLAIN,
    "roberta": PLAIN,
    "distilbert": PLAIN,
    "deberta-v2": PLAIN,
    "modernbert": GATED_MLP,
    "gpt2": PLAIN,
    "opt": PLAIN,
    "phi": PLAIN,
    "phi3": GATED_MLP,
    "llama": GATED_MLP,
    "llama4_text": GATED_MLP,
    "mistral": GATED_MLP,
    "mixtral": GATED_MLP,
    "minimax": GATED_MLP,
    "qwen2": GATED_MLP,
    "qwen3": GATED_MLP,
    "gemma2": GATED_MLP,
    "gemma3_text": GATED_MLP,
    "olmo2": GATED_MLP,
    "olmo3": GATED_MLP,
    "olmoe": GATED_MLP,
    "cohere2": GATED_MLP,
    "granite": GATED_MLP,
    "glm4": GATED_MLP,
    "smollm3": GATED_MLP,
    "starcoder2": PLAIN,
    "stablelm": GATED_MLP,
    "nemotron": PLAIN,
    "persimmon": PLAIN,
    "helium": GATED_MLP,
    "exaone4": GATED_MLP,
    "ernie4_5": GATED_MLP,
    "arcee": PLAIN,
    "seed_oss": GATED_MLP,
    "hunyuan_v1_dense": GATED_MLP,
    "lfm2": Architecture({"layer_types": ["conv", "full_attention"]}),
    "bitnet": Architecture(also=("norm",)),  # attn_sub_norm, between attention and its output projection
    "hyperclovax": GATED_MLP,
    "gpt_oss": GATED_MLP,
}

GATED = {
    "afmoe": Architecture(gate="gate_proj"),
    "beam": Architecture(gate="gate_proj"),
    "hrm_text": Architecture(gate="gate_proj"),
    "laguna": Architecture(gate="g_proj"),
    "lfm3": Architecture(
        {"num_hidden_layers": 3, "layer_types": ["conv", "sliding_attention", "full_attention"]}, gate="g_proj"
    ),
    "muse_glimmer": Architecture(gate="gate_proj"),
    "muse_spark": Architecture(
        {"mlp_layer_types": ["dense", "sparse"], "moe_hidden_size": 16},
        gate="gate_proj",
        also=("norm",),  # o_norm, between attention and gate
    ),
    "qwen3_5": Architecture(HYBRID, gate="q_proj"),
    "qwen3_5_moe": Architecture(HYBRID, gate="q_proj"),
    "qwen3_next": Architecture(HYBRID, gate="q_proj"),
}

#: what nobody promised: other position codes, latent attention, older and newer designs
FURTHER = {
    "albert": PLAIN,
    "axk2": Architecture(LATENT, gate="q_gate_proj", also=("norm",)),
    "bailing_hybrid": Architecture(LATENT | {"layer_types": ["full_attention"] * 2}, gate="g_proj", also=("norm",)),
    "bloom": PLAIN,
    "cohere": GATED_MLP,
    "ctrl": PLAIN,
    "deberta": PLAIN,
    "deepseek_v2": Architecture(LATENT, also=("norm",)),  # kv_a_layernorm, between the two projections of the values
    "deepseek_v3": Architecture(LATENT, also=("norm",)),
    "dots3_note": Architecture(LATENT, gate="g_proj", also=("norm",)),
    "electra": PLAIN,
    "falcon": PLAIN,
    "gemma": GATED_MLP,
    "gpt_bigcode": PLAIN,
    "gpt_neo": PLAIN,
    "gpt_neox": PLAIN,
    "gptj": PLAIN,
    "granite_swa": GATED_MLP,
    "mpnet": PLAIN,
    "mpt": PLAIN,
    "openai-gpt": PLAIN,
    "t5": PLAIN,
}

ARCHITECTURES = UNGATED | GATED | FURTHER


@cache
def traced(part: Operator) -> ff.jets.Graph:
    return ff.trace(part, part.input)


@cache
def blocks(kind: str) -> list[Block]:
    """The blocks of a small random model on four tokens: the first of each kind, that is, of each sequence of ops."""
    found: dict[tuple[str, ...], Block] = {}
    for block in Model(tiny_model(kind, **ARCHITECTURES[kind].sizes)).blocks(IDS):
        found.setdefault(tuple(node.op for node in traced(block).nodes), block)
    return list(found.values())


def softmax_blocks(kind: str) -> list[Block]:
    """Those whose token mixer computes a softmax: not convolutions, not linear attention."""
    return [block for block in blocks(kind) if block.anatomy.softmax]


def chart(x: Tensor) -> ff.charts.Chart:
    """Two directions in which all tokens move."""
    generator = torch.Generator().manual_seed(3)
    return ff.charts.affine(x, 0.1 * torch.randn(2, *x.shape, generator=generator, dtype=torch.float64))


#: the captured input and a point away from it
POINTS = torch.tensor([[0.0, 0.0], [0.7, -0.4]], dtype=torch.float64)


def jet(function: Callable[[Tensor], Tensor], x: Tensor, engine: str = "taylor") -> ff.jets.Jet:
    return ff.StatisticalManifold(function, chart(x), engine=engine).jet(POINTS)


def disagreement(part: Operator) -> float:
    """The largest relative difference of value, Jacobian and Hessian between the two engines.

    One of them differentiates the traced graph, the other the module itself.
    """
    ours, truth = jet(traced(part), part.input), jet(part, part.input, "autodiff")
    pairs = [(ours.value, truth.value), (ours.jacobian, truth.jacobian), (ours.hessian, truth.hessian)]
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in pairs)


def row(kind: str) -> dict[str, str]:
    """What the library finds in an architecture: a row of the table."""
    found: dict[str, list[str]] = {name: [] for name in ("blocks", "attention gate", "MLP gate", "affine if frozen")}
    worst, fallbacks = 0.0, set()
    fallback._warned.clear()  # each is told once a process
    for block in blocks(kind):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            worst = max(worst, disagreement(block))
        fallbacks |= {str(w.message).split()[0] for w in caught if issubclass(w.category, ff.errors.FallbackWarning)}
        products = [node for node in traced(block).nodes if node.role.endswith("gate") and not node.factor]
        found["blocks"].append(f"{block.anatomy.mixer} ({len(traced(block).nodes)} nodes)")
        found["attention gate"] += [node.source for node in products if node.role == "attention_gate"]
        found["MLP gate"] += [node.source for node in products if node.role == "mlp_gate"]
        if block.anatomy.softmax:
            found["affine if frozen"].append(_affine_if(block.attention))
    cells = {name: ", ".join(dict.fromkeys(items)) or "none" for name, items in found.items()}
    return {
        "architecture": kind,
        **cells,
        "engines differ by": f"{worst:.0e}",
        "fallbacks": ", ".join(fallbacks) or "none",
    }


def _affine_if(attention: Operator) -> str:
    """The fewest roles that make attention affine when frozen."""
    found = {node.role for node in traced(attention).nodes if node.factor}
    for count in range(len(found) + 1):
        for roles in combinations([role for role in ff.jets.graph.ROLES if role in found], count):
            if not jet(ff.freeze(traced(attention), attention.input, roles), attention.input).hessian.any():
                return " + ".join(roles)
    return "never"


def main() -> None:
    torch.set_num_threads(1)
    rows = [row(kind) for kind in sorted(ARCHITECTURES)]
    print("|", " | ".join(rows[0]), "|")
    print("|", " | ".join("---" for _ in rows[0]), "|")
    for cells in rows:
        print("|", " | ".join(cells.values()), "|")


if __name__ == "__main__":
    main()
