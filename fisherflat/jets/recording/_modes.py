"""How a map is run while it is measured: by modes of this thread alone, so that nothing else in the process sees it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fisherflat.errors import TraceError
from fisherflat.jets.graph import leaves, mapped_leaves
from fisherflat.jets.recording._origin import origin

aten = torch.ops.aten


@contextmanager
def evaluating(*modules: object) -> Iterator[None]:
    """Run modules op by op, and in double where all their weights are.

    A model that casts to single precision on its way would round there, or fail where such a value meets a weight in
    double. Where a function mode is on, torch's encoder layers take no fast path that hides a whole layer in one op.
    What is compiled runs as it was written: compiled below our modes it would not be, and never again after.
    """
    before = getattr(torch._guards._TLS, "tracing_context", None)
    torch._guards._TLS.tracing_context = _Uncompiled()  # of this thread alone
    try:
        with _evaluating(*modules):
            yield
    finally:
        torch._guards._TLS.tracing_context = before


class _Uncompiled:
    """A context in which compiled functions run as they were written, and which nothing else sees."""

    in_kernel_invocation = True

    @property
    def fake_mode(self) -> Any:
        """This, where a compiled function is called."""
        return self if sys._getframe(1).f_globals.get("__name__") == "torch._dynamo.eval_frame" else None


@contextmanager
def _evaluating(*modules: object) -> Iterator[None]:
    with _Raised(torch.float64) if _are_double(*modules) else _Seen():
        yield


class _Seen(TorchFunctionMode):
    """Changes nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@contextmanager
def in_double(*modules: object) -> Iterator[None]:
    """New tensors and casts are in double where all floating weights of the modules are."""
    with _Raised(torch.float64) if not _is_raised() and _are_double(*modules) else nullcontext():
        yield


def _is_raised() -> bool:
    """Whether they are so already: a second mode would look at every op again and change nothing."""
    return any(isinstance(mode, _Raised) for mode in torch.overrides._get_current_function_mode_stack())


def _are_double(*modules: object) -> bool:
    weights = [weight for module in modules if isinstance(module, nn.Module) for weight in module.parameters()]
    return {weight.dtype for weight in weights if weight.is_floating_point()} == {torch.float64}


#: casts by the names of tensor types: `x.type("torch.FloatTensor")`
_NAMED = {f"torch.{name}Tensor": dtype for name, dtype in (("Float", torch.float32), ("Half", torch.float16))}

_FLOATS = {each for each in vars(torch).values() if isinstance(each, torch.dtype) and each.is_floating_point}


class _Raised(TorchFunctionMode):
    """Casts to a lower precision than `dtype` go to `dtype` instead, and so do numbers of torch's default precision."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self._low = {other for other in _FLOATS if other.itemsize < dtype.itemsize}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.float, Tensor.half, Tensor.bfloat16):
            return args[0].to(self._dtype)
        args, kwargs = (
            tuple(map(self._raised, args)),
            {name: self._raised(option) for name, option in (kwargs or {}).items()},
        )
        try:
            out = func(*args, **kwargs)
        except RuntimeError:
            real = [leaf for leaf in leaves((args, kwargs)) if _is_real(leaf)]
            if len({leaf.dtype for leaf in real}) > 1:  # a constant that is no buffer has stayed in single precision
                return func(*mapped_leaves(self._in_full, args), **mapped_leaves(self._in_full, kwargs))
            # a number that torch's default precision cannot hold, as a mask of the least number of double is made
            anew = None if real else self._anew(func, args, kwargs)
            if anew is None:
                raise
            return anew
        if isinstance(out, Tensor) and out.dtype in self._low and not any(map(_is_real, leaves((args, kwargs)))):
            anew = self._anew(func, args, kwargs)
            return out.to(self._dtype) if anew is None or anew.shape != out.shape else anew
        return out

    def _in_full(self, leaf: Any) -> Any:
        return leaf.to(self._dtype) if isinstance(leaf, Tensor) and leaf.dtype in self._low else leaf

    def _raised(self, leaf: Any) -> Any:
        if isinstance(leaf, (str, type(torch.FloatTensor))):
            leaf = _NAMED.get(_type_name(leaf), leaf)
        return self._dtype if isinstance(leaf, torch.dtype) and leaf in self._low else leaf

    def _anew(self, func: Any, args: Any, kwargs: Any) -> Tensor | None:
        """What was made of numbers and integers alone, in the higher precision from the start; none if it cannot be."""

        def number(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and not leaf.is_floating_point():
                return leaf.to(self._dtype)
            return torch.tensor(leaf, dtype=self._dtype) if isinstance(leaf, float) else leaf

        trials: list[Callable[[], Any]] = [
            lambda: func(*args, **{**kwargs, "dtype": self._dtype}),
            lambda: func(*mapped_leaves(number, args), **mapped_leaves(number, kwargs)),
        ]
        for trial in trials:
            try:
                out = trial()
            except (TypeError, RuntimeError, ValueError):
                continue
            if isinstance(out, Tensor) and out.dtype == self._dtype:
                return out
        return None


def _type_name(kind: Any) -> str:
    """`torch.FloatTensor`, of the type of that name or of the name itself."""
    return kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"


def _is_real(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and (leaf.is_floating_point() or leaf.is_complex())


class Repeatable(TorchDispatchMode):
    """Refuses random numbers before they are drawn: the map would be none, and the process's generator would move.

    **Attributes:** `refused`: the refusal, also where the map itself catches it.
    """

    refused: TraceError | None = None
    supports_higher_order_operators = True  # so that they arrive here, and not at an error of torch's

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        written_out = higher_order(func)
        if written_out is not None:
            with self:
                return written_out(*args, **(kwargs or {}))
        try:
            refuse(func, args, kwargs or {}, {})
        except TraceError as error:
            self.refused = error
            raise
        return func(*args, **(kwargs or {}))


def higher_order(func: Any) -> Callable[..., Any] | None:
    """Attention with modified scores, in plain ops."""
    if not isinstance(func, torch._ops.HigherOrderOperator) or func.name() != "flex_attention":
        return None
    from torch._higher_order_ops.flex_attention import math_attention

    return math_attention


def refuse(func: Any, args: Any, kwargs: Any, paths: dict[int, str]) -> None:
    """**Raises:** `TraceError` where an op draws random numbers, or is one of functions, as `cond` is."""
    if isinstance(func, torch._ops.HigherOrderOperator):
        if higher_order(func) is not None:
            return
        raise TraceError(
            f"{func} is made for torch.compile and has no trace ({origin(paths)[1]}); write that step in plain ops"
        )
    if torch.Tag.nondeterministic_seeded not in func.tags or func.overloadpacket is aten._fused_sdp_choice:
        return
    names = [argument.name for argument in func._schema.arguments]
    defaults = {argument.name: argument.default_value for argument in func._schema.arguments}
    given = defaults | dict(zip(names, args, strict=False)) | kwargs
    if given.get("dropout_p", 1) == 0 or not given.get("train", True) or not given.get("training", True):
        return
    raise TraceError(
        f"{func.overloadpacket} draws random numbers ({origin(paths)[1]}), and a map gives the same output for the "
        "same input; put a module that a function calls into eval mode, give functional.dropout training=self.training"
    )
