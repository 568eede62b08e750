"""What a model's own head makes of states: the logits that the model itself returns, however it is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import save_file
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import CheckpointError, InputError

D = torch.float64
IDS = [5, 6, 7, 8, 9]
SMALL = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
#: name -> class, configuration: heads with biases, scales, caps, transforms, projections, tied and not
TOKENS: dict[str, tuple[str, Any]] = {
    "llama": ("LlamaForCausalLM", lambda: hf.LlamaConfig(**SMALL)),
    "llama, tied": ("LlamaForCausalLM", lambda: hf.LlamaConfig(**SMALL, tie_word_embeddings=True)),
    "gemma2": ("Gemma2ForCausalLM", lambda: hf.Gemma2Config(
        **SMALL, num_key_value_heads=1, head_dim=8, final_logit_softcapping=2.0)),
    "cohere": ("CohereForCausalLM", lambda: hf.CohereConfig(**SMALL, logit_scale=0.25)),
    "granite": ("GraniteForCausalLM", lambda: hf.GraniteConfig(**SMALL, logits_scaling=3.0)),
    "opt": ("OPTForCausalLM", lambda: hf.OPTConfig(
        vocab_size=60, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=8)),
    "gpt2": ("GPT2LMHeadModel", lambda: hf.GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2)),
    "phi": ("PhiForCausalLM", lambda: hf.PhiConfig(**SMALL)),
    "bert": ("BertForMaskedLM", lambda: hf.BertConfig(**SMALL)),
    "mamba": ("MambaForCausalLM", lambda: hf.MambaConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, state_size=4)),
    "t5": ("T5ForConditionalGeneration", lambda: hf.T5Config(
        vocab_size=60, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, decoder_start_token_id=0)),
}  # fmt: skip
CLASSES: dict[str, tuple[str, Any]] = {
    "bert": ("BertForSequenceClassification", lambda: hf.BertConfig(**SMALL, num_labels=3)),
    "llama": ("LlamaForSequenceClassification", lambda: hf.LlamaConfig(**SMALL, num_labels=3, pad_token_id=0)),
    "distilbert": ("DistilBertForSequenceClassification", lambda: hf.DistilBertConfig(
        vocab_size=60, dim=16, n_layers=2, n_heads=2, hidden_dim=24, num_labels=4)),
    "a class a token": ("BertForTokenClassification", lambda: hf.BertConfig(**SMALL, num_labels=3)),
    "one logit": ("BertForSequenceClassification", lambda: hf.BertConfig(**SMALL, num_labels=1)),
}  # fmt: skip


def made(kind: str, config: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    module = getattr(hf, kind)(config).eval().double()
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        parameter.data = 0.3 * noise if parameter.dim() > 1 else parameter.data + 0.1 * noise
    module.tie_weights()
    return module


def loaded(module: Any, how: str, folder: Path, **options: Any) -> Any:
    if how == "module":
        return ff.load(module, **options)
    module.save_pretrained(folder)
    return ff.load(folder, lazy=how == "lazy", **options)


@pytest.mark.parametrize("how", ["module", "folder", "lazy"])
@pytest.mark.parametrize("name", TOKENS)
def test_next_tokens_are_those_of_the_model(name: str, how: str, tmp_path: Path) -> None:
    kind, config = TOKENS[name]
    module = made(kind, config())
    two = {"part": "decoder"} if module.config.is_encoder_decoder else {}
    given: dict[str, Any] = {"input_ids": torch.tensor([IDS])}
    if two:
        given["decoder_input_ids"] = torch.tensor([[module.config.decoder_start_token_id, *IDS]])
    with torch.no_grad():
        right = module(**given).logits[0].double()
    model = loaded(module, how, tmp_path, **two)
    found = model.readout("next-token", IDS)
    last = model.blocks(IDS)[-1]
    with torch.no_grad():
        got = found.family.logits(found.lens(last(last.input)))
    assert (got - right).abs().max() <= 1e-5 * right.abs().max()  # the model itself casts to single precision
    assert found.of([2])(last(last.input)).shape[0] == 1


@pytest.mark.parametrize("how", ["module", "folder", "lazy"])
@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_those_of_the_model(name: str, how: str, tmp_path: Path) -> None:
    kind, config = CLASSES[name]
    module = made(kind, config())
    with torch.no_grad():
        right = module(torch.tensor([IDS])).logits[0].double()
    model = loaded(module, how, tmp_path)
    found = model.readout("class", IDS)
    last = model.blocks(IDS)[-1]
    got = found.lens(last(last.input))
    assert (got - right).abs().max() <= 1e-5 * right.abs().max()
    assert type(found.family).__name__ == ("Bernoulli" if name == "one logit" else "Categorical")
    with pytest.raises(CheckpointError, match="unembedding"):
        model.readout("next-token", IDS)


def test_a_head_that_is_not_in_the_file(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    module = made(*(part() if callable(part) else part for part in TOKENS["llama"]))
    module.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({name: x for name, x in load_file(file).items() if "lm_head" not in name}, file, {"format": "pt"})
    model = ff.load(tmp_path)
    assert len(model.blocks(IDS)) == 2
    with pytest.raises(CheckpointError, match=r"lacks 'lm_head.weight'"):
        model.readout("next-token", IDS)
    words = torch.randn(60, 16)
    assert model.readout(ff.families.NextToken(words), IDS).family.width == 16


def test_a_model_without_its_head() -> None:
    base = hf.LlamaModel(hf.LlamaConfig(**SMALL, tie_word_embeddings=True))
    assert ff.load(base).readout("next-token", IDS).family.tokens == 60
    with pytest.raises(CheckpointError, match="NextToken"):
        ff.load(hf.LlamaModel(hf.LlamaConfig(**SMALL))).readout("next-token", IDS)
    with pytest.raises(CheckpointError, match="unembedding"):  # whose head has a layer of its own
        ff.load(hf.BertModel(hf.BertConfig(**SMALL))).readout("next-token", IDS)


def test_a_model_that_does_something_else_to_its_logits() -> None:
    class Odd(hf.LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            found = super().forward(*args, **kwargs)
            found.logits = found.logits.exp()
            return found

    with pytest.raises(CheckpointError, match="changes its logits"):
        ff.load(Odd(hf.LlamaConfig(**SMALL))).readout("next-token", IDS)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = ff.layers.SelfAttention(8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(x)


class Own(nn.Module):
    """A model of one's own, whose unembedding is no module."""

    def __init__(self, head: bool) -> None:
        super().__init__()
        self.words, self.layers = nn.Embedding(30, 8), nn.ModuleList(Block() for _ in range(2))
        self.head = head

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids).reshape(-1, 8)
        for layer in self.layers:
            x = layer(x)
        return x @ self.words.weight.T if self.head else x


