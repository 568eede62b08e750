"""Weights that stay on disk: the same numbers, one block in memory at a time."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.closeness import CASTS, assert_same
from cases.tiny_models import save_tiny, tiny_model
from torch import Tensor
from torch.nn import Parameter
from transformers import AutoModel

import fisherflat as ff
from fisherflat.errors import CheckpointError, CheckpointWarning, InputError
from fisherflat.lab.bench.memory import Tally

IDS = [5, 6, 7, 8]


@pytest.mark.parametrize(
    "kind",
    # merged experts; rotary buffers; one list in another; tied tables; scaled tables; positions with an offset;
    # buffers in float32; shared blocks; a table that is asked for its device
    ["mixtral", "qwen3_next", "hrm_text", "t5", "gemma2", "opt", "gptj", "albert", "llama4_text"],
)
def test_the_same_blocks_as_with_all_weights_in_memory(kind: str, tmp_path: Path) -> None:
    """And as in the model that transformers reads."""
    folder = save_tiny(tmp_path, kind, torch.bfloat16, max_shard_size="20kB")
    eager, lazy = (ff.load(folder, lazy=lazy) for lazy in (False, True))
    assert lazy.weights.lazy and not eager.weights.lazy
    how: Any = {"attn_implementation": "eager", "experts_implementation": "batched_mm"}
    read = ff.load(AutoModel.from_pretrained(folder, dtype=torch.float64, **how))
    for ours, whole, theirs in zip(lazy.blocks(IDS), eager.blocks(IDS), read.blocks(IDS), strict=True):
        for mine in (ours, whole):
            assert_same(mine.hidden_states, theirs.hidden_states, CASTS)
            assert_same(mine(mine.input), theirs(theirs.input), CASTS)
            assert mine.sections == theirs.sections


def living_floats(*, above: int) -> int:
    """Bytes of the floating tensors that are alive in this process and not smaller than that."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        # tensors of other kinds, such as those that a trace watches, have no memory of their own, and sparse ones that
        # other tests may leave behind cannot be asked for it
        strided = type(thing) in (Tensor, Parameter) and thing.layout is torch.strided
        if strided and thing.is_floating_point() and not thing.is_meta:
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(nbytes for nbytes in storages.values() if nbytes >= above)


ANALYSED = """
import json, sys
import fisherflat as ff
from fisherflat.lab.bench.memory import Tally

folder, ids = sys.argv[1], json.loads(sys.argv[2])
model = ff.load(folder, lazy=True)
options = {"layers": [0, 1], "parts": ["block"], "readings": ["live"], "positions": "last", "points": 1}
with Tally() as tally:
    found = ff.analyze(model, ids, progress=False, **options)
assert found.table["layer"].nunique() == 2 and not found.table["error"].notna().any()
print(tally.peak)
"""


def test_one_block_in_memory_at_a_time(tmp_path: Path) -> None:
    """Four blocks and a large table: at no time do tensors add up to three blocks, activations included."""
    sizes = {"num_hidden_layers": 4, "hidden_size": 96, "intermediate_size": 288, "vocab_size": 7_000, "head_dim": 24}
    module: Any = tiny_model("llama", **sizes)
    block = sum(8 * weight.numel() for weight in module.layers[0].parameters())
    assert 8 * module.embed_tokens.weight.numel() > 6 * block
    module.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="600kB")
    del module
    floor = living_floats(above=4000)
    model = ff.load(tmp_path, lazy=True)
    with Tally() as tally:
        blocks = model.blocks(IDS)
    assert len(blocks) == 4 and living_floats(above=4000) - floor < block / 10
    assert tally.peak < 2 * block
    with Tally() as tally:
        for _ in blocks:
            alive = living_floats(above=4000) - floor
            assert 0.9 * block < alive < 1.1 * block
    assert tally.peak < 3 * block
    # by itself: what checks types in these tests keeps arguments alive, and earlier tests leave tables that are shared
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ANALYSED, str(tmp_path), json.dumps(IDS)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 3 * block
    with Tally() as tally:
        for layer in blocks:
            graph = ff.freeze(layer, layer.input)
            ff.StatisticalManifold(graph, ff.charts.principal(layer.input, -1, 2)).scalar_curvature(torch.zeros(2))
    assert tally.peak < 3 * block


