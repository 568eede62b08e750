"""The numbers of a study of depth, point by point, as one file of tensors."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from fisherflat._typing import Tensor
from fisherflat.geometry import CurvatureField
from fisherflat.studies.depth import CurvatureBudget, Depth, DepthProfile, Part

#: the groups of tensors, each a field of `Depth`, and what they are of
KINDS: dict[str, Any] = {"profiles": DepthProfile, "budgets": CurvatureBudget, "maps": CurvatureField}


def packed(found: Depth) -> Callable[[Path], None]:
    """What writes the profiles, budgets and maps as safetensors: tensors by `kind/name/field`, all else as metadata."""
    tensors: dict[str, Tensor] = {}
    rest: dict[str, dict[str, dict[str, Any]]] = {}
    for kind in KINDS:
        rest[kind] = {}
        for name, item in getattr(found, kind).items():
            values = {field.name: getattr(item, field.name) for field in fields(item)}
            here = {key: value for key, value in values.items() if isinstance(value, Tensor)}
            tensors |= {f"{kind}/{name}/{key}": _alone(value) for key, value in here.items()}
            rest[kind][name] = {key: value for key, value in values.items() if key not in here}
    # one entry, since the order of several is not fixed
    metadata = {"depth": json.dumps(rest, default=lambda part: [part.layer, part.role])}

    def write(path: Path) -> None:
        from safetensors.torch import save_file

        save_file(tensors, path, metadata)

    return write


def _alone(tensor: Tensor) -> Tensor:
    """A copy: no two tensors of a file may share memory."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def unpacked(path: Path) -> dict[str, dict[str, Any]]:
    """The fields of `Depth` that `packed` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        rest = json.loads(file.metadata()["depth"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping

    def items(kind: str) -> Iterator[tuple[str, Any]]:
        for name, values in rest[kind].items():
            here = {field.name: tensors.get(f"{kind}/{name}/{field.name}") for field in fields(KINDS[kind])}
            plain = {key: _plain(key, value) for key, value in values.items()}
            yield name, KINDS[kind](**{key: value for key, value in here.items() if value is not None}, **plain)

    return {kind: dict(items(kind)) for kind in KINDS}


def _plain(name: str, value: Any) -> Any:
    """A value as it was before it was JSON."""
    if name == "parts":
        return tuple(Part(*part) for part in value)
    return tuple(value) if isinstance(value, list) else value