def test_a_model_of_ones_own() -> None:
    torch.manual_seed(0)
    module = Own(True).double()
    model = ff.load(module)
    found, last = model.readout("next-token", [1, 2, 3]), model.blocks([1, 2, 3])[-1]
    torch.testing.assert_close(found.lens(last(last.input)), module(torch.tensor([1, 2, 3])))
    with pytest.raises(CheckpointError, match="unembedding"):
        ff.load(Own(False).double()).readout("next-token", [1, 2, 3])


def test_the_direction_of_a_sentence() -> None:
    """The sphere of radius 1: distances are angles."""
    module = made("BertModel", hf.BertConfig(**SMALL))
    model = ff.load(module)
    found, last = model.readout("direction", IDS), model.blocks(IDS)[-1]
    with torch.no_grad():
        right = module(torch.tensor([IDS])).last_hidden_state[0].mean(0)
    torch.testing.assert_close(found.lens(last(last.input)), right)
    chart = ff.charts.affine(right, torch.eye(16)[:2])
    manifold = ff.StatisticalManifold(lambda y: y, chart, found.family)
    ends = torch.stack([right, right + chart.basis[0]])
    angle = torch.nn.functional.cosine_similarity(*ends, dim=0).acos()
    line = ff.StatisticalManifold(lambda y: y, ff.charts.affine(right, torch.eye(16)[:1]), found.family)
    assert line.distance([0.0], [1.0]).item() == pytest.approx(angle.item(), rel=1e-9)
    assert manifold.at([0.0, 0.0]).ambient_scalar_curvature.item() == pytest.approx(2.0, rel=1e-9)


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("mode", ["mean_tokens", "cls_token"])
def test_the_direction_behind_dense_layers(tmp_path: Path, mode: str, listed: bool) -> None:
    """As sentence-transformers stores them; the right value is made with NumPy."""
    module = made("BertModel", hf.BertConfig(**SMALL))
    folder, layers = sentence_encoder(module, tmp_path / "model", mode, listed)
    model = ff.load(folder)
    found, last = model.readout("direction", IDS), model.blocks(IDS)[-1]
    with torch.no_grad():
        states = module(torch.tensor([IDS])).last_hidden_state[0].numpy()
    right = states.mean(0) if mode == "mean_tokens" else states[0]
    (first, bias), (second, _) = layers
    right = np.tanh(first.numpy() @ right + bias.numpy())
    right = second.numpy() @ (right / np.sqrt((right**2).sum()))
    value = found.lens(last(last.input))
    np.testing.assert_allclose(value.detach().numpy(), right, rtol=1e-9)
    assert found.family.ambient_dim(tuple(value.shape)) == 4  # directions in five dimensions
    if mode == "mean_tokens":  # another token than the first does not move that before the first block
        profile = ff.depth_profile(model, prompt=IDS, family="direction", u=torch.zeros(1, 2))
        assert profile.scalar_curvature.isfinite().all()
    table = ff.analyze(model, prompts=[IDS], parts=["block"], family="direction", layers=[1], points=2).table
    assert table["scalar_curvature"].notna().all() and set(table["family"]) == {"direction"}


