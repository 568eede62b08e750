"""What can be loaded besides a folder, and what can be given as a prompt."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.closeness import CASTS, assert_same
from cases.tiny_models import save_tiny, tiny_model
from safetensors.torch import save_file
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import CheckpointError, InputError
from fisherflat.models import Model
from fisherflat.models._folder import place_of
from fisherflat.zoo import checkpoint

IDS = [5, 6, 7, 8, 9]
SHIPPED = ("python-llama", "python-qwen3-next")


# -- a bare file -------------------------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> tuple[Path, Path]:
    """A folder, and its weights alone under another name."""
    folder = save_tiny(tmp_path / "whole", "mixtral", torch.bfloat16)
    (tmp_path / "bare").mkdir()
    return folder, Path(shutil.copy(folder / "model.safetensors", tmp_path / "bare" / "weights.safetensors"))


@pytest.mark.parametrize("lazy", [False, True])
def test_a_bare_file_with_a_config(bare: tuple[Path, Path], lazy: bool) -> None:
    from transformers import AutoConfig

    folder, file = bare
    expected = ff.load(folder).blocks(IDS)
    for config in (folder / "config.json", str(folder), AutoConfig.from_pretrained(folder)):
        blocks = ff.load(file, config=config, lazy=lazy).blocks(IDS)
        for mine, theirs in zip(blocks, expected, strict=True):
            assert_same(mine(mine.input), theirs(theirs.input), CASTS)
    shutil.copy(folder / "config.json", file.parent)
    assert_same(ff.load(file).blocks(IDS)[1].input, expected[1].input, CASTS)


def test_a_bare_file_that_cannot_be_used(bare: tuple[Path, Path], tmp_path: Path) -> None:
    folder, file = bare
    with pytest.raises(CheckpointError, match=r"has no config\.json.*or a config"):
        ff.load(file)
    with pytest.raises(CheckpointError, match=r"there is no config .*nowhere"):
        ff.load(file, config=tmp_path / "nowhere.json")
    pickle = tmp_path / "pytorch_model.bin"
    pickle.write_bytes(b"not looked at")
    with pytest.raises(CheckpointError, match="is a pickle, which can run code"):
        ff.load(pickle, config=folder)
    save_file({"unknown": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match=r"lacks .* weights of MixtralModel"):
        ff.load(file, config=folder)
    save_file({"embed_tokens.weight": torch.zeros(60, 16)}, file)
    with pytest.raises(CheckpointError, match=r"has the shape \[60, 16\], MixtralModel takes \[60, 32\]"):
        ff.load(file, config=folder)


def test_weights_of_a_model_with_a_head(tmp_path: Path) -> None:
    """As most checkpoints are: all names have a prefix, and the tied head is left out."""
    from transformers import AutoModelForCausalLM

    module: Any = tiny_model("llama")
    whole = AutoModelForCausalLM.from_config(module.config, dtype=torch.float64)
    whole.model.load_state_dict(module.state_dict())
    whole.save_pretrained(tmp_path)
    expected = Model(module).blocks(IDS)
    for lazy in (False, True):
        blocks = ff.load(tmp_path, lazy=lazy).blocks(IDS)
        assert_same(blocks[1](blocks[1].input), expected[1](expected[1].input), CASTS)


# -- a module of one's own ---------------------------------------------------------------------------------------------


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = ff.layers.SelfAttention(8, heads=2, causal=True)
        self.mlp = ff.layers.GatedMLP(8, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


class _Stack(nn.Module):
    """Takes hidden states, and has two lists of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ModuleList(_Residual() for _ in range(2))
        self.second = nn.Sequential(*(_Residual() for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 3:
            x = x[0]
        for block in self.first:
            x = block(x)
        return self.second(x)


def test_a_module_of_ones_own() -> None:
    torch.manual_seed(0)
    module = _Stack()
    module.train()
    x = torch.randn(5, 8)
    expected = module.double()(x.double()).detach()
    module.float()
    model = ff.load(module, blocks="second")
    assert isinstance(model, Model) and model.name == "_Stack"
    blocks = model.blocks(x)
    assert len(blocks) == 3 and blocks[0].sections.softmax
    torch.testing.assert_close(blocks[2](blocks[2].input), expected, rtol=1e-6, atol=1e-6)
    for block in blocks:
        rest = block.input + block.attention(block.input)
        torch.testing.assert_close(rest + block.mlp(rest), block(block.input), rtol=1e-12, atol=1e-12)
    assert len(ff.load(module).blocks(x)) == 3  # of the list with most weights
    assert all(p.dtype == torch.float32 for p in module.parameters()) and module.training  # it is not touched
    with pytest.raises(CheckpointError, match="'third' is not a list of modules"):
        ff.load(module, blocks="third").blocks(x)


# -- encoder and decoder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["t5", "bart", "marian"])
@pytest.mark.parametrize("lazy", [False, True])
def test_decoders(kind: str, lazy: bool, tmp_path: Path) -> None:
    """Against the states that the model itself returns; the encoder's are constant."""
    folder = save_tiny(tmp_path, kind, torch.bfloat16)
    model = ff.load(folder, part="decoder", lazy=lazy)
    module: Any = ff.load(folder, part="decoder").module
    start = {"t5": 0, "bart": 2, "marian": 1}[kind]  # marian's configuration names one outside the vocabulary
    assert model.encode(IDS).ids.tolist() == [start, *IDS]
    with torch.no_grad():
        out = module(
            input_ids=torch.tensor([IDS]), decoder_input_ids=torch.tensor([[start, *IDS]]), output_hidden_states=True
        )
    blocks = model.blocks(IDS)
    assert len(blocks) == 2
    for block, state in zip(blocks, out.decoder_hidden_states, strict=False):
        torch.testing.assert_close(block.hidden_states, state[0].double(), rtol=1e-6, atol=1e-6)
        assert block.sections.softmax
        # the attention found is that among the decoder's own tokens, which is causal
        moved = block.attention_input.clone()
        moved[-1] += 1
        change = (block.attention(moved) - block.attention(block.attention_input)).abs().sum(-1)
        assert change[:-1].max() < 1e-12 * change[-1]
    assert ff.load(folder, part="encoder").blocks(IDS)[0].input.shape == (len(IDS), 32)


def test_parts_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not an encoder-decoder"):
        Model(tiny_model("llama"), part="decoder")
    with pytest.raises(InputError, match='part is "encoder" or "decoder"'):
        Model(tiny_model("t5"), part="middle")


# -- hidden states as a prompt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["llama", "bert", "roberta", "albert", "qwen3_next"])
def test_hidden_states_enter_the_first_block(kind: str) -> None:
    model = Model(tiny_model(kind))
    expected = model.blocks(IDS)
    blocks = Model(model.module).blocks(expected[0].hidden_states)  # a model that has not run yet
    for mine, theirs in zip(blocks, expected, strict=True):
        assert_same(mine.hidden_states, theirs.hidden_states, CASTS)
    assert blocks[0].tokens == ["0", "1", "2", "3", "4"]
    one = model.blocks(expected[0].hidden_states[:1].float(), stop=1)
    assert len(one) == 1 and one[0].attention(one[0].attention_input).shape == (1, 32)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (torch.zeros(3, 16), r"hidden states are \[3, 16\], the first block takes \[3, 32\]"),
        (torch.zeros(1, 2, 3, 32), "these have shape"),
        (torch.zeros(2, 2, 3, 32), "a batch of 2 prompts, and one is asked for"),
        (torch.zeros(2, 3, 32), "a batch of 2 prompts, and one is asked for"),
        (torch.full((3, 32), torch.nan), "hidden states"),
        (torch.zeros(65, 32), "65 tokens, the context of model 64"),
    ],
)
def test_hidden_states_that_do_not_fit(prompt: Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Model(tiny_model("llama")).blocks(prompt)


def test_analysis_of_hidden_states() -> None:
    found = ff.analyze(Model(tiny_model("llama")), [torch.randn(4, 32)], layers=[0], progress=False)
    assert not found.table["error"].notna().any()


# -- shipped models ----------------------------------------------------------------------------------------------------


def test_shipped_models_go_by_their_names_unless_a_folder_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [place_of(name, download=False) for name in SHIPPED] == [checkpoint(name) for name in SHIPPED]
    monkeypatch.chdir(tmp_path)
    (tmp_path / SHIPPED[0]).mkdir()
    assert place_of(SHIPPED[0], download=False).resolve() == tmp_path / SHIPPED[0]
