"""The blocks of models: parts that add up to them, and what enters each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.closeness import CASTS, assert_same
from cases.tiny_models import tiny_model
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import CheckpointError, InputError
from fisherflat.jets.recording import in_double
from fisherflat.models import Model

IDS = [5, 6, 7, 8, 9, 11]

Recipe = Callable[[Any, Tensor, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]], Tensor]


def sequential(first: str | None, after_first: str | None, second: str | None, after_second: str | None) -> Recipe:
    """`x += n(attention(n(x))); x += n(mlp(n(x)))`, with the names of the norms."""

    def recipe(layer: Any, x: Tensor, attention: Callable[[Tensor], Tensor], mlp: Callable[[Tensor], Tensor]) -> Tensor:
        def norm(name: str | None, rows: Tensor) -> Tensor:
            return rows if name is None else layer.get_submodule(name)(rows)

        x = x + norm(after_first, attention(norm(first, x)))
        return x + norm(after_second, mlp(norm(second, x)))

    return recipe


def post_norm(first: str, second: str) -> Recipe:
    """`x = n(x + attention(x)); x = n(x + mlp(x))`."""

    def recipe(layer: Any, x: Tensor, attention: Callable[[Tensor], Tensor], mlp: Callable[[Tensor], Tensor]) -> Tensor:
        x = layer.get_submodule(first)(x + attention(x))
        return layer.get_submodule(second)(x + mlp(x))

    return recipe


def parallel(norm: str) -> Recipe:
    """`x + attention(n(x)) + mlp(n(x))`."""

    def recipe(layer: Any, x: Tensor, attention: Callable[[Tensor], Tensor], mlp: Callable[[Tensor], Tensor]) -> Tensor:
        rows = layer.get_submodule(norm)(x)
        return x + attention(rows) + mlp(rows)

    return recipe


BERT = post_norm("attention.output.LayerNorm", "output.LayerNorm")
LLAMA = sequential("input_layernorm", None, "post_attention_layernorm", None)
GPT2 = sequential("ln_1", None, "ln_2", None)
SANDWICH = sequential(
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"
)
#: how each architecture puts a block together from its parts, written down from its source
RECIPES: dict[str, Recipe] = {
    "bert": BERT,
    "roberta": BERT,
    "electra": BERT,
    "deberta-v2": BERT,
    "distilbert": post_norm("sa_layer_norm", "output_layer_norm"),
    "albert": post_norm("albert_layers.0.attention.LayerNorm", "albert_layers.0.full_layer_layer_norm"),
    "bart": post_norm("self_attn_layer_norm", "final_layer_norm"),
    "roberta-prelayernorm": sequential("attention.LayerNorm", None, "intermediate.LayerNorm", None),
    "modernbert": sequential("attn_norm", None, "mlp_norm", None),
    "gpt2": GPT2,
    "gpt_neo": GPT2,
    "opt": sequential("self_attn_layer_norm", None, "final_layer_norm", None),
    "bloom": sequential("input_layernorm", None, "post_attention_layernorm", None),
    "t5": sequential("layer.0.layer_norm", None, "layer.1.layer_norm", None),
    "phi": parallel("input_layernorm"),
    "gptj": parallel("ln_1"),
    "cohere2": parallel("input_layernorm"),
    "llama": LLAMA,
    "mistral": LLAMA,
    "mixtral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "phi3": LLAMA,
    "gpt_oss": LLAMA,
    "qwen3_next": LLAMA,
    "gemma2": SANDWICH,
    "olmo2": sequential(None, "post_attention_layernorm", None, "post_feedforward_layernorm"),
    "afmoe": sequential("input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm"),
}


@pytest.mark.parametrize("kind", RECIPES)
def test_blocks_are_the_sum_of_their_parts(kind: str) -> None:
    module = tiny_model(kind)
    model = Model(module, name=kind)
    blocks = model.blocks(IDS)
    assert len(blocks) == 2
    for block in blocks:
        x = block.hidden_states
        assert x.shape == (len(IDS), 32) and x.dtype == torch.float64
        with in_double(block.root):  # as in the blocks themselves, norms do not round to single precision
            whole = RECIPES[kind](block.root, x, block.attention, block.mlp)
        torch.testing.assert_close(whole, block(x), rtol=1e-12, atol=1e-12)
        # elsewhere too: the parts are functions, not recordings
        moved = x + torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
        with in_double(block.root):
            whole = RECIPES[kind](block.root, moved, block.attention, block.mlp)
        torch.testing.assert_close(whole, block(moved), rtol=1e-12, atol=1e-12)
    # and the blocks are what the model really did
    assert_same(blocks[0](blocks[0].hidden_states), blocks[1].hidden_states, CASTS)


def test_minilm_blocks(minilm_path: Path) -> None:
    blocks = ff.load(minilm_path).blocks("A quick brown fox.")
    assert len(blocks) == 6
    for block in blocks:
        x = block.hidden_states
        assert x.shape == (len(block.tokens), 384)
        torch.testing.assert_close(BERT(block.root, x, block.attention, block.mlp), block(x), rtol=1e-12, atol=1e-12)


def test_parts_were_entered_by_what_the_model_computed() -> None:
    block = Model(tiny_model("llama")).blocks(IDS)[1]
    layer: Any = block.root
    x = block.hidden_states
    with in_double(layer):
        assert_same(block.attention_input, layer.input_layernorm(x))
        middle = x + block.attention(block.attention_input)
        assert_same(block.mlp_input, layer.post_attention_layernorm(middle))


def test_the_attention_pattern_is_seen() -> None:
    linear, full = Model(tiny_model("qwen3_next")).blocks(IDS)
    assert not linear.sections.softmax and full.sections.softmax
    assert linear.sections.mixer == "Qwen3NextGatedDeltaNet"
    assert linear.attention(linear.attention_input).shape == linear.hidden_states.shape


def test_blocks_do_not_depend_on_how_the_parts_were_found() -> None:
    """One token shows no mixing; the anatomy then comes from a longer probe, the states from the prompt."""
    module = tiny_model("bert")
    alone = Model(module).blocks([7])[0]
    warmed = Model(module)
    warmed.blocks(IDS)
    assert warmed.blocks([7])[0].sections == alone.sections
    assert alone.attention(alone.attention_input).shape == (1, 32)


class _InPlace(nn.Module):
    """A block that changes its input, as some do."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.maps = nn.ModuleList([nn.Linear(8, 16), nn.Linear(16, 8)])

    def forward(self, x: Tensor) -> Tensor:
        x += self.attention(x, x, x, need_weights=False)[0]
        x += self.maps[1](torch.tanh(self.maps[0](x)))
        return x


