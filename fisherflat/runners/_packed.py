"""Work as bytes for others, its tensors apart from the rest, so that the processes of a machine share one copy."""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fisherflat.errors import InputError

#: what is left without the tensors, and the bytes of these
Packed = tuple[bytes, list[np.ndarray]]


def packed(work: Any) -> Packed:
    """Pickle by value what other machines cannot import, and by reference what they can.

    The bytes of tensors are those in memory, not copies; tensors that share memory still do so afterwards.

    **Raises:** what `pickle` raises for what cannot be pickled.
    """
    from ray import cloudpickle

    class Pickler(cloudpickle.CloudPickler):
        def reducer_override(self, thing: Any) -> Any:
            if isinstance(thing, torch.storage.TypedStorage):
                bare = thing._untyped_storage
                return _storage, (held(bare), thing.dtype, bare.device.type)
            return super().reducer_override(thing)

    arrays: dict[tuple[str, int], np.ndarray] = {}

    def held(storage: torch.UntypedStorage) -> np.ndarray:
        """One array for each piece of memory, so that it is pickled once."""
        place = str(storage.device), storage.data_ptr() or id(storage)
        if place not in arrays:
            bare = torch.empty(0, dtype=torch.uint8, device=storage.device)
            arrays[place] = bare.set_(storage).cpu().numpy()
        return arrays[place]

    apart, rest = list[pickle.PickleBuffer](), io.BytesIO()
    Pickler(rest, protocol=5, buffer_callback=apart.append).dump(work)
    return rest.getvalue(), [np.frombuffer(buffer.raw(), dtype=np.uint8) for buffer in apart]


def unpacked(rest: bytes, arrays: Sequence[np.ndarray]) -> Any:
    """The work again. Its tensors lie in the arrays, which may be read-only: nothing may write into them."""
    return pickle.loads(rest, buffers=arrays)


def cannot_be_sent(error: Exception, instead: str) -> InputError:
    """Why work stays where it is. **Args:** `instead`, what to do."""
    return InputError(f"the model cannot be sent to other processes ({error}); {instead}")


def _storage(array: np.ndarray, dtype: torch.dtype, device: str) -> torch.storage.TypedStorage:
    with warnings.catch_warnings():  # that it is read-only is known
        warnings.simplefilter("ignore")
        found: Tensor = torch.from_numpy(array)
    whole = found.to(device).untyped_storage()
    return torch.storage.TypedStorage(wrap_storage=whole, dtype=dtype, _internal=True)