def sentence_encoder(module: Any, folder: Path, mode: str, listed: bool) -> tuple[Path, list[tuple[Tensor, Tensor]]]:
    """A folder with pooling, a dense layer of 7 with tanh, its length made 1, and one of 5 without bias."""
    module.save_pretrained(folder)
    generator = torch.Generator().manual_seed(1)
    layers = []
    kinds = {"1_Pooling": {f"pooling_mode_{mode}": True, "pooling_mode_max_tokens": False}}
    for name, rows, columns, kind in (("2_Dense", 7, 16, "activation.Tanh"), ("4_Dense", 5, 7, "linear.Identity")):
        weight, bias = (torch.randn(*size, dtype=D, generator=generator) for size in ((rows, columns), (rows,)))
        layers.append((weight, bias))
        kinds[name] = {
            "in_features": columns, "out_features": rows, "bias": name == "2_Dense",
            "activation_function": f"torch.nn.modules.{kind}",
        }  # fmt: skip
    kinds["3_Normalize"] = {}
    for name, config in kinds.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config))
    save_file({"linear.weight": layers[0][0], "linear.bias": layers[0][1]}, folder / "2_Dense" / "model.safetensors")
    save_file({"linear.weight": layers[1][0]}, folder / "4_Dense" / "model.safetensors")
    if listed:
        every = ["", *sorted(kinds)]
        types = ["Transformer", *(name.partition("_")[2] for name in sorted(kinds))]
        rows_ = [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(zip(every, types, strict=True))
        ]
        (folder / "modules.json").write_text(json.dumps(rows_))
    return folder, layers


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("2_Dense", {"activation_function": "torch.nn.modules.activation.Softshrink"}, "activation .*Softshrink"),
        ("2_Dense", {"out_features": 8}, r"promises linear.weight \[8, 16\]"),
        ("2_Dense", {"bias": False}, "has a linear.bias, against"),
        ("4_Dense", {"bias": True}, "has no linear.bias, against"),
        ("1_Pooling", {"pooling_mode_max_tokens": True}, "max_tokens, mean_tokens pooling; mean, cls"),
        ("modules.json", {"type": "sentence_transformers.models.LayerNorm"}, "is 'LayerNorm'.*Dense and Normalize"),
        ("modules.json", {"path": "../elsewhere"}, "list of modules with a type and a path"),
    ],
)
def test_sentence_encoders_that_are_not_known_are_refused(tmp_path: Path, name: str, change: Any, message: str) -> None:
    folder, _ = sentence_encoder(made("BertModel", hf.BertConfig(**SMALL)), tmp_path / "model", "mean_tokens", True)
    file = folder / name if name.endswith("json") else folder / name / "config.json"
    value = json.loads(file.read_text())
    (value[2] if isinstance(value, list) else value).update(change)
    file.write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match=message):
        ff.load(folder).readout("direction", IDS)


def test_what_states_cannot_be_read_as() -> None:
    model = ff.load("python-llama")
    with pytest.raises(InputError, match="next-token, class, direction"):
        model.readout("prose", IDS)
    with pytest.raises(CheckpointError, match="no head for classes"):
        model.readout("class", IDS)
