"""The architectures that are traced, with what the source of each says about it, and blocks of small models of them.

`tests/cases/architecture_table.py` makes the table of them that is in the docs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

import fisherflat as ff
from cases.tiny_models import tiny_model
from fisherflat.models import Block, Model, Part

IDS = [5, 6, 7, 8]


@dataclass(frozen=True)
class Architecture:
    """What is true of an architecture.

    `gate`: where the gate of its softmax attention is projected; `gated_mlp`: whether its MLP is gated (`None`: not
    said); `also`: what must be frozen besides pattern and gate before its attention is affine in the hidden states;
    `bent`: what else bends its attention, whatever is frozen; `missing`: which parts the library does not give, and
    why; `costly`: why `torch.func` is not asked about its layers without a softmax.
    """

    gate: str | None = None
    gated_mlp: bool | None = True
    also: tuple[str, ...] = ()
    bent: str = ""
    missing: str = ""
    costly: str = ""


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

#: no gate, and nothing but the pattern between values and output
_BARE = """
aimv2_text_model align_text_model altclip_text_model apertus aria_text bamba bart bert-generation big_bird
bigbird_pegasus biogpt blenderbot blenderbot-small blip_text_model bridgetower_text_model camembert canine
chinese_clip_text_model clap_text_model clip_text_model clipseg_text_model codegen cohere2_moe
cosmos3_edge_text cpmant cwm data2vec-text doge dots1 dpr emu3_text_model ernie ernie4_5_moe esm esmc eurobert
exaone_moe falcon_h1 flava_text_model flex_olmo flint fsmt glm glm4_moe glm4v_text glm_image_text glm_ocr_text
gpt_neox_japanese granite4_vision_text granite_docling_text granitemoe granitemoe_swa granitemoehybrid
granitemoeshared groupvit_text_model gte higgs_audio_v2 hunyuan_v1_moe hy_v3 imagegpt inkling_text jais2 jamba
jina_embeddings_v3 kolibri1 kosmos_2_5_text_model layoutlm layoutlmv3 lfm2_moe lilt longt5 luke m2m_100 marian
markuplm mbart megatron-bert mellum metaclip_2_text_model mimo_v2_flash minimax_m2 minimax_m3_vl_text ministral
ministral3 mllama_text_model modernbert-decoder molmo2_text moshi mt5 mvp nanochat nllb-moe nomic_bert nystromformer
olmo olmo_hybrid openai_privacy_filter owlv2_text_model owlvit_text_model paddleocr_vl_text pegasus phimoe plbart
prophetnet qwen2_5_omni_text qwen2_5_vl_text qwen2_moe qwen2_vl_text qwen3_moe qwen3_vl_moe_text qwen3_vl_text
recurrent_gemma rembert roberta-prelayernorm roc_bert roformer siglip2_text_model siglip_text_model solar_open
splinter switch_transformers tapas tipsv2_text_model ultrabert umt5 vaultgemma visual_bert xclip_text_model xglm
xlm-roberta xlm-roberta-xl xmod
"""
#: no gate, but a norm of values, of latent values or of attention output
_NORMED = """
axk1 deepseek_v32 diffllama diffusion_gemma_text embedding_gemma2_text gemma4_text gemma4_unified_text glm4_moe_lite
glm_moe_dsa kosmos_2_text_model minicpm3 mistral4 mistral_large4_text youtu
"""
WIDER = dict.fromkeys(_BARE.split(), Architecture(gated_mlp=None))
WIDER |= dict.fromkeys(_NORMED.split(), Architecture(gated_mlp=None, also=("norm",)))
_ROUTED = "its loop over the chosen experts branches on values, so that block and MLP have no single graph"
WIDER |= {
    "convbert": Architecture(
        gated_mlp=None,
        bent="half of its heads are dynamic convolutions, whose kernels are no pattern and stay live",
    ),
    "deepseek_v4": Architecture("gate_proj", also=("norm",)),  # of the compressor: pools values, in every other layer
    "glm5_next_text": Architecture(
        also=("norm",), missing="its indexer branches on values, so that softmax attention has no single graph"
    ),
    "hy_v4": Architecture("gate_proj", also=("norm",)),
    "ibert": Architecture(also=("norm",), missing="inside the MLP, layers hand on pairs of values and scales"),
    "inkling2_text": Architecture(
        "gate_proj",
        also=("norm",),
        missing="queries, keys and values of full attention are of three different states, which is no map of one",
    ),
    "jetmoe": Architecture(missing="attention and MLP are mixtures that read counts off their router: no single graph"),
    "kimi_linear": Architecture(
        also=("norm",), costly="of its linear layers, `torch.func` takes minutes: engines not compared there"
    ),
    "led": PLAIN,
    "longcat_flash": Architecture(also=("norm",), missing=_ROUTED),
    "longformer": PLAIN,
    "mobilebert": Architecture(missing="queries and keys are of a bottleneck, values of the whole state"),
    "nemotron_h": Architecture(missing="each layer is one part alone: a mixer or an MLP, which is then the block"),
    "neomme": Architecture("gate_proj", also=("norm",)),  # and attention output without what lies along the values
    "pegasus_x": Architecture(
        missing="the MLP runs twice, on the tokens and on global ones beside them; a staggered layer pads them"
    ),
    "qwen4_exp_text": Architecture("q_proj", also=("norm",)),
    "step3p5": Architecture("g_proj", missing=_ROUTED),
    "xlnet": Architecture(missing="projections are bare parameters and the residual sum is in between: a block only"),
    "yoso": Architecture(missing="its attention has no softmax, so no pattern: a block only"),
    "zamba": Architecture(missing="the MLP is of another width than its attention"),
    "zamba2": Architecture(missing="the MLP is of another width than its attention"),
    "zaya": Architecture(missing="the mixture takes the router's state of the layer before, too"),
}

#: read tokens and attend, but are not in the table: reason -> configurations
EXCLUDED = {
    "attention, MLP and norms are in separate lists, so that no module is a block": "flaubert xlm",
    "calls `forward` of its layers, which nothing can watch, on states with tokens last": "squeezebert",
    "hands on streams ahead of the batch": "gemma3n_text",
    "hands on two states at a time": "reformer",
    "adds a row to those of the tokens": "videoprism_text_model",
    "attends with kernels of its own, which cannot be traced": "mra",
    "pools its tokens from block to block": "funnel",
    "attends in some of its layers only, most are convolutions": "sam3_lite_text_text_model",
    "needs more than tokens (boxes, pixels, sound, a second prompt)": (
        "bros layoutlmv2 lxmert musicgen phi4_multimodal udop vilt"
    ),
    "a small configuration of it was not found": (
        "blt chameleon clvp_encoder cohere_compass_text csm dbrx ernie4_5_vl_moe_text glm4v_moe_text hunyuan_vl_text "
        "kyutai_speech_to_text t5gemma2_text"
    ),
}

#: those that are looked at from all sides; of the others the table is the test
CLOSELY = UNGATED | GATED | FURTHER
ARCHITECTURES = CLOSELY | WIDER


@cache
def traced(part: Part) -> ff.jets.Graph:
    return ff.trace(part, part.input)


@cache
def blocks(kind: str) -> list[Block]:
    """The blocks of a small random model on four tokens: the first of each kind, that is, of each sequence of ops."""
    found: dict[tuple[str | None, ...], Block] = {}
    for block in Model(tiny_model(kind)).blocks(IDS):
        try:
            kind_of_block: tuple[str | None, ...] = tuple(node.op for node in traced(block).nodes)
        except ff.errors.TraceError:
            kind_of_block = (block.sections.mixer,)
        found.setdefault(kind_of_block, block)
    return list(found.values())


def softmax_blocks(kind: str) -> list[Block]:
    """Those whose token mixer computes a softmax: not convolutions, not linear attention."""
    return [block for block in blocks(kind) if block.sections.softmax]


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


def disagreement(part: Part) -> float:
    """The largest relative difference of value, Jacobian and Hessian between the two engines.

    One of them differentiates the traced graph, the other the module itself, or the graph where torch cannot.
    """
    outputs = part(part.input).numel()
    ours = jet(Combined(traced(part), outputs), part.input)
    try:
        truth = jet(Combined(part, outputs), part.input, "autodiff")
    except ff.errors.TraceError:  # ops that torch cannot batch; it can the functional ones of the graph
        truth = jet(Combined(traced(part), outputs), part.input, "autodiff")
    pairs = [(ours.value, truth.value), (ours.jacobian, truth.jacobian), (ours.hessian, truth.hessian)]
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in pairs)
