"""Checkpoints that are damaged: each ends in an error of ours, whatever the way that weights are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.damaged import outcome, wholes
from cases.tiny_models import save_tiny

import fisherflat as ff
from fisherflat.errors import CheckpointError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return wholes(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("tens", range(5))
def test_every_tenth(tens: int, folders: list[Path], tmp_path: Path) -> None:
    """Damages of all kinds: an error of ours, or, where nothing that matters was damaged, the same model both ways."""
    numbers = [100 * tens + 11 * i for i in range(10)]
    found = {number: outcome(number, folders, tmp_path) for number in numbers}
    assert {number: said for number, said in found.items() if said not in ("read", "refused")} == {}
    assert "refused" in found.values()


@pytest.mark.parametrize(
    "names", [7, 1.5, True, "LlamaForCausalLM", {"a": 1}, [3], [None], [["x"]], [""], ["pipeline"], ["GPT2LMHeadModel"]]
)
def test_what_a_configuration_calls_itself_is_not_believed(names: Any, tmp_path: Path) -> None:
    """Its classes are names of models that take it, or nothing: the model without its head is read all the same."""
    folder = save_tiny(tmp_path, "llama", torch.float32)
    config = json.loads((folder / "config.json").read_text()) | {"architectures": names}
    (folder / "config.json").write_text(json.dumps(config))
    model = ff.load(folder)
    assert len(model.blocks([5, 6, 7])) == 2
    with pytest.raises(CheckpointError, match="no unembedding"):
        model.readout("next-token", [5, 6, 7])
    with pytest.raises(CheckpointError):
        ff.memories.unembedding(model)
