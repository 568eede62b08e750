"""Checkpoints that are damaged in many ways, and what becomes of them.

All 500: `python tests/cases/damaged.py`. In CI every tenth (`tests/models/test_malformed.py`).
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import fisherflat as ff
from cases.tiny_models import save_tiny
from fisherflat.errors import FisherflatError

COUNT = 500
IDS = [5, 6, 7]
KINDS = ("llama", "bert", "mixtral")


def anything(draw: random.Random) -> Any:
    """A JSON value that is none of those that belong there."""
    return draw.choice(
        [None, True, False, -1, 0, 1, 3, 7, 2**31, 2**63, 10**30, 1e308, -0.5, "", "x", "\x00", "../..", "é" * 9, [],
         [1], [[]], {}, {"a": 1}, {"quant_method": "gptq"}, ["float32"], "bfloat16", "nan"]
    )  # fmt: skip


def _config(change: Callable[[random.Random, dict[str, Any]], Any]) -> Callable[[random.Random, Path], None]:
    def damage(draw: random.Random, folder: Path) -> None:
        file = folder / "config.json"
        config = json.loads(file.read_text())
        changed = change(draw, config)
        file.write_text(json.dumps(config if changed is None else changed))

    return damage


def _swap(draw: random.Random, config: dict[str, Any]) -> None:
    for key in draw.sample(sorted(config), draw.choice([1, 1, 2, 4])):
        config[key] = anything(draw)


def _drop(draw: random.Random, config: dict[str, Any]) -> None:
    for key in draw.sample(sorted(config), draw.choice([1, 2, len(config) // 2, len(config)])):
        del config[key]


def _size(draw: random.Random, config: dict[str, Any]) -> None:
    sizes = [key for key, value in config.items() if type(value) is int and value > 1]
    for key in draw.sample(sizes, min(2, len(sizes))):
        config[key] = draw.choice([config[key] + 1, config[key] // 2, config[key] * 2, 1, -config[key]])


def _other(draw: random.Random, config: dict[str, Any]) -> None:
    config["model_type"] = draw.choice(
        ["gpt2", "t5", "vit", "no such", "", None, "llava", "mamba", "bert", "deberta-v2"]
    )


def text(draw: random.Random, folder: Path) -> None:
    """Bytes of the configuration."""
    file = folder / "config.json"
    data = bytearray(file.read_bytes())
    how = draw.randrange(5)
    if how == 0:
        data = data[: draw.randrange(len(data))]
    elif how == 1:
        data = bytearray(draw.randbytes(40))
    elif how == 2:
        data = bytearray(b'{"a":' * 5000)
    elif how == 3:
        data = bytearray(b"\xff\xfe") + data
    else:
        for _ in range(5):
            data[draw.randrange(len(data))] = draw.randrange(256)
    file.write_bytes(bytes(data))


def header(draw: random.Random, folder: Path) -> None:
    """Entries of the header of the weights."""
    file = folder / "model.safetensors"
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    entries = json.loads(data[8 : 8 + length])
    names = [name for name in entries if name != "__metadata__"]
    name = draw.choice(names)
    how = draw.randrange(7)
    if how == 0:
        entries[name][draw.choice(["dtype", "shape", "data_offsets"])] = anything(draw)
    elif how == 1:
        del entries[name]
    elif how == 2:
        entries[name] = anything(draw)
    elif how == 3:
        entries[name]["shape"] = [*entries[name]["shape"], 2]
    elif how == 4:
        entries[name]["data_offsets"] = [draw.randrange(-9, 99), draw.randrange(-9, 10**9)]
    elif how == 5:
        entries[name]["dtype"] = draw.choice(["F8_E4M3", "I8", "F32", "F64", "BOOL", "C64", "F4", "U8"])
    else:
        entries = {f"{name}.{i}": entry for i, (name, entry) in enumerate(entries.items())}
    made = json.dumps(entries).encode()
    file.write_bytes(struct.pack("<Q", len(made)) + made + data[8 + length :])


def bytes_of_weights(draw: random.Random, folder: Path) -> None:
    """The file of the weights itself."""
    file = folder / "model.safetensors"
    data = file.read_bytes()
    how = draw.randrange(7)
    if how == 0:
        data = data[: draw.randrange(len(data))]
    elif how == 1:
        data = b""
    elif how == 2:
        data = struct.pack("<Q", draw.choice([0, 1, 2**40, 2**63, len(data)])) + data[8:]
    elif how == 3:
        data += draw.randbytes(draw.randrange(1, 50))
    elif how == 4:
        data = draw.randbytes(200)
    elif how == 5:
        place = 8 + struct.unpack("<Q", data[:8])[0]
        data = data[:place] + struct.pack("<f", draw.choice([float("nan"), float("inf")])) * 8 + data[place + 32 :]
    else:
        at = 8 + draw.randrange(struct.unpack("<Q", data[:8])[0])
        data = data[:at] + draw.randbytes(3) + data[at + 3 :]
    file.write_bytes(data)


def index(draw: random.Random, folder: Path) -> None:
    """An index that is not of its shards."""
    file = folder / "model.safetensors"
    data = file.read_bytes()
    names = list(json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]]))
    shard = folder / "model-00001-of-00001.safetensors"
    file.rename(shard)
    places: Any = {name: shard.name for name in names if name != "__metadata__"}
    how = draw.randrange(6)
    if how == 0:
        places[draw.choice(sorted(places))] = draw.choice(["../x.safetensors", "/etc/passwd", "gone.safetensors", ""])
    elif how == 1:
        places[draw.choice(sorted(places))] = anything(draw)
    elif how == 2:
        places["no.such.weight"] = shard.name
    elif how == 3:
        places = anything(draw)
    elif how == 4:
        places = dict(draw.sample(sorted(places.items()), len(places) // 2))
    else:
        shard.unlink()
    whole: Any = {"weight_map": places, "metadata": {}} if draw.random() < 0.9 else anything(draw)
    (folder / "model.safetensors.index.json").write_text(json.dumps(whole))


def files(draw: random.Random, folder: Path) -> None:
    """A file that is gone, a folder, or of another kind."""
    file = folder / draw.choice(["config.json", "model.safetensors"])
    how = draw.randrange(4)
    file.unlink()
    if how == 0:
        file.mkdir()
    elif how == 1:
        file.symlink_to(file)
    elif how == 2:
        (
            folder / draw.choice(["pytorch_model.bin", "m.gguf", "consolidated.safetensors", "adapter_config.json"])
        ).touch()


DAMAGES: tuple[Callable[[random.Random, Path], None], ...] = (
    _config(_swap), _config(_drop), _config(_size), _config(_other), _config(lambda draw, _: anything(draw)),
    text, header, bytes_of_weights, index, files,
)  # fmt: skip


def wholes(folder: Path) -> list[Path]:
    return [save_tiny(folder / kind, kind, torch.float32) for kind in KINDS]


def outcome(number: int, folders: list[Path], place: Path) -> str:
    """What becomes of a damaged checkpoint: `refused`, `read`, or what is wrong."""
    draw = random.Random(number)
    damage = DAMAGES[number % len(DAMAGES)]
    folder = Path(shutil.copytree(draw.choice(folders), place / str(number)))
    damage(draw, folder)
    said = []
    for lazy in (False, True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for block in ff.load(folder, lazy=lazy).blocks(IDS):
                    block(block.input)
            said.append("read")
        except FisherflatError as error:
            said.append("refused" if len(str(error)) > 20 else f"says too little: {error}")
        except Exception:
            said.append(traceback.format_exc())
    shutil.rmtree(folder, ignore_errors=True)
    wrong = [one for one in said if one not in ("read", "refused")]
    if said == ["refused", "read"] and damage is bytes_of_weights:  # a row of a table that the prompt does not look up
        return "refused"
    return wrong[0] if wrong else said[0] if said[0] == said[1] else f"{said[0]} whole, {said[1]} from disk"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        sound = wholes(Path(temporary) / "whole")
        results = [outcome(number, sound, Path(temporary)) for number in range(COUNT)]
    for number, result in enumerate(results):
        if result not in ("read", "refused"):
            print(f"{number}: {result}")
    counts = {result: results.count(result) for result in ("refused", "read")}
    print(f"{COUNT} damaged checkpoints: {counts['refused']} refused with an error of ours, {counts['read']} read, "
          f"since nothing that matters was damaged, {COUNT - sum(counts.values())} with another error")  # fmt: skip
