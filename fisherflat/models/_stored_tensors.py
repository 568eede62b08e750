"""Tensors in safetensors files: where each is, and its values in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fisherflat.errors import CheckpointError

#: the formats of weights that can be promoted to float64 exactly
FLOATS = ("F64", "F32", "BF16", "F16")


@runtime_checkable
class Source(Protocol):
    """Where the values of one parameter or buffer are."""

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        """What it is made of."""

    def read(self, device: torch.device) -> Tensor:
        """Its values, floating ones as float64.

        **Raises:** `CheckpointError` where the file cannot be read any more, or a value is NaN or infinite.
        """

    def read_rows(self, rows: Sequence[int], device: torch.device) -> Tensor:
        """Some rows along the first axis. **Raises:** as `read`."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file.

    **Attributes:** `file`; `name`, in the file; `dtype`, as safetensors writes it (`BF16`); `shape`.
    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def tensors(self) -> tuple[StoredTensor, ...]:
        """See `Source`."""
        return (self,)

    @property
    def size(self) -> int:
        """The number of entries."""
        return torch.Size(self.shape).numel()

    @property
    def is_floating(self) -> bool:
        """Whether it is a weight, and not an index, a mask or packed integers."""
        return self.dtype in FLOATS

    def read(self, device: torch.device) -> Tensor:
        """See `Source`."""
        return self._checked(lambda file: self._promoted(file.get_tensor(self.name), device))

    def read_rows(self, rows: Sequence[int], device: torch.device) -> Tensor:
        """See `Source`; of the others nothing is read, since the file is mapped into memory."""
        return self._checked(lambda file: self._promoted(file.get_tensor(self.name)[list(rows)], device))

    def read_slice(self, rows: slice) -> Tensor:
        """Some rows along the first axis as they are stored; of the others nothing is read."""
        return self._checked(lambda file: file.get_slice(self.name)[rows])

    def raw(self) -> Tensor:
        """Its values as they are stored."""
        return self._checked(lambda file: file.get_tensor(self.name).clone())

    def _promoted(self, value: Tensor, device: torch.device) -> Tensor:
        return value.to(device, torch.float64 if self.is_floating else value.dtype, copy=True)

    def _checked(self, get: Callable[[Any], Tensor]) -> Tensor:
        from safetensors import SafetensorError, safe_open

        try:
            # opened for each tensor: the file is mapped into memory, and what was read counts until it is closed
            # and the values are those on disk, whatever mode of torch the caller is in
            with torch._C.DisableTorchFunction(), safe_open(self.file, framework="pt") as file:
                value = get(file)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.name!r} cannot be read from {self.file} any more: {error}") from error
        check_finite(self.name, value, self.file)
        return value


def check_finite(name: str, value: Tensor, where: object) -> None:
    """**Raises:** `CheckpointError` where a weight holds NaN or infinite values."""
    if value.is_floating_point() and value.numel() and not torch.stack(torch.aminmax(value)).isfinite().all():
        raise CheckpointError(f"the weight {name!r} in {where} holds NaN or infinite values; use another release")
