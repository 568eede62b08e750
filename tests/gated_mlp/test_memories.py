"""Feed-forward layers as key-value memories: read from checkpoints, their triggers and what their values say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases.tiny_models import tiny_model
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import CheckpointError, InputError
from fisherflat.layers import GatedMLP, KeyValueMemory
from fisherflat.models import Model


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


#: architecture -> the path of keys and of values in its MLP, and whether its weights are stored transposed
PLAIN = {
    "gpt2": ("c_fc", "c_proj", True),
    "opt": ("fc1", "fc2", False),
    "nemotron": ("up_proj", "down_proj", False),
    "t5": ("wi", "wo", False),
    "phi": ("fc1", "fc2", False),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_mlps_of_checkpoints_are_read_exactly(kind: str) -> None:
    block = Model(tiny_model(kind)).blocks([5, 6, 7])[0]
    memory = ff.memories.extract(block.mlp)
    assert isinstance(memory, KeyValueMemory)
    key, value, transposed = PLAIN[kind]
    stored = block.root.state_dict().items()
    (keys,), (values,) = (
        [weight for name, weight in stored if name.endswith(f"{part}.weight") and "attn" not in name]
        for part in (key, value)
    )
    assert torch.equal(memory.key, keys.T if transposed else keys)
    assert torch.equal(memory.value, values if transposed else values.T)
    x = normal(3, 32, seed=1)
    with torch.no_grad():
        expected = block.mlp(x)
    assert (memory(x) - expected).abs().max() < 1e-12 * expected.abs().max()


def test_gated_mlps_are_read_as_their_units() -> None:
    block = Model(tiny_model("llama")).blocks([5, 6, 7])[0]
    memory = ff.memories.extract(block.mlp)
    mlp, x = block.mlp.root, normal(3, 32, seed=1)
    torch.testing.assert_close(memory.value, mlp.down_proj.weight.T, rtol=1e-12, atol=1e-14)
    expected = torch.nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x)
    torch.testing.assert_close(ff.memories.coefficients(memory, x), expected, rtol=1e-12, atol=1e-12)
    assert ff.memories.extract(GatedMLP(4, 5)).value.shape == (5, 4)
    single = KeyValueMemory(normal(6, 4).float(), normal(6, 3).float())
    assert ff.memories.extract(single).value.dtype == torch.float64 and single.value.dtype == torch.float32


def test_what_is_no_memory_is_refused() -> None:
    k, v, x = normal(4, 6), normal(6, 4, seed=1), normal(3, 4, seed=2)
    for mlp, message in (
        (lambda x: x @ k @ v, "no activation"),
        (lambda x: x + (x @ k).tanh() @ v, "more between"),
        (lambda x: ((x @ k).tanh() @ v).sin(), "extracted from it differ"),
    ):
        with pytest.raises(InputError, match=message):
            ff.memories.extract(mlp, x)
    with pytest.raises(InputError, match="give an input"):
        ff.memories.extract(lambda x: (x @ k).tanh() @ v)
    assert ff.memories.extract(lambda x: 2 * (x @ k + 1).tanh() @ v - 3, x).activation == "tanh"


PROMPTS = ["The cat sat on the mat.", "Dogs bark at the moon."]


@pytest.mark.parametrize("special", [False, True])
def test_triggers_are_the_tokens_with_the_largest_activations_in_the_model_itself(
    minilm_path: Path, special: bool
) -> None:
    model = ff.load(minilm_path)
    seen: list[Tensor] = []
    handle = model.module.encoder.layer[2].intermediate.register_forward_hook(lambda *call: seen.append(call[2][0]))
    tokens: list[tuple[int, int, str]] = []
    for index, text in enumerate(PROMPTS):
        ids = model.tokenizer(text)["input_ids"]
        model.module(torch.tensor([ids]))
        tokens += [(index, i, token) for i, token in enumerate(model.tokenizer.convert_ids_to_tokens(ids))]
    handle.remove()
    activations = torch.cat(seen)
    kept = [i for i, (_, _, token) in enumerate(tokens) if special or token not in ("[CLS]", "[SEP]")]
    table = ff.memories.triggers(model, PROMPTS, layer=2, count=3, special=special)
    assert len(table) == 3 * 1536
    for key in (0, 7, 1535):
        order = sorted(kept, key=lambda i: -activations[i, key])[:3]
        found = table[table["memory"] == key]
        assert found["rank"].tolist() == [1, 2, 3]
        assert list(zip(found["prompt"], found["position"], found["token"], strict=True)) == [tokens[i] for i in order]
        assert found["coefficient"].tolist() == pytest.approx([activations[i, key].item() for i in order], rel=1e-9)


def test_the_strongest_of_given_inputs() -> None:
    memory, hidden = KeyValueMemory(normal(7, 4), normal(7, 3, seed=1), "identity"), normal(20, 4, seed=2)
    found, rows = ff.memories.strongest(memory, hidden, 3)
    matches = hidden @ memory.key.T
    for key in range(7):
        order = sorted(range(20), key=lambda row, key=key: -matches[row, key])[:3]
        assert rows[key].tolist() == order
        torch.testing.assert_close(found[key], matches[order, key].detach())
    assert ff.memories.strongest(memory, hidden[:2], 3).rows.shape == (7, 2)


def test_triggers_of_gated_memories_are_ranked_without_regard_to_sign() -> None:
    model = Model(tiny_model("llama"))
    table = ff.memories.triggers(model, [5, 6, 7, 8], layer=1, count=10)
    assert (table.groupby("memory").size() == 4).all() and (table["coefficient"] < 0).any()
    sizes = table["coefficient"].abs().to_numpy().reshape(-1, 4)
    assert (sizes[:, :-1] >= sizes[:, 1:]).all()
    with pytest.raises(InputError, match="2 blocks"):
        ff.memories.triggers(model, [5, 6], layer=2)


def test_values_are_read_through_the_unembedding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fisherflat.gated_mlp.memories._CHUNK", 100)  # more than one piece
    memory, head = KeyValueMemory(normal(7, 4), normal(7, 3, seed=1)), normal(30, 3, seed=2)
    table = ff.memories.value_tokens(memory, head, count=2, tokens=[f"t{i}" for i in range(30)])
    for i, value in enumerate(memory.value.detach()):
        weights = (head * value).sum(1).exp()
        first, second = sorted(range(30), key=lambda token: -weights[token])[:2]
        found = table[table["memory"] == i]
        assert found["id"].tolist() == [first, second] and found["token"].tolist() == [f"t{first}", f"t{second}"]
        assert found["probability"].tolist() == pytest.approx((weights[[first, second]] / weights.sum()).tolist())
    with pytest.raises(InputError, match=r"\[vocabulary, 3\]"):
        ff.memories.value_tokens(memory, head.T)


def test_the_unembedding_is_that_of_the_head_or_there_is_none(minilm_path: Path) -> None:
    from cases.tiny_models import tiny_config
    from transformers import AutoModel, AutoModelForCausalLM

    with_head = AutoModelForCausalLM.from_config(tiny_config("llama"))
    assert torch.equal(ff.memories.unembedding(Model(with_head)), with_head.lm_head.weight.double())
    tied = AutoModel.from_config(tiny_config("llama", tie_word_embeddings=True, architectures=["LlamaForCausalLM"]))
    assert torch.equal(ff.memories.unembedding(Model(tied)), tied.embed_tokens.weight.double())
    untied = AutoModel.from_config(tiny_config("llama", tie_word_embeddings=False))
    for model in (Model(untied), ff.load(minilm_path)):
        with pytest.raises(CheckpointError, match="no unembedding"):
            ff.memories.unembedding(model)


def test_embeddings_that_were_left_on_disk_are_said_to_be_there() -> None:
    from cases.tiny_models import tiny_config
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(tiny_config("llama"))
    model.lm_head.to(device="meta")
    with pytest.raises(CheckpointError, match="lazy=False"):
        ff.memories.unembedding(Model(model))
