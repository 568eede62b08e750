"""What tells two models apart: a digest of their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch

from fisherflat._typing import Tensor
from fisherflat.models import Model


def weights_digest(model: Model) -> str:
    """The SHA-256 of all weights and buffers, in hexadecimal: read one by one where they are on disk."""
    return tensors_digest(model.weights.each(model.module))


def tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """The SHA-256 of named tensors: names, kinds, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
