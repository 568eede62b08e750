"""The files of a checkpoint, looked at before anything is built from them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from fisherflat.errors import CheckpointError
from fisherflat.models._stored_tensors import FLOATS, StoredTensor
from fisherflat.zoo import CHECKPOINTS, checkpoint

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.tiktoken", "tekken.json")
#: names that only weights have, which are packed where they are integers
PACKED = ("weight", "qweight", "weight_packed", "qzeros")
#: what is fetched when a download is allowed; never code, never pickled weights
DOWNLOADED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.tiktoken")


def place_of(path_or_id: str | Path, download: bool) -> Path:
    """Where a checkpoint is: the path itself (a folder or a safetensors file), or the cached snapshot of an id.

    The language models that ship with the package go by their names, `python-llama` and `python-qwen3-next`.

    **Raises:** `CheckpointError` where there is no such folder, or the id is not cached and `download` is false.
    """
    path = Path(path_or_id).expanduser()
    if path.exists():
        return path
    name = str(path_or_id)
    if name in CHECKPOINTS:
        return checkpoint(name)
    if isinstance(path_or_id, Path) or name.startswith((".", "/", "~", "\\")) or name.count("/") > 1 or not name:
        raise CheckpointError(
            f"there is no folder {name!r}; pass the one that holds config.json and the safetensors weights"
        )

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=not download, allow_patterns=list(DOWNLOADED)))
    except HFValidationError as error:
        raise CheckpointError(f"{name!r} is neither a folder nor a Hugging Face id: {error}") from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name!r} is not a folder, and the local Hugging Face cache has no model of that id; nothing is "
            "downloaded unless you allow it: load(..., download=True)"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{name!r} could not be fetched: {error}") from error


def read_config(path: Path) -> dict[str, Any]:
    """A parsed config.json, from the file or the folder that holds it.

    **Raises:** `CheckpointError` where it is missing, not JSON, or announces quantised weights.
    """
    if not path.exists():
        raise CheckpointError(f"there is no config {path}; pass the config.json that belongs to the weights")
    if path.is_dir():
        folder, path = path, path / "config.json"
        if not path.is_file():
            raise CheckpointError(
                f"{folder} has no config.json, so it is not a Hugging Face model folder; pass one that is, or a config"
            )
    config = _read_json(path)
    if quantised := config.get("quantization_config") or config.get("compression_config"):
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else "unknown"
        raise CheckpointError(
            f"the weights of {path} are quantised ({method}); none of these formats is supported, since second "
            "derivatives need plain weights: pass a float32, bfloat16 or float16 release of the model"
        )
    return config


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file, or of all those of a folder, by name; from the headers alone.

    **Raises:** `CheckpointError` for a folder without weights, with pickled weights only, with a missing or truncated
    file, with a shard that lacks tensors which the index promises, or with weights in a format of 8 bits or fewer.
    """
    if path.is_file():
        return _tensors_of(path)
    if (path / "model.safetensors").is_file():
        return _tensors_of(path / "model.safetensors")
    index = path / "model.safetensors.index.json"
    if index.is_file():
        return _sharded(index)
    pickled = sorted(file.name for file in path.iterdir() if file.suffix in PICKLED)
    if pickled:
        raise CheckpointError(
            f"{path} holds pickled weights only ({', '.join(pickled[:3])}), which can run code when loaded, so "
            "they are refused; convert them where you trust them: "
            "AutoModel.from_pretrained(...).save_pretrained(folder) writes safetensors"
        )
    raise CheckpointError(f"{path} has no weights: no model.safetensors and no model.safetensors.index.json")


def _sharded(index: Path) -> dict[str, StoredTensor]:
    folder = index.parent
    shards: dict[str, set[str]] = {}
    for tensor, name in _field(_read_json(index), "weight_map", index).items():
        shards.setdefault(name, set()).add(tensor)
    tensors: dict[str, StoredTensor] = {}
    for name, promised in sorted(shards.items()):
        if Path(name).name != name:
            raise CheckpointError(f"{index} names a shard outside its folder, {name!r}; fetch the index again")
        if not (folder / name).is_file():
            raise CheckpointError(f"{index.name} names the shard {name}, which is not in {folder}; fetch that file")
        found = _tensors_of(folder / name)
        if missing := sorted(promised - found.keys()):
            raise CheckpointError(
                f"the shard {name} in {folder} lacks {len(missing)} tensors that {index.name} places there, "
                f"among them {missing[0]!r}; index and shards are of different versions, fetch both again"
            )
        tensors |= {tensor: found[tensor] for tensor in promised}
    return tensors


def _tensors_of(path: Path) -> dict[str, StoredTensor]:
    if path.suffix in PICKLED:
        raise CheckpointError(
            f"{path} is a pickle, which can run code when loaded, so it is refused; convert it where you trust it: "
            "safetensors.torch.save_file(state_dict, file)"
        )
    tensors = {}
    for name, entry in read_header(path).items():
        packed = name.rpartition(".")[2] in PACKED and entry["dtype"] not in FLOATS
        if packed or (entry["dtype"] not in FLOATS and str(entry["dtype"]).startswith("F")):
            raise CheckpointError(
                f"{path} holds {name!r} as {entry['dtype']}, a quantised format; none is supported, pass plain weights "
                f"({', '.join(FLOATS)})"
            )
        tensors[name] = StoredTensor(path, name, entry["dtype"], tuple(entry["shape"]))
    return tensors


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor name -> dtype, shape and place.

    **Raises:** `CheckpointError` where the file is truncated or is not a safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= 100_000_000:
            raise CheckpointError(f"{path} is not a safetensors file (it does not begin with a header); fetch it again")
        if 8 + length > size:
            raise CheckpointError(f"{path} is truncated within its header, at {size} bytes; fetch it again")
        try:
            header = json.loads(file.read(length))
            tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
            expected = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
            for entry in tensors.values():
                str(entry["dtype"]), tuple(entry["shape"])
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise CheckpointError(f"the header of {path} cannot be read ({error}); fetch the file again") from error
    if size != expected:
        raise CheckpointError(
            f"{path} is truncated or damaged: it has {size} bytes, its header describes {expected}; fetch it again"
        )
    return tensors


def has_tokenizer(folder: Path) -> bool:
    """Whether the files of a tokenizer are in the folder."""
    return any(next(folder.glob(pattern), None) for pattern in TOKENIZERS)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    return value


def _field(value: dict[str, Any], name: str, path: Path) -> dict[str, str]:
    field = value.get(name)
    if not isinstance(field, dict):
        raise CheckpointError(f"{path} has no {name!r}")
    return field
