"""What a folder of sentence-transformers does with the states of tokens: pooling, and dense layers behind it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fisherflat._files import content
from fisherflat.errors import CheckpointError
from fisherflat.models._folder import read_json, stored_tensors

_POOLINGS = {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls", "lasttoken": "last"}
#: of dense layers; the name is what the last part of a class's path says
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)
}


class _Unit(nn.Module):
    """A vector divided by its length."""

    def forward(self, x: Tensor) -> Tensor:
        """`[d]` to `[d]`."""
        return x / x.square().sum().sqrt()


def sentence(folder: Path, device: torch.device) -> tuple[str, nn.Module]:
    """How tokens are pooled, `mean`, `cls` or `last`, and what is done with the one vector then.

    Without a word of the folder that is their mean.

    **Raises:** `CheckpointError` for modules of another kind, for several poolings at once, and for a dense layer
    whose files are missing or do not fit its configuration.
    """
    modules = _modules(folder)
    how, behind = "mean", list[nn.Module]()
    for number, (kind, place) in enumerate(modules):
        if kind == "Transformer" and number == 0:
            continue
        if kind == "Pooling" and number == min(1, len(modules) - 1):
            how = _pooling(place / "config.json")
        elif kind == "Dense" and number > 1:
            behind.append(_dense(place, device))
        elif kind == "Normalize" and number > 1:
            behind.append(_Unit())
        else:
            known = "a Transformer, then Pooling, then Dense and Normalize are known"
            raise CheckpointError(
                f"module {number} of the sentence encoder in {folder} is {kind!r} of {place}; {known}"
            )
    return how, nn.Sequential(*behind)


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """Kinds and folders of the modules: as `modules.json` lists them, or as folders are named."""
    listed = folder / "modules.json"
    if not listed.is_file():
        named = {int(found[1]): (found[2], place) for place in folder.glob("*_*") if place.is_dir()
                 and (found := re.fullmatch(r"(\d+)_([A-Z]\w*)", place.name))}  # fmt: skip
        return [("Transformer", folder), *(named[number] for number in sorted(named) if number)] if named else []
    try:
        found = json.loads(content(listed, CheckpointError, 2**20))
        return [(str(one["type"]).rpartition(".")[2], folder / _inside(one["path"])) for one in found]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{listed} must be a list of modules with a type and a path: {error!r}") from error


def _inside(path: Any) -> str:
    if not isinstance(path, str) or Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"path {path!r}")
    return path


def _pooling(file: Path) -> str:
    config = read_json(file)
    modes = {name.removeprefix("pooling_mode_") for name, on in config.items()
             if name.startswith("pooling_mode_") and on is True}  # fmt: skip
    if isinstance(config.get("pooling_mode"), str):
        modes.add(config["pooling_mode"])
    if len(modes) != 1 or not modes <= set(_POOLINGS):
        raise CheckpointError(
            f"{file} asks for {', '.join(sorted(modes)) or 'no'} pooling; mean, cls and last are known"
        )
    return _POOLINGS[modes.pop()]


def _dense(place: Path, device: torch.device) -> nn.Module:
    config = read_json(place / "config.json")
    name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = _ACTIVATIONS.get(str(name).rpartition(".")[2])
    if activation is None or not str(name).startswith("torch.nn."):
        known = ", ".join(_ACTIVATIONS)
        raise CheckpointError(f"{place} has the activation {name!r}; of torch.nn {known} are known")
    stored = stored_tensors(place)
    read = {name: source.read(device) for name, source in stored.items()}
    weight, bias = read.get("linear.weight"), read.get("linear.bias")
    sizes = [config.get("out_features"), config.get("in_features")]
    if weight is None or list(weight.shape) != sizes or (bias is not None and list(bias.shape) != sizes[:1]):
        shapes = {name: list(value.shape) for name, value in read.items()}
        raise CheckpointError(f"{place} holds {shapes}; its config.json promises linear.weight {sizes} and its bias")
    if config.get("bias", True) is not (bias is not None):
        raise CheckpointError(f"{place} {'has no' if bias is None else 'has a'} linear.bias, against its config.json")
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device=device, dtype=weight.dtype)
    linear.requires_grad_(requires_grad=False)
    linear.weight.copy_(weight)
    if bias is not None:
        linear.bias.copy_(bias)
    return nn.Sequential(linear, activation())
