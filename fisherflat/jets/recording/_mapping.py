"""The user's map as the engines see it: a pure function of one tensor, evaluated, in the working precision."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from fisherflat.errors import MapError, PrecisionWarning


@contextmanager
def evaluating(module: object) -> Iterator[None]:
    """Run `module` in eval mode, through attention kernels whose ops have derivatives, and in double where it is so.

    The fused attention kernels have no forward mode, the encoder fast path hides a whole layer in one op, and custom
    autograd functions hide theirs from transforms. A model that casts to single precision on its way would round there,
    or fail where such a value meets a weight in double.
    """
    modes = [(m, m.training) for m in module.modules()] if isinstance(module, nn.Module) else []
    fastpath = torch.backends.mha.get_fastpath_enabled()
    try:
        for m, _ in modes:
            m.training = False
        torch.backends.mha.set_fastpath_enabled(False)
        with sdpa_kernel(SDPBackend.MATH), _functions_in_the_open(), in_double(module):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for m, training in modes:
            m.training = training


class Raised(TorchFunctionMode):
    """Casts to a lower precision than `dtype` go to `dtype` instead."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.float, Tensor.half, Tensor.bfloat16):
            return args[0].to(self._dtype)
        args, kwargs = tree_map(self._raised, (args, kwargs or {}))
        return func(*args, **kwargs)

    def _raised(self, leaf: Any) -> Any:
        low = isinstance(leaf, torch.dtype) and leaf.is_floating_point and leaf.itemsize < self._dtype.itemsize
        return self._dtype if low else leaf


@contextmanager
def in_double(module: object) -> Iterator[None]:
    """New tensors and casts are in double where all floating weights of `module` are."""
    weights = module.parameters() if isinstance(module, nn.Module) else ()
    kinds = {weight.dtype for weight in weights if weight.is_floating_point()}
    if kinds != {torch.float64}:
        yield
        return
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with Raised(torch.float64):
            yield
    finally:
        torch.set_default_dtype(default)


@contextmanager
def _functions_in_the_open() -> Iterator[None]:
    """Custom autograd functions as their forward formula alone: it is the map, and is what is differentiated."""

    class Context(SimpleNamespace):
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *args: None  # save_for_backward and the like

    def apply(cls: Any, *args: Any) -> Any:
        combined = cls.setup_context is torch.autograd.function._SingleLevelFunction.setup_context
        return cls.forward(Context(), *args) if combined else cls.forward(*args)

    with mock.patch.object(torch.autograd.Function, "apply", classmethod(apply)):
        yield


class Mapping:
    """`mean` as a function `x -> y` of one tensor, in eval mode, with floating weights in the working precision.

    **Args:** `mean`: an `nn.Module` or a callable. The weights of a module are promoted to `dtype` in a copy when they
    are not in it (float16 and bfloat16 with a `PrecisionWarning`); the module itself is not touched. Other callables
    are called as they are.

    **Attributes:** `weights`: name -> tensor, for a module (empty otherwise); `module`: the module or `None`.
    """

    def __init__(self, mean: Callable[[Tensor], Tensor], dtype: torch.dtype, device: torch.device) -> None:
        self.mean, self.dtype = mean, dtype
        self.module = mean if isinstance(mean, nn.Module) else None
        self.weights: dict[str, Tensor] = {}
        self._swapped: dict[str, Tensor] = {}
        if self.module is None:
            return
        state = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        misplaced = [name for name, tensor in state.items() if tensor.device.type != device.type]
        if misplaced:
            raise MapError(
                f"the weight {misplaced[0]!r} is on {state[misplaced[0]].device}, the chart on {device}; "
                "move one of them (module.to(device) or chart.to(device))"
            )
        halves = [name for name, t in state.items() if t.dtype in (torch.float16, torch.bfloat16)]
        if halves:
            warnings.warn(
                f"{len(halves)} weights are in half precision and are promoted to {dtype} (exactly)",
                PrecisionWarning,
                stacklevel=4,
            )
        with torch.inference_mode(False):  # tensors made in that mode can have no derivatives
            self._swapped = {
                name: tensor.detach().to(dtype)
                for name, tensor in state.items()
                if tensor.is_floating_point() and tensor.dtype != dtype
            }
        self.weights = {name: self._swapped.get(name, tensor) for name, tensor in state.items()}

    def __call__(self, x: Tensor) -> Any:
        """The map at `x`, of the shape of the chart's point and in the working precision; `check` says if it is one."""
        with evaluating(self.module):
            if self.module is not None and self._swapped:
                return torch.func.functional_call(self.module, self._swapped, (x,))
            return self.mean(x)

    def check(self, point: Tensor) -> Tensor:
        """The value at `point`, flattened to `[D]`.

        **Raises:** `MapError` where the map fails there, or returns anything but one tensor of real numbers.
        """
        try:
            with torch.no_grad():
                y = self(point.clone())  # a map that writes into its input must not move the chart
        except Exception as error:
            raise MapError(
                f"the map failed on the chart's point, of shape {list(point.shape)} and {point.dtype}: "
                f"{type(error).__name__}: {error}. Chart and map must fit: the map takes one tensor of this shape, "
                "without a batch axis, and its own constants must be in this precision (module.double())"
            ) from error
        if not isinstance(y, Tensor):
            raise MapError(
                f"the map must return one tensor, it returned {type(y).__name__}; wrap it, e.g. lambda x: module(x)[0]"
            )
        if not y.is_floating_point():
            raise MapError(f"the map returned {y.dtype}; outputs must be real floating-point numbers")
        return y.reshape(-1)