def test_a_block_lives_as_long_as_somebody_holds_it(tmp_path: Path) -> None:
    model = ff.load(save_tiny(tmp_path, "llama", torch.bfloat16), lazy=True)
    one, other = model.blocks(IDS), model.blocks([3, 4])
    first, second, again = one[0], one[1], other[0]
    assert first.root is again.root and first.root is not second.root  # two prompts share one copy
    value = first(first.input)
    assert_same(first(first.input), value, CASTS)
    del first, again
    del value
    assert one[1] is second and one[:2][0].root is not second.root
    assert all(p.is_meta for p in model.module.layers.parameters())


def test_stop_ends_the_forward_pass(tmp_path: Path) -> None:
    tiny_model("llama", num_hidden_layers=4).to(torch.bfloat16).save_pretrained(tmp_path)
    model = ff.load(tmp_path, lazy=True)
    called: list[int] = []
    for i, layer in enumerate(model.module.layers):
        layer.register_forward_hook(lambda module, args, output, i=i: called.append(i))
    some = model.blocks(IDS, stop=2)
    assert called == [0, 1] and len(some) == 2
    whole = model.blocks(IDS)
    for one, other in zip(some, whole, strict=False):
        assert_same(one.hidden_states, other.hidden_states, CASTS)
    assert len(model.blocks(IDS, stop=9)) == 4
    with pytest.raises(InputError, match="stop must be at least 1"):
        model.blocks(IDS, stop=0)


def test_weights_stay_on_disk_where_they_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path, "llama", torch.bfloat16)
    assert not ff.load(folder).weights.lazy
    monkeypatch.setattr("fisherflat.models._loading.memory_budget", lambda device: 1000)
    assert ff.load(folder).weights.lazy
    assert not ff.load(folder, lazy=False).weights.lazy


def test_what_cannot_stay_on_disk_is_read_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path, "llama", torch.bfloat16)

    def fails(config: Any, auto: str) -> None:
        raise RuntimeError("no empty model")

    monkeypatch.setattr("fisherflat.models._loading.empty_model", fails)
    with pytest.warns(CheckpointWarning, match=r"cannot be built without its weights \(RuntimeError: no empty model\)"):
        model = ff.load(folder, lazy=True)
    assert not model.weights.lazy and len(model.blocks(IDS)) == 2


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe"])
def test_double_weights_are_read_exactly_and_no_default_changes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where transformers reads the files, merging experts; other threads make tensors meanwhile."""
    folder = save_tiny(tmp_path, kind, torch.float64)
    whole = ff.load(folder).module.state_dict()
    assert any(not torch.equal(tensor, tensor.float().double()) for tensor in whole.values())
    defaults: list[torch.dtype] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            defaults.append(torch.ones(1).dtype)

    def fails(config: Any, auto: str) -> None:
        raise RuntimeError("no empty model")

    monkeypatch.setattr("fisherflat.models._loading.empty_model", fails)
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        read = ff.load(folder).module.state_dict()
    finally:
        done.set()
        thread.join()
    assert set(defaults) == {torch.float32}
    assert read.keys() == whole.keys() and all(torch.equal(read[name], whole[name]) for name in whole)


def test_damage_that_shows_when_a_block_is_read(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, "llama", torch.bfloat16, max_shard_size="20kB")
    model = ff.load(folder, lazy=True)
    names = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    shard = folder / names["layers.1.mlp.down_proj.weight"]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"cannot be read from .*{shard.name} any more"):
        model.blocks(IDS)
    shard.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(CheckpointError, match=f"cannot be read from .*{shard.name} any more"):
        model.blocks(IDS)
