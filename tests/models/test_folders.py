"""Checkpoint folders: what is loaded from them, and which are refused."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.closeness import CASTS, assert_same
from cases.tiny_models import save_tiny, save_word_tokenizer, tiny_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import CheckpointError, InputError
from fisherflat.models import Block, Model

IDS = [5, 6, 7, 8, 9, 11]


# -- loading -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny(tmp_path_factory.mktemp("bert"), "bert")
    save_word_tokenizer(folder)
    return folder


@pytest.fixture
def folder(bert_folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(bert_folder, tmp_path / "model"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_load_runs_the_checkpoint(bert_folder: Path, no_network: None) -> None:
    model = ff.load(bert_folder)
    assert all(p.dtype == torch.float64 and not p.requires_grad for p in model.module.parameters())
    assert not model.module.training
    blocks = model.blocks("the cat sat")
    assert blocks[0].tokens == ["[CLS]", "the", "cat", "sat", "[SEP]"]
    assert [block.index for block in blocks] == [0, 1]
    # the same blocks from ids, in each form that ids come in
    ids = model.encode("the cat sat").ids
    for same in (ids, ids[None], ids.tolist()):
        assert_same(model.blocks(same)[1].hidden_states, blocks[1].hidden_states, CASTS)
    assert model.encode("the cat sat").special == [True, False, False, False, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_are_promoted_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = save_tiny(tmp_path, "llama", dtype)
    stored = load_file(folder / "model.safetensors")
    weights = ff.load(folder).module.state_dict()
    assert stored and all(weights[name].dtype == torch.float64 for name in stored)
    assert all(torch.equal(weights[name], tensor.double()) for name, tensor in stored.items())


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    whole = save_tiny(tmp_path / "whole", "llama")
    shards = save_tiny(tmp_path / "shards", "llama", max_shard_size="20kB")
    assert len(list(shards.glob("*.safetensors"))) > 2
    expected = ff.load(whole).blocks(IDS)[1].hidden_states
    assert_same(ff.load(shards).blocks(IDS)[1].hidden_states, expected, CASTS)
    lost = next(iter(sorted(shards.glob("*.safetensors"))))
    lost.unlink()
    with pytest.raises(CheckpointError, match=lost.name):
        ff.load(shards)


def test_a_shard_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "llama", max_shard_size="20kB")
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    name, shard = next(iter(names.items()))
    tensors = load_file(folder / shard)
    tensors["stranger"] = tensors.pop(name)
    save_file(tensors, folder / shard)
    with pytest.raises(CheckpointError, match="lacks 1 tensors"):
        ff.load(folder)


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_next", "afmoe", "gemma2", "albert"])
def test_a_folder_is_the_model_that_wrote_it(kind: str, tmp_path: Path) -> None:
    """Also where transformers renames or fuses weights between disk and memory."""
    expected = Model(tiny_model(kind).float().double()).blocks(IDS)
    blocks = ff.load(save_tiny(tmp_path, kind)).blocks(IDS)
    for mine, theirs in zip(blocks, expected, strict=True):
        assert mine.sections == theirs.sections
        torch.testing.assert_close(mine(mine.hidden_states), theirs(theirs.hidden_states), rtol=1e-4, atol=1e-4)


def test_encoder_of_an_encoder_decoder(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "t5")
    blocks = ff.load(folder).blocks(IDS)
    assert len(blocks) == 2 and blocks[0].sections.softmax


# -- what is refused ---------------------------------------------------------------------------------------------------


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickled(folder: Path) -> None:
    _no_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not looked at")


def _truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _truncated_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:50])


def _empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def _pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def _edit_config(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return damage


def _broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _edit_weights(change: Callable[[dict[str, Tensor]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return damage


WEIGHT = "encoder.layer.1.output.dense.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_config, "has no config.json"),
        (_no_weights, "has no weights"),
        (_pickled, r"holds pytorch_model.bin, pickled weights.*save_pretrained"),
        (_truncated, "is truncated or damaged"),
        (_truncated_header, "is truncated within its header"),
        (_empty, "is not a safetensors file"),
        (_pointer, "is not a safetensors file"),
        (_broken_config, "is not valid JSON"),
        (_edit_config(model_type="unheard_of"), "does not know the architecture 'unheard_of'"),
        (
            _edit_config(model_type="unheard_of", auto_map={"AutoModel": "modeling.Model"}),
            "needs code from the checkpoint itself, which is never run",
        ),
        (_edit_config(quantization_config={"quant_method": "gptq"}), r"are quantised \(gptq\)"),
        (_edit_config(quantization_config={"quant_method": "bitsandbytes"}), "none of these formats is supported"),
        (_edit_config(compression_config={"format": "pack"}), r"are quantised \(unknown\)"),
        (_edit_config(num_hidden_layers="two"), "does not fit the architecture"),
        (_edit_config(intermediate_size=40), "has the shape .* weights and config.json are of different models"),
        (_edit_weights(lambda t: t.pop(WEIGHT)), f"lacks 1 weights of BertModel, among them '{WEIGHT}'"),
        (_edit_weights(lambda t: t[WEIGHT].view(-1)[3].fill_(float("nan"))), f"'{WEIGHT}'.* holds NaN"),
        (
            _edit_weights(lambda t: t.update({WEIGHT: t[WEIGHT].to(torch.float8_e4m3fn)})),
            f"holds '{WEIGHT}' as F8_E4M3.*pass plain weights .F64, F32, BF16, F16",
        ),
        (
            _edit_weights(lambda t: t.update({WEIGHT: t[WEIGHT].mul(10).to(torch.int8)})),
            f"holds '{WEIGHT}' as I8, a quantised format; none is supported",
        ),
    ],
)
def test_bad_folders(folder: Path, damage: Callable[[Path], None], message: str, no_network: None) -> None:
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        ff.load(folder)


def test_a_missing_head_is_no_loss(folder: Path) -> None:
    _edit_weights(lambda t: [t.pop(name) for name in list(t) if name.startswith("pooler")])(folder)  # type: ignore[func-returns-value]
    assert len(ff.load(folder).blocks("the cat sat")) == 2


def test_bad_paths(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        ff.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="there is no folder"):
        ff.load("./nowhere")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        ff.load(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="nothing is downloaded"):
        ff.load("nobody/never-cached-model")
    with pytest.raises(CheckpointError, match="neither a folder nor a Hugging Face id"):
        ff.load("no such model")


def test_without_tokenizer_token_ids_are_needed(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    model = ff.load(folder)
    with pytest.raises(CheckpointError, match=r"holds no tokenizer; give the prompt as token ids"):
        model.blocks("the cat sat")
    blocks = model.blocks([4, 5, 6])
    assert blocks[0].tokens == ["4", "5", "6"]


def test_a_broken_tokenizer_is_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer in .* could not be read"):
        ff.load(folder).blocks("the cat sat")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt is empty"),
        ("  \n", "prompt is empty"),
        ([], "prompt is empty"),
        ("the cat " * 40, "82 tokens, the context of .* 64"),
        (list(range(4)) * 20, "80 tokens, the context of .* 64"),
        ([1.0, 2.0], "token ids are integers"),
        ([True, False], "token ids are integers"),
        ([[1, 2], [3, 4]], "token ids are integers"),
        ([1, -1], "token id -1 is outside the vocabulary of 60"),
        ([1, 60], "token id 60 is outside the vocabulary of 60"),
        (None, "a prompt is text, token ids"),
        ([[1, 2], [3]], "a prompt is text, token ids"),
    ],
)
def test_bad_prompts(bert_folder: Path, prompt: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ff.load(bert_folder).encode(prompt)


def test_positions_with_an_offset_are_counted_by_the_model() -> None:
    """RoBERTa's table of 64 positions takes 62 tokens, which its configuration does not say."""
    model = Model(tiny_model("roberta"), name="roberta")
    assert isinstance(model.blocks([5] * 60)[0], Block)
    with pytest.raises(InputError, match="64 tokens do not fit"):
        model.blocks([5] * 64)


