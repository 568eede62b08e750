"""Models sent to other processes, and all their weights one after the other."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.closeness import CASTS, assert_same
from cases.tiny_models import save_tiny, save_word_tokenizer, tiny_model

import fisherflat as ff

IDS = [5, 6, 7, 8]


@pytest.mark.parametrize("lazy", [False, True])
def test_a_model_from_disk_is_sent_as_its_place(tmp_path: Path, lazy: bool) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    save_word_tokenizer(folder)
    model = ff.load(folder, lazy=lazy)
    sent = pickle.dumps(model)
    assert len(sent) < 20_000  # no weights
    again = copy.copy(model)  # by way of what is sent
    assert again.weights.lazy == lazy and again.name == model.name
    for before, after in zip(model.blocks("the cat sat"), again.blocks("the cat sat"), strict=True):
        assert_same(before.input, after.input, CASTS)


def test_a_module_of_ones_own_is_sent_whole() -> None:
    module = tiny_model("t5")  # of two stacks, of which one is used
    model = ff.load(module, part="decoder")
    pickle.dumps(model)
    again = copy.copy(model)
    assert again.part == "decoder"
    for before, after in zip(model.blocks(IDS), again.blocks(IDS), strict=True):
        assert_same(before(before.input), after(after.input), CASTS)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_sequences_of_blocks_and_blocks_that_were_used(tmp_path: Path, lazy: bool, how: Any) -> None:
    """With all that was found in them: parts, halves and heads."""
    model = ff.load(save_tiny(tmp_path / "model", "llama"), lazy=lazy)
    blocks = model.blocks(IDS)
    used = blocks[1]
    found = (used.attention, used.mlp, used.halves, used.heads)
    assert all(found)
    for again in (how(blocks), how(blocks[:2]), how(blocks)[-2:]):
        assert len(again) == 2 and again[1].index == 1
        assert_same(again[1].input, used.input, CASTS)
        assert_same(again[1].heads[2](used.attention_input), used.heads[2](used.attention_input), CASTS)
    other, heads = how(used), how(used.heads)
    assert_same(other.mlp(used.mlp_input), used.mlp(used.mlp_input), CASTS)
    assert_same(heads[1](used.attention_input), used.heads[1](used.attention_input), CASTS)
    assert_same(heads.projection(1), used.heads.projection(1), CASTS)


def test_weights_one_by_one(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    model = ff.load(folder, lazy=True)
    stored = dict(model.weights.each(model.module))
    whole = ff.load(folder, lazy=False)
    in_memory = dict(whole.weights.each(whole.module))
    on_disk = {name: tensor for name, tensor in stored.items() if tensor.dtype == torch.float32}
    assert len(stored) == len(in_memory) and len(on_disk) > 10
    for name, tensor in on_disk.items():
        assert torch.equal(tensor.double(), in_memory[name])