class _Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.stack = nn.ModuleList(_InPlace() for _ in range(3))

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        for block in self.stack:
            x = block(x)
        return x


def test_own_module_whose_blocks_work_in_place() -> None:
    torch.manual_seed(0)
    module = _Own().double().requires_grad_(False)
    blocks = Model(module, blocks="stack").blocks([3, 4, 5, 6])
    for block in blocks:
        x = block.hidden_states
        before = x.clone()
        rest = x + block.attention(x)
        torch.testing.assert_close(rest + block.mlp(rest), block(x), rtol=1e-12, atol=1e-12)
        assert torch.equal(x, before)
    # the first block's input is the embedding, although the model overwrote that tensor since
    assert_same(blocks[0].hidden_states, module.embedding(torch.tensor([3, 4, 5, 6])))
    with pytest.raises(CheckpointError, match="'layers' is not a list of modules"):
        Model(module, blocks="layers").blocks([3, 4])


@pytest.mark.parametrize("norm_first", [False, True])
def test_torch_encoder(norm_first: bool) -> None:
    """torch's own layers, whose parts are methods rather than modules, and which start in training mode."""

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 8)
            layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=norm_first)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.encoder(self.embedding(input_ids))

    torch.manual_seed(0)
    recipe = sequential("norm1", None, "norm2", None) if norm_first else post_norm("norm1", "norm2")
    blocks = Model(Encoder().double().requires_grad_(False)).blocks([3, 4, 5, 6])
    for block in blocks:
        x = block.hidden_states
        torch.testing.assert_close(recipe(block.root, x, block.attention, block.mlp), block(x), rtol=1e-12, atol=1e-12)
        assert block.sections.softmax
    torch.testing.assert_close(blocks[0](blocks[0].hidden_states), blocks[1].hidden_states, rtol=1e-12, atol=1e-12)


