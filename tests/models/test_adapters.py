"""Adapters, in memory and in folders of their own, and what else a folder may hold in the place of weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.tiny_models import save_tiny, tiny_model
from safetensors.torch import load_file, save_file
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import CheckpointError, InputError

IDS = [5, 6, 7, 8, 9]
SCALE = 3.0


def adapted(base: Path) -> Any:
    """A language model in float32 with low-rank adapters of random numbers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    options: Any = {"r": 2, "lora_alpha": 2 * SCALE, "target_modules": ["q_proj", "down_proj"]}
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return get_peft_model(model, LoraConfig(**options, init_lora_weights=False, task_type="CAUSAL_LM"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base model and an adapter of it."""
    base = save_tiny(tmp_path_factory.mktemp("base") / "whole", "llama", torch.float32)
    adapter = base.parent / "tuned"
    adapted(base).save_pretrained(adapter)
    return base, adapter


def expected(base: Path, adapter: Path) -> dict[str, Tensor]:
    """The weights with `scale · B A` added, from the two files alone, in double."""
    weights = {name: value.double() for name, value in load_file(base / "model.safetensors").items()}
    low = {name: value.double() for name, value in load_file(adapter / "adapter_model.safetensors").items()}
    for name in (name for name in low if name.endswith("lora_A.weight")):
        target = name.removeprefix("base_model.model.model.").replace("lora_A.", "")
        weights[target] = weights[target] + SCALE * low[name.replace("lora_A", "lora_B")] @ low[name]
    return weights


def test_adapters_are_merged_and_it_is_said(folders: tuple[Path, Path]) -> None:
    base, adapter = folders
    said = expected(base, adapter)
    plain = ff.load(base).module.state_dict()
    module = adapted(base)
    for source, name in (
        (adapter, "whole with the adapter tuned merged"),
        (module, "LlamaForCausalLM, default merged"),
    ):
        model = ff.load(source)
        assert model.name == ff.inspect(model).model == name
        found = {key.removeprefix("model."): value for key, value in model.module.state_dict().items()}
        moved = 0
        for key, value in said.items():
            torch.testing.assert_close(found[key], value, rtol=1e-12, atol=1e-12)
            moved += int(not torch.allclose(value, plain[key]))
        assert moved == 4  # two targets in each of two layers
        assert len(model.blocks(IDS)) == 2
    names = [name for name, _ in module.named_parameters() if "lora_A" in name]
    assert len(names) == 4  # the user's own stays as it is


def test_an_adapter_without_what_it_needs(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = folders
    about = json.loads((adapter / "adapter_config.json").read_text())
    lost = Path(shutil.copytree(adapter, tmp_path / "lost"))
    (lost / "adapter_config.json").write_text(json.dumps(about | {"base_model_name_or_path": str(tmp_path / "gone")}))
    with pytest.raises(CheckpointError, match=r"holds an adapter of .*gone.*give its folder as base="):
        ff.load(lost)
    assert torch.equal(ff.load(lost, base=base).blocks(IDS)[1].input, ff.load(adapter).blocks(IDS)[1].input)
    with pytest.raises(InputError, match="base is the model that an adapter belongs to"):
        ff.load(base, base=base)
    other = save_tiny(tmp_path / "other", "gpt2", torch.float32)
    with pytest.raises(CheckpointError, match="does not fit"):
        ff.load(lost, base=other)
    (lost / "adapter_model.safetensors").rename(lost / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"no adapter_model\.safetensors.*pickled"):
        ff.load(lost, base=base)
    both = Path(shutil.copytree(base, tmp_path / "both"))
    for file in adapter.glob("adapter*"):
        shutil.copy(file, both)
    for lazy in (False, True):  # where peft is installed transformers would merge it, and only where all is read
        with pytest.raises(CheckpointError, match=r"holds a whole model .* and an adapter"):
            ff.load(both, lazy=lazy)


def test_an_adapter_of_other_weights(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = folders
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    low = load_file(other / "adapter_model.safetensors")
    save_file(dict(list(low.items())[1:]), other / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="do not have the same weights: 1 are in one alone"):
        ff.load(other, base=base)


def test_adapters_that_cannot_be_merged() -> None:
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    module = AutoModelForCausalLM.from_config(tiny_model("llama").config)  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="cannot be merged into its weights"):
        ff.load(get_peft_model(module, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)))


#: by what a folder holds beside a config.json: the words of the error
HELD = {
    ("model-q4_k_m.gguf",): "model-q4_k_m.gguf, weights for llama.cpp",
    ("pytorch_model.bin",): "pytorch_model.bin, pickled weights, which can run code",
    ("model.pt", "optimizer.pt"): "model.pt and 1 more, pickled weights",
    ("model-00001-of-00003.safetensors",): r"model-00001-of-00003.safetensors, a shard of several.*fetch the index",
    ("consolidated.safetensors", "params.json"): "consolidated.safetensors, weights under the names of another library",
    ("weights.safetensors",): "weights.safetensors, weights under a name of its own; pass the file itself",
    ("tf_model.h5",): "tf_model.h5, weights for another framework",
    ("adapter_model.safetensors",): "adapter_model.safetensors, an adapter without its adapter_config.json",
    ("checkpoint-500", "checkpoint-1000"): "checkpoint-1000 and 1 more, checkpoints of a training run",
    (): "no model.safetensors and no model.safetensors.index.json$",
}


@pytest.mark.parametrize("names", HELD)
@pytest.mark.parametrize("config", [True, False])
def test_what_is_there_instead(names: tuple[str, ...], config: bool, tmp_path: Path) -> None:
    if config:
        tiny_model("llama").config.save_pretrained(tmp_path)  # type: ignore[attr-defined]
    for name in names:
        save_file({"a": torch.zeros(2)}, tmp_path / name)
    wanted = HELD[names] if config or names else "no config.json"
    for lazy in (None, True, False):
        with pytest.raises(CheckpointError, match=wanted):
            ff.load(tmp_path, lazy=lazy)
    for name in names[:1]:
        if config and not name.endswith(".safetensors") and "." in name:
            with pytest.raises(CheckpointError, match=r"is a pickle|is no safetensors file; it holds"):
                ff.load(tmp_path / name)
