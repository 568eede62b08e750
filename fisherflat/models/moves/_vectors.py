"""Vectors from a file: safetensors or .npy, never a pickle."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fisherflat._arrays import as_float64
from fisherflat._files import regular
from fisherflat._typing import Float, Tensor
from fisherflat.errors import InputError
from fisherflat.models.moves._directions import Vectors

#: the smallest singular value of the normalised vectors, below which they count as dependent
INDEPENDENT = 1e-6


def vectors(given: Any, name: str | None = None) -> Vectors:
    """Tokens that move along given vectors, such as steering vectors; a unit is one whole vector.

    **Args:**

    - `given`: `[k, d]` (or `[d]`, for one) as a tensor or an array, or the path of a .safetensors or .npy file that
      holds them, in units of the hidden states.
    - `name`: which tensor of a safetensors file that holds several.

    **Returns:** a `Vectors`.

    **Raises:** `InputError` for a file that cannot be read or would have to be unpickled, for vectors that are not
    finite, not of that shape, or not independent.

    >>> import fisherflat as ff
    >>> print(ff.moves.vectors([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    along 2 given vectors
    """
    if isinstance(given, (str, Path)):
        path = Path(given)
        found, source = _read(path, name), {"file": path.name, "tensor": name}
        what = f"the vectors in {path}"
    else:
        found, source, what = given, {}, "the vectors"
    basis = as_float64(found, what)
    basis = basis[None] if basis.dim() == 1 else basis
    if basis.dim() != 2 or basis.numel() == 0:
        raise InputError(f"{what} must be [k, d], one a row; their shape is {list(basis.shape)}")
    _check_independent(basis, what)
    digest = hashlib.sha256(basis.cpu().numpy().tobytes()).hexdigest()
    return Vectors(basis, {**source, "sha256": digest})


def _check_independent(basis: Float[Tensor, "k d"], what: str) -> None:
    k, d = basis.shape
    if k > d:
        raise InputError(f"{what} are {k} in a space of {d} dimensions, so they depend on each other; give fewer")
    length = basis.norm(dim=1, keepdim=True)
    if not length.all():
        raise InputError(f"{what}: vector {int((length == 0).nonzero()[0, 0])} is zero; leave it out")
    smallest = torch.linalg.svdvals(basis / length)[-1].item()
    if smallest < INDEPENDENT:
        raise InputError(
            f"{what} depend on each other (the smallest singular value of the normalised vectors is {smallest:.1e}); "
            "leave out those that the others span"
        )


def _read(path: Path, name: str | None) -> Any:
    if not os.path.lexists(path):
        raise InputError(f"there is no file {path}; give vectors as a .safetensors or .npy file")
    regular(path)
    if path.suffix not in _READERS:
        raise InputError(
            f"{path} is not a .safetensors or .npy file; other formats can hold pickles, which run code when they are "
            "read, and are never loaded: save the vectors with safetensors.torch.save_file or numpy.save"
        )
    return _READERS[path.suffix](path, name)


def _read_safetensors(path: Path, name: str | None) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as safetensors ({error}); is it whole?") from error
    if name is None and len(tensors) == 1:
        return next(iter(tensors.values()))
    if name not in tensors:
        said = "does not say which" if name is None else f"has no {name!r}"
        raise InputError(
            f"{path} holds {len(tensors)} tensors, and the request {said}; name one, as vectors:FILE#NAME, out of "
            f"{', '.join(sorted(tensors))}"
        )
    return tensors[name]


def _read_npy(path: Path, name: str | None) -> np.ndarray:
    if name is not None:
        raise InputError(f"{path} holds one array without a name; leave out #{name}")
    try:
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))  # no more than the file holds
    except (ValueError, OSError, EOFError, MemoryError, OverflowError) as error:
        raise InputError(f"{path} cannot be read as an array of numbers ({error})") from error


_READERS = {".safetensors": _read_safetensors, ".npy": _read_npy}