def test_mixture_of_experts_reads_the_same_after_another_prompt() -> None:
    model = Model(tiny_model("mixtral"))
    first = model.blocks(IDS)[0]
    value = first(first.hidden_states)
    model.blocks([3, 3, 3])
    assert_same(first(first.hidden_states), value, CASTS)


def test_blocks_without_a_part_say_so() -> None:
    block = Model(tiny_model("fnet")).blocks(IDS)[0]
    with pytest.raises(CheckpointError, match="no attention part was found in block 0"):
        _ = block.attention
    assert block.mlp(block.mlp_input).shape == (6, 32)


def test_operators_refuse_other_shapes() -> None:
    block = Model(tiny_model("bert")).blocks(IDS)[0]
    with pytest.raises(InputError, match=r"takes \[6, 32\]"):
        block.attention(torch.zeros(5, 32, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["bert", "mpnet", "opt", "bloom", "albert", "t5"])
def test_parts_can_be_traced_and_frozen(kind: str) -> None:
    """Parts that are a stretch of a block, too: what runs before them is constant, whatever it mutates."""
    block = Model(tiny_model(kind)).blocks(IDS)[1]
    for part in (block, block.attention, block.mlp):
        assert torch.allclose(ff.trace(part, part.input)(part.input), part(part.input), rtol=1e-5, atol=1e-5)
    frozen = ff.freeze(block.attention, block.attention_input, roles=("pattern",))
    x, direction = block.attention_input, torch.ones_like(block.attention_input)
    steps = [frozen(x + t * direction) for t in (0.0, 1.0, 2.0)]
    torch.testing.assert_close(steps[2] - steps[1], steps[1] - steps[0], rtol=1e-9, atol=1e-9)  # affine


def test_parts_run_in_float32() -> None:
    block = Model(tiny_model("distilbert")).blocks(IDS)[0]
    chart = ff.charts.principal(block.hidden_states, -1, 2)
    u = torch.zeros(2, dtype=torch.float64)
    for part in (block, block.attention, block.mlp):
        low, high = (ff.StatisticalManifold(part, chart, dtype=d).metric(u) for d in (torch.float32, torch.float64))
        torch.testing.assert_close(low.double(), high, rtol=1e-3, atol=1e-3)


# -- norms -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("llama", ["input_layernorm", "post_attention_layernorm"]),
        ("bert", ["attention.output.LayerNorm", "output.LayerNorm"]),
        ("qwen3", ["input_layernorm", "self_attn.q_norm", "self_attn.k_norm", "post_attention_layernorm"]),
    ],
)
def test_norms_of_a_block(kind: str, expected: list[str]) -> None:
    block = Model(tiny_model(kind)).blocks(IDS)[1]
    assert list(block.norms) == expected
    for path, norm in block.norms.items():
        module = block.root.get_submodule(path)
        expected_rows = module(norm.input.reshape(norm.arguments.hidden.shape)).reshape(6, -1)
        torch.testing.assert_close(norm(norm.input), expected_rows, rtol=1e-6, atol=1e-6)
        assert {node.role for node in ff.trace(norm, norm.input).nodes} >= {"norm"}
    if kind == "llama":
        norm = block.norms["input_layernorm"]
        assert_same(norm.input, block.input)
        torch.testing.assert_close(norm(block.input), block.attention_input, rtol=1e-6, atol=1e-6)


def test_a_model_is_brought_and_read_in_the_inference_mode() -> None:
    prompt = "def f(x):\n    return x"

    def curvature(model: Model) -> Tensor:
        block = model.blocks(prompt)[0]
        chart = ff.charts.token(block.input, -1, torch.eye(2, block.input.shape[1], dtype=torch.float64))
        manifold = ff.StatisticalManifold(block, chart, differentiable=True)
        with torch.inference_mode(False), torch.enable_grad():  # what was made in the mode serves gradients
            u = torch.full((2,), 0.1, dtype=torch.float64, requires_grad=True)
            value = manifold.scalar_curvature(u)
            return torch.cat([value.detach()[None], torch.autograd.grad(value, u)[0]])

    outside = ff.load("python-llama")
    expected = curvature(outside)
    with torch.inference_mode():
        found = [curvature(model) for model in (outside, ff.load("python-llama"))]
    for one in found:
        torch.testing.assert_close(one, expected, rtol=1e-10, atol=0)