def test_prompt_in_another_script(bert_folder: Path) -> None:
    encoded = ff.load(bert_folder).encode("Привет мир")
    assert encoded.tokens == ["[CLS]", "[UNK]", "[UNK]", "[SEP]"]


def test_a_model_without_blocks() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 8)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.embedding(input_ids)

    with pytest.raises(CheckpointError, match="Flat has no list of blocks"):
        Model(Flat()).blocks([1, 2, 3])


@pytest.mark.parametrize("returned", [lambda x: x.mean(1), lambda x: None, lambda x: x[:, :1], lambda x: x.long()])
def test_blocks_that_return_no_hidden_states(returned: Callable[[Tensor], Any]) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Any:
            return returned(self.map(x))

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 8)
            self.blocks = nn.ModuleList([Block(), Block()])

        def forward(self, input_ids: Tensor) -> Any:
            return [block(self.embedding(input_ids)) for block in self.blocks]

    with pytest.raises(CheckpointError, match="Parallel has no list of blocks that take and return hidden states"):
        Model(Parallel()).blocks([1, 2, 3])


def test_a_model_that_fails_is_named() -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 8)

        def forward(self, input_ids: Tensor) -> Tensor:
            raise ValueError("out of order")

    with pytest.raises(CheckpointError, match=r"broken \(Failing\) failed on token ids: ValueError: out of order"):
        Model(Failing(), name="broken").blocks([1, 2, 3])
