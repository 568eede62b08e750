"""Tensors without memory, so that no value of the map can leave the recorder unseen."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fisherflat.jets.graph import leaves, mapped_leaves
from fisherflat.jets.recording._buffers import View
from fisherflat.jets.recording._guard import Guard

#: what reads, or lends out, the memory of a tensor; constants may be read
_READING = {Tensor.numpy, Tensor.__array__, Tensor.tolist, Tensor.__reduce_ex__, Tensor.__dlpack__}
_LENDING: set[Any] = {Tensor.data_ptr, Tensor.untyped_storage, Tensor.storage, Tensor.share_memory_, Tensor.pin_memory}
_TENSOR: Any = Tensor
_LENDING |= {Tensor.apply_, Tensor.map_, Tensor.map2_, Tensor.is_shared, _TENSOR.data.__set__}
#: what makes tensors of nested lists, of single numbers then
_MAKING = {torch.tensor, torch.as_tensor, torch.asarray}


class Watched(Tensor):
    """A tensor that is seen by a recorder: its value is kept beside it, its own memory is none.

    All ops arrive at the recorder, in whatever thread they run. What would read memory fails in torch itself; where it
    has a name it is refused with the user's line.
    """

    _view: View
    guard: Guard

    @staticmethod
    def __new__(cls, view: View, guard: Guard) -> Watched:
        value = view.value
        self = Tensor._make_wrapper_subclass(
            cls,
            value.size(),
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=value.device,
        )
        torch._C._set_throw_on_mutable_data_ptr(self)
        self._view, self.guard = view, guard
        return self

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"<a traced tensor of shape {list(self.shape)}>"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _READING or func in _LENDING or func in _MAKING:
            watched = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Watched)]
            watched[0].guard.met()
            moving = any(leaf._view.moves for leaf in watched)
            if func in _LENDING or (moving and func in _READING) or (func in _MAKING and args[0] is not watched[0]):
                watched[0].guard.refuse(
                    f"{func.__name__.strip('_')} takes values of the map out of torch; write that step in torch ops"
                )
            if func in _READING:
                args, kwargs = mapped_leaves(_plain, (args, kwargs))
        elif func is Tensor.__deepcopy__:
            return args[0].clone()
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """An op that does not come by the recorder's mode: in another thread, or after the recording."""
        next(leaf for leaf in leaves((args, kwargs or {})) if isinstance(leaf, Watched)).guard.met()
        raise AssertionError("an op of a traced tensor has bypassed the recorder")


def _plain(leaf: Any) -> Any:
    return leaf._view.value.detach().clone() if isinstance(leaf, Watched) else leaf


def unwritten(tensor: Any) -> Tensor | None:
    """Which entries of a tensor have not been written yet, as a tensor of its own, if there are any."""
    found = tensor._view.unwritten() if isinstance(tensor, Watched) else None
    return found.clone() if found is not None and found.any() else None


def moves(tensor: Tensor) -> bool:
    """Whether a tensor depends on the input of the map that is recorded."""
    return isinstance(tensor, Watched) and tensor._view.moves
