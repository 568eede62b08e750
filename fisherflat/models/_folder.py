"""The files of a checkpoint, looked at before anything is built from them."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

from fisherflat._files import content, regular, too_deep
from fisherflat.errors import CheckpointError
from fisherflat.models._stored_tensors import FLOATS, StoredTensor
from fisherflat.zoo import CHECKPOINTS, checkpoint

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.tiktoken", "tekken.json")
#: bytes of a configuration or an index: of the largest models these have some ten million
LARGEST = 2**28
#: names that only weights have, which are packed where they are integers
PACKED = ("weight", "qweight", "weight_packed", "qzeros")
#: what else a folder may hold, by the pattern of its name, and what to do with it
ELSEWHERE = (
    (
        r".*\.gguf",
        "weights for llama.cpp, mostly quantised; take the release in safetensors, or read them yourself and give the "
        "module: load(AutoModel.from_pretrained(folder, gguf_file=...))",
    ),
    (
        r".*-\d+-of-\d+\.safetensors",
        "a shard of several, without model.safetensors.index.json, which says what is in which; fetch the index and "
        "all shards",
    ),
    (
        r"consolidated.*\.safetensors",
        "weights under the names of another library, as Mistral releases them; take the release for transformers, with "
        "config.json and model.safetensors",
    ),
    (
        r"adapter_model\..*",
        "an adapter without its adapter_config.json; fetch that, too, or merge the adapter where you trained it",
    ),
    (
        r".*\.safetensors",
        "weights under a name of its own; pass the file itself, with config= where it has none beside it",
    ),
    (
        r".*\.(bin|pt|pth|ckpt|pkl)(\.index\.json)?",
        "pickled weights, which can run code when loaded, so they are refused; convert them where you trust them: "
        "AutoModel.from_pretrained(...).save_pretrained(folder) writes safetensors; or give the module: load(module)",
    ),
    (
        r".*\.(h5|msgpack|onnx|npz|tflite|mlmodel|mlpackage|pb|nemo|engine)",
        "weights for another framework; take the release in safetensors",
    ),
    (r"checkpoint-\d+", "checkpoints of a training run; pass the folder of one of them"),
    (r"(snapshots|blobs|refs)", "the cache of a hub; pass the id of the model, or the folder of a snapshot"),
)
#: what is fetched when a download is allowed; never code, never pickled weights
DOWNLOADED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.tiktoken")
#: what is read of a folder, by whomever
READ = (".json", ".txt", ".model", ".safetensors", ".jinja")


def place_of(path_or_id: str | Path, download: bool) -> Path:
    """Where a checkpoint is: the path itself (a folder or a safetensors file), or the cached snapshot of an id.

    The language models that ship with the package go by their names, `python-llama` and `python-qwen3-next`.

    **Raises:** `CheckpointError` where there is no such folder, or the id is not cached and `download` is false.
    """
    path = Path(path_or_id).expanduser()
    try:
        if path.exists():
            return path
    except (OSError, ValueError) as error:  # a name that no file can have
        raise CheckpointError(f"{str(path_or_id)[:80]!r} is no path and no Hugging Face id: {error}") from error
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
            "downloaded unless you allow it: load(..., download=True), or --download in the shell"
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
        if not os.path.lexists(path):
            raise CheckpointError(
                f"{folder} has no config.json, so it is not a Hugging Face model folder{there(folder)}; pass one that "
                "is, or a config"
            )
    for file in path.parent.iterdir():  # others than we read them, too, and would wait for a pipe
        if file.suffix in READ and file.exists() and not file.is_dir():
            regular(file, CheckpointError)
    config = read_json(path)
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
    if not path.is_dir():
        return _tensors_of(path)
    if os.path.lexists(path / "model.safetensors"):
        return _tensors_of(path / "model.safetensors")
    index = path / "model.safetensors.index.json"
    if os.path.lexists(index):
        return _sharded(index)
    raise CheckpointError(
        f"{path} has no weights that can be read: no model.safetensors and no model.safetensors.index.json{there(path)}"
    )


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter.

    **Raises:** `CheckpointError` where it holds the weights of a whole model, too: transformers would merge the adapter
    into them where peft is installed, and leave it out where it is not.
    """
    if not (folder / "adapter_config.json").is_file():
        return False
    whole = [name for name in ("model.safetensors", "model.safetensors.index.json") if (folder / name).is_file()]
    if whole:
        raise CheckpointError(
            f"{folder} holds a whole model ({whole[0]}) and an adapter (adapter_config.json); give each a folder of "
            "its own, and pass the one that you mean"
        )
    return True


def there(folder: Path) -> str:
    """What is in a folder instead of weights that can be read, and what to do: the end of a sentence, or nothing."""
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else [folder.name]
    for pattern, what in ELSEWHERE:
        found = [name for name in names if re.fullmatch(pattern, name, re.IGNORECASE)]
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            return f"; it holds {found[0]}{more}, {what}"
    return ""


def _sharded(index: Path) -> dict[str, StoredTensor]:
    folder = index.parent
    shards: dict[str, set[str]] = {}
    for tensor, name in _field(read_json(index), "weight_map", index).items():
        if not isinstance(name, str) or not name:
            raise CheckpointError(f"{index} places {tensor!r} in {name!r}, which is no file; fetch the index again")
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
    if path.suffix != ".safetensors" and (what := there(path)):
        raise CheckpointError(f"{path} is no safetensors file{what}")
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
    size = regular(path, CheckpointError).stat().st_size
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
            if strange := next((name for name, entry in tensors.items() if not _is_entry(entry)), None):
                raise ValueError(f"{strange!r} has no dtype, shape and place")
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise CheckpointError(f"the header of {path} cannot be read ({error}); fetch the file again") from error
    if size != expected:
        raise CheckpointError(
            f"{path} is truncated or damaged: it has {size} bytes, its header describes {expected}; fetch it again"
        )
    return tensors


def _is_entry(entry: Any) -> bool:
    numbers = [*entry["shape"], *entry["data_offsets"]]
    return isinstance(entry["dtype"], str) and all(type(n) is int and 0 <= n < 2**63 for n in numbers)


def has_tokenizer(folder: Path) -> bool:
    """Whether the files of a tokenizer are in the folder."""
    return any(next(folder.glob(pattern), None) for pattern in TOKENIZERS)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. **Raises:** `CheckpointError` where the file is none."""
    try:
        # infinite numbers are read: some configurations have them
        value = json.loads(content(path, CheckpointError, LARGEST))
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object")
    if too_deep(value):
        raise CheckpointError(f"{path} is nested too deep to be a configuration")
    return value


def _field(value: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    field = value.get(name)
    if not isinstance(field, dict):
        raise CheckpointError(f"{path} has no {name!r}")
    return field
