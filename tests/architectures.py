"""The architectures that are traced, with what the source of each says about it, and blocks of small models of them.

`tests/coverage.py` makes the table of them that is in the docs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from tiny_models import tiny_model
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.checkpoints import Block, Model, Operator

IDS = [5, 6, 7, 8]


@dataclass(frozen=True)
class Architecture:
    """What is true of an architecture.

    `gate`: where the gate of its softmax attention is projected; `gated_mlp`: whether its MLP is gated; `also`: what
    must be frozen besides pattern and gate before its attention is affine in the hidden states; `missing`: which parts
    the library does not give, and why.
    """

    gate: str | None = None
    gated_mlp: bool = True
    also: tuple[str, ...] = ()
    missing: str = ""


PLAIN = Architecture(gated_mlp=False)
GATED_MLP = Architecture()

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
    "lfm2": GATED_MLP,
    "bitnet": Architecture(also=("norm",)),  # attn_sub_norm, between attention and its output projection
    "hyperclovax": GATED_MLP,
    "gpt_oss": GATED_MLP,
}

GATED = {
    "afmoe": Architecture(gate="gate_proj"),
    "beam": Architecture(gate="gate_proj"),
    "hrm_text": Architecture(gate="gate_proj"),
    "laguna": Architecture(gate="g_proj"),
    "lfm3": Architecture(gate="g_proj"),
    "muse_glimmer": Architecture(gate="gate_proj"),
    "muse_spark": Architecture(gate="gate_proj", also=("norm",)),  # o_norm, between attention and gate
    "qwen3_5": Architecture(gate="q_proj"),
    "qwen3_5_moe": Architecture(gate="q_proj"),
    "qwen3_next": Architecture(gate="q_proj"),
}

#: what nobody promised: other position codes, latent attention, older and newer designs
FURTHER = {
    "albert": PLAIN,
    "axk2": Architecture(gate="q_gate_proj", also=("norm",)),
    "bailing_hybrid": Architecture(gate="g_proj", also=("norm",)),
    "bloom": PLAIN,
    "cohere": GATED_MLP,
    "ctrl": PLAIN,
    "deberta": PLAIN,
    "deepseek_v2": Architecture(also=("norm",)),  # kv_a_layernorm, between the two projections of the values
    "deepseek_v3": Architecture(also=("norm",)),
    "dots3_note": Architecture(gate="g_proj", also=("norm",)),
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
    found: dict[tuple[str | None, ...], Block] = {}
    for block in Model(tiny_model(kind)).blocks(IDS):
        try:
            kind_of_block: tuple[str | None, ...] = tuple(node.op for node in traced(block).nodes)
        except ff.errors.TraceError:
            kind_of_block = (block.anatomy.mixer,)
        found.setdefault(kind_of_block, block)
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


class Combined(nn.Module):
    """Eight random combinations of a map's outputs: what differs anywhere differs in them, too."""

    def __init__(self, function: Callable[[Tensor], Tensor], outputs: int) -> None:
        super().__init__()
        self.function = function
        generator = torch.Generator().manual_seed(5)
        self.weights = torch.randn(outputs, 8, generator=generator, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).reshape(-1) @ self.weights


def disagreement(part: Operator) -> float:
    """The largest relative difference of value, Jacobian and Hessian between the two engines.

    One of them differentiates the traced graph, the other the module itself.
    """
    outputs = part(part.input).numel()
    ours = jet(Combined(traced(part), outputs), part.input)
    truth = jet(Combined(part, outputs), part.input, "autodiff")
    pairs = [(ours.value, truth.value), (ours.jacobian, truth.jacobian), (ours.hessian, truth.hessian)]
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in pairs)
