"""SHA-256 digests of tensors and graphs, independent of the machine, the device and the memory layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fisherflat.jets.graph import Graph, Node

#: options that do not change what an op computes
_IGNORED = {"device", "pin_memory", "layout", "memory_format", "non_blocking"}


def of_bytes(data: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def of_json(thing: Any) -> str:
    """The SHA-256 of a JSON document in its canonical form: sorted keys, no blanks."""
    return of_bytes(json.dumps(thing, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def raw(tensor: Tensor) -> bytes:
    """The entries in row-major order: float64, int64 or one byte a boolean, little-endian."""
    return _entries(tensor).tobytes()


def of_tensor(tensor: Tensor) -> str:
    """The SHA-256 of a tensor: of its kind (bool, int, float, complex), its shape and its `raw` entries."""
    kind = "bool" if tensor.dtype == torch.bool else "float" if tensor.is_floating_point() else "int"
    if tensor.is_complex():
        kind, tensor = "complex", torch.view_as_real(tensor.resolve_conj())
    digest = hashlib.sha256(f"{kind} {list(tensor.shape)} ".encode())
    digest.update(_entries(tensor).reshape(-1).view(np.uint8).data)  # no copy: weights may be large
    return digest.hexdigest()


def of_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The SHA-256 of named tensors, in their order: what tells two models apart."""
    return of_json([[name, str(tensor.dtype), of_tensor(tensor)] for name, tensor in tensors])


def _entries(tensor: Tensor) -> np.ndarray:
    plain = tensor.detach().cpu()
    plain = plain.double() if plain.is_floating_point() else plain if plain.dtype == torch.bool else plain.long()
    array = plain.contiguous().numpy()
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def is_computed(name: str, tensor: Tensor) -> bool:
    """Whether a constant of a graph was computed in floats while tracing or freezing, as `Graph.constants` names it.

    Such numbers are rounded differently from machine to machine, so that they are no part of what names a graph.
    """
    return tensor.is_floating_point() and name.startswith(("constant ", "held "))


def of_constants(graph: Graph) -> dict[int, str]:
    """`id` of each constant of a graph -> its digest, or only its shape where it was computed in floats."""
    found = {
        id(tensor): f"float {list(tensor.shape)}" if is_computed(name, tensor) else of_tensor(tensor)
        for name, tensor in graph.constants()
    }
    if isinstance(graph.output, Tensor):  # nothing moves
        found.setdefault(id(graph.output), f"float {list(graph.output.shape)}")
    return found


def of_graph(graph: Graph, constants: dict[int, str]) -> str:
    """The SHA-256 of the function that a graph computes: ops, shapes, arguments and constants, without names and roles.

    **Args:** `constants`: `id` -> digest of each constant tensor.
    """

    def plain(thing: Any) -> Any:
        if isinstance(thing, Node):
            return {"node": thing.index}
        if isinstance(thing, Tensor):
            return {"tensor": constants[id(thing)]}
        if isinstance(thing, float):
            return {"float": thing.hex()}
        if thing is None or isinstance(thing, (bool, int, str)):
            return thing
        if isinstance(thing, (tuple, list)):
            return [plain(item) for item in thing]
        if isinstance(thing, dict):
            return {str(name): plain(item) for name, item in thing.items() if name not in _IGNORED}
        return str(thing)

    nodes = [
        [
            str(node.target) if node.op.startswith("aten.") else node.op,
            *map(plain, (node.shape, node.args, node.kwargs)),
        ]
        for node in graph.nodes
    ]
    return of_json({"nodes": nodes, "output": plain(graph.output)})
