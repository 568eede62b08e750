"""What is found in checkpoints before anything is measured, against what their configurations and sources say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.tiny_models import save_tiny, save_word_tokenizer, tiny_model
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat.cli import app
from fisherflat.errors import InputError
from fisherflat.models import Model

LATENT = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8}
LATENT |= {"v_head_dim": 6, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}


def inspected(kind: str, **sizes: Any) -> tuple[Any, ...]:
    return ff.inspect(Model(tiny_model(kind, **sizes), name=kind)).layers


def test_llama() -> None:
    for layer in inspected("llama"):
        assert (layer.attention, layer.mixer, layer.heads, layer.value_heads) == ("softmax", "LlamaAttention", 4, 2)
        assert layer.mlp == "gated" and layer.activations == ("silu",)
        assert [(norm.kind, norm.placement) for norm in layer.norms] == [
            ("rms", "before attention"),
            ("rms", "before MLP"),
        ]
        (gate,) = layer.gates
        assert (gate.kind, gate.position, gate.granularity, gate.activation) == (
            "mlp", "hidden", "elementwise", "silu",
        )  # fmt: skip
        assert gate.source.startswith("modeling_llama.py:")
        assert layer.readings["attention"] == ["live", "frozen pattern"]
        assert layer.readings["mlp"] == ["live", "frozen mlp gate"]


def test_norms_side_by_side_are_told_apart() -> None:
    """With weights of one both norms of a parallel block give the same numbers; the graph says where each goes."""
    for layer in inspected("gpt_neox"):
        assert [(norm.path, norm.placement) for norm in layer.norms] == [
            ("input_layernorm", "before attention"),
            ("post_attention_layernorm", "before MLP"),
        ]
    for layer in inspected("gptj"):
        assert [norm.placement for norm in layer.norms] == ["before attention and MLP"]


def test_activations_written_out_have_their_name() -> None:
    assert [layer.activations for layer in inspected("gpt2")] == [("gelu_tanh",)] * 2
    assert [layer.activations for layer in inspected("nemotron")] == [("relu2",)] * 2


def test_bert() -> None:
    (layer, other) = inspected("bert")
    assert (layer.heads, layer.value_heads, layer.gates) == (4, 4, ())
    assert layer.mlp == "plain" and layer.activations == ("gelu",)
    assert [(norm.kind, norm.placement) for norm in layer.norms] == [
        ("layer", "after attention"),
        ("layer", "after MLP"),
    ]
    assert {**vars(layer), "layer": 1} == vars(other)


def attention_gates(layer: Any) -> list[tuple[str, str, str]]:
    return [(g.position, g.granularity, g.activation) for g in layer.gates if g.kind == "attention"]


def test_gates_of_attention() -> None:
    """As their sources say: sigmoid of a projection for each unit; softplus for each head."""
    linear, full = inspected("qwen3_next")
    assert linear.attention == "no softmax" and linear.heads is None and full.attention == "softmax"
    assert attention_gates(full) == [("output", "elementwise", "sigmoid")]
    assert full.readings["attention"] == ["live", "frozen pattern", "frozen gate", "frozen pattern+gate"]
    assert [norm.placement for norm in full.norms].count("within attention") == 2
    assert attention_gates(inspected("laguna")[0]) == [("output", "headwise", "softplus")]
    # a number a token for the output of the shared expert
    assert ("output", "token", "sigmoid") in [(g.position, g.granularity, g.activation) for g in full.gates]


@pytest.mark.parametrize(
    ("kind", "sizes", "attention", "mlp"),
    [
        ("gemma3_text", {"sliding_window": 7}, "sliding window (7)", "gated"),
        ("deepseek_v3", LATENT, "softmax, latent", "gated, experts (2 of 4)"),
        ("mixtral", {}, "softmax", "gated, experts (2 of 4)"),
        ("t5", {}, "softmax", "plain"),
        ("fnet", {}, "none", "plain"),
        ("lfm2", {"layer_types": ["full_attention", "conv"]}, "no softmax", "gated"),
    ],
)
def test_kinds(kind: str, sizes: dict[str, Any], attention: str, mlp: str) -> None:
    layers = inspected(kind, **sizes)
    assert attention in [layer.attention for layer in layers] and mlp in [layer.mlp for layer in layers]
    assert not any(layer.unread for layer in layers)  # the Fourier transforms of fnet, too, have a graph


def test_a_bilinear_mlp_and_shared_keys() -> None:
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = ff.layers.SelfAttention(8, heads=2, gate=ff.layers.Gate("sigmoid", position="value"))
            self.mlp = ff.layers.GatedMLP(8, 16, activation="identity")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.attention(x)
            return x + self.mlp(x)

    class Stack(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = torch.nn.ModuleList([Block(), Block()])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for block in self.blocks:
                x = block(x[0] if x.dim() == 3 else x)
            return x

    torch.manual_seed(0)
    found = ff.inspect(ff.load(Stack()), prompt=torch.randn(5, 8))
    for layer in found.layers:
        assert layer.mlp == "bilinear" and layer.activations == ()
        assert attention_gates(layer) == [("value", "elementwise", "sigmoid")]


def test_the_result_of_a_folder(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "qwen3_next", torch.bfloat16)
    save_word_tokenizer(folder)
    found = ff.inspect(folder, lazy=True)
    assert found.stored_dtypes == ("BF16",) and found.lazy and found.context == 64
    assert found.parameters == sum(p.numel() for p in tiny_model("qwen3_next").parameters())
    assert "Tokenizer" in found.tokenizer
    assert list(found.table["layer"]) == [0, 1] and "sigmoid" in found.table["gates"][1]
    assert found.layers == ff.inspect(folder, lazy=False).layers

    out = tmp_path / "found" / "model.json"
    result = CliRunner().invoke(app, ["inspect", str(folder), "--out", str(out)])
    assert result.exit_code == 0, result.output
    saved = json.loads(out.read_text())
    assert [layer["attention"] for layer in saved["layers"]] == ["no softmax", "softmax"]
    assert saved["layers"][1]["gates"][0]["activation"] == "sigmoid"
    assert ff.Inspection.load(out).layers == found.layers
    (out.parent / "other.json").write_text("[1]")
    with pytest.raises(InputError, match="does not hold an inspection"):
        ff.Inspection.load(out.parent / "other.json")
    said = str(found)
    assert "Qwen3NextModel" in said and "output" in said and "frozen pattern+gate" in said
