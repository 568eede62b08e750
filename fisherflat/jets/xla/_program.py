"""A function of tensors, recorded as the ATen ops that it calls, and compiled by XLA."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax
from jax.experimental import serialize_executable
from jax.sharding import SingleDeviceSharding
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.utils._pytree import tree_leaves, tree_map

from fisherflat.errors import UnsupportedOpError
from fisherflat.jets.xla._ahead import ahead
from fisherflat.jets.xla._callers import caller
from fisherflat.jets.xla._ops import OPS
from fisherflat.jets.xla._pieces import Pieces, filled, whole, written
from fisherflat.jets.xla._places import Place
from fisherflat.jets.xla._views import VIEWS

# On a GPU XLA otherwise takes three quarters of the memory before it is asked for any, beside torch
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

#: XLA uses registers of half the width unless told otherwise, and takes a tenth longer
_WIDE: dict[str, str | bool] = {"xla_cpu_prefer_vector_width": "512"}
_ADVICE = 'engine="taylor" computes the same without XLA'


@dataclass
class _Run:
    """What was compiled, for one thread; what it reads besides its arguments; arrays into which it may write."""

    call: Any
    held: list[Any]
    spare: list[tuple[Any, ...]] = field(default_factory=list)


class Program:
    """What a function of tensors does with tensors of one shape, compiled.

    **Args:** `function`, tensors to a tuple of tensors, whose course does not depend on their numbers; `given`, such
    tensors, on which it is called once; `rows`: arrays with so many rows are filled row by row; `times`: what is
    compiled takes so many such tensors at a time, one behind the other along their first axis, and lets one after the
    other through, so that what is in between stays in a cache; `axes`: those along which the results of each are put
    behind one another, as many as there may be. Other tensors that it reads are not to change.

    **Raises:** `UnsupportedOpError` for an op that is not known here, or where numbers decide what is computed.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        given: tuple[Tensor, ...],
        rows: Collection[int] = (),
        times: int = 1,
        axes: tuple[int, ...] = (),
    ) -> None:
        try:
            self._recorded = make_fx(function)(*given)
        except RuntimeError as error:  # that numbers decide something, above all; also our own error where they do so
            raise UnsupportedOpError(
                f"XLA compiles only what does not depend on numbers, and this map does ({_first(error)}); {_ADVICE}"
            ) from error
        names = dict.fromkeys(node.target for node in self._recorded.graph.nodes if node.op == "get_attr")
        weights = [_attribute(self._recorded, name).detach().contiguous() for name in names]
        self._runs: dict[int, _Run] = {}  # by the thread that calls
        self._outs: list[jax.ShapeDtypeStruct] = []
        self._reuses = False

        def course(*arrays: Any) -> tuple[Any, ...]:
            constants = dict(zip(names, arrays, strict=False))
            return _lowered(self._recorded, constants, arrays[len(names) :], rows)

        where = SingleDeviceSharding(caller(0) if given[0].is_cpu else next(iter(_array(given[0]).devices())))
        with _doubles():
            try:
                held, once = ahead(course, _put(map(_given, weights), where), [_like(x) for x in given])
                self._held = held = _put(held, where)

                def through(held: list[Any], outs: tuple[Any, ...], *arrays: Any) -> tuple[Any, ...]:
                    if times == 1:
                        return tuple(map(whole, once(*held, *arrays)))
                    return _repeated(partial(once, *held), arrays, times, axes, outs)

                if times > 1:
                    made = jax.eval_shape(lambda *x: tuple(map(whole, once(*held, *x))), *(_like(x) for x in given))
                    self._outs = [_longer(x, times, axis, where) for x, axis in zip(made, axes, strict=False)]
                like = (_longer(_like(x), times, 0, where) for x in given)
                run = jax.jit(through, donate_argnums=1).lower(held, tuple(self._outs), *like)
                self._runs[0] = _Run(run.compile(_WIDE if given[0].is_cpu else None), held)
            except UnsupportedOpError:
                raise
            except Exception as error:  # whatever jax makes of arguments that an op is rarely given, or of the device
                raise UnsupportedOpError(f"XLA does not compile this map ({_first(error)}); {_ADVICE}") from error
        if times > 1:
            self._reuses = self._leaves_alone(tuple(torch.cat([x] * times) for x in given))

    def __call__(self, *given: Tensor, worker: int = 0) -> tuple[Tensor, ...]:
        """The same function of other numbers; of threads that call at a time each is another `worker`, from 0 on."""
        with _doubles():
            mine = self._runs.get(worker) or self._copied(worker)
            found = mine.call(mine.held, self._space(mine), *map(_given, given))
        out = tuple(torch.from_dlpack(x.__dlpack__() if given[0].is_cpu else x) for x in found)
        if self._outs:  # from here on another thread may write into it, where `out` does not hold it
            mine.spare.append(found)
        return out

    def _space(self, mine: _Run) -> tuple[Any, ...]:
        """Where to write: what was returned before, which XLA copies if somebody still holds it; zeros at first."""
        if self._reuses and mine.spare:
            return mine.spare.pop()
        mine.spare.clear()
        return tuple(np.zeros(x.shape, x.dtype) for x in self._outs)

    def _leaves_alone(self, given: tuple[Tensor, ...]) -> bool:
        """Whether XLA, as it is here, writes nowhere else than into what nobody holds."""
        first = self(*given)
        before, self._reuses = [x.clone() for x in first], True
        second = self(*(x + 1 for x in given))
        held = all(torch.equal(x, y) for x, y in zip(first, before, strict=True))
        return held and all(x.data_ptr() != y.data_ptr() for x, y in zip(first, second, strict=True))

    def _copied(self, worker: int) -> _Run:
        """What was compiled, for another thread."""
        device = caller(worker)
        text, into, out = serialize_executable.serialize(self._runs[0].call)
        call = serialize_executable.deserialize_and_load(text, into, out, backend=device.client)
        self._runs[worker] = _Run(call, _put(map(np.asarray, self._held), SingleDeviceSharding(device)))
        return self._runs[worker]


def _put(arrays: Iterable[Any], where: SingleDeviceSharding) -> list[Any]:
    """Arrays where a thread reads them, of the same memory where that can be."""
    return [jax.device_put(x, where, may_alias=True) for x in arrays]


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _doubles() -> AbstractContextManager[None]:
    """Where jax computes in double precision, which it does not unless told to."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    return jax.experimental.enable_x64()  # type: ignore[attr-defined]  # what it was called before


def _array(x: Tensor) -> Any:
    """A tensor as an array, of the same memory where that can be."""
    return jnp.from_dlpack(x.contiguous())


def _given(x: Tensor) -> Any:
    """What a compiled function is called with; arrays of numpy take it less time than others."""
    return x.numpy() if x.is_cpu else _array(x)


def _attribute(module: GraphModule, name: str) -> Tensor:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _like(x: Tensor) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(x.shape), _dtype(x))


def _longer(x: jax.ShapeDtypeStruct, times: int, axis: int, where: SingleDeviceSharding) -> jax.ShapeDtypeStruct:
    """So many such arrays behind one another along an axis."""
    shape = (*x.shape[:axis], times * x.shape[axis], *x.shape[axis + 1 :])
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=where)


def _repeated(
    function: Callable[..., tuple[Any, ...]],
    arrays: tuple[Any, ...],
    times: int,
    axes: tuple[int, ...],
    outs: tuple[Any, ...],
) -> tuple[Any, ...]:
    """`outs`, with what a function makes of each of so many equal pieces of arrays written along an axis of each."""
    pieces = [x.reshape(times, -1, *x.shape[1:]) for x in arrays]

    def step(i: Any, outs: tuple[Any, ...]) -> tuple[Any, ...]:
        found = function(*(piece[i] for piece in pieces))
        return tuple(written(out, x, i, axis) for out, x, axis in zip(outs, found, axes, strict=False))

    return lax.fori_loop(0, times, step, outs)


def _lowered(
    recorded: GraphModule, constants: dict[str, Any], arrays: tuple[Any, ...], rows: Collection[int]
) -> tuple[Any, ...]:
    """The recorded ops, one after the other, in jax."""
    places: dict[Node, Any] = {}
    given = iter(arrays)
    for node in recorded.graph.nodes:
        if node.op == "placeholder":
            places[node] = Place(next(given))
        elif node.op == "get_attr":
            places[node] = Place(constants[node.target])
        elif node.op == "output":
            return tuple(places[found].read() for found in node.args[0])
        else:
            args, kwargs = map_arg((node.args, node.kwargs), places.__getitem__)
            places[node] = _called(node, args, kwargs, rows)
    raise AssertionError("no output")


def _called(node: Node, args: tuple[Any, ...], kwargs: dict[str, Any], rows: Collection[int]) -> Any:
    """One op on places: a place, or several of them."""
    if not isinstance(node.target, torch._ops.OpOverload):  # getitem, on what an op with several results gave
        return args[0][args[1]]
    name = node.target._schema.name.partition("::")[2]
    meta = node.meta["val"]
    if name in VIEWS:
        shape = tuple(meta.shape) if isinstance(meta, Tensor) else [tuple(part.shape) for part in meta]
        return VIEWS[name](args[0], shape, *args[1:], **kwargs)
    if not any(isinstance(leaf, Place) for leaf in tree_leaves((args, kwargs))):
        return Place(_array(node.target(*args, **kwargs)))
    kwargs = {key: value for key, value in kwargs.items() if key not in _LAYOUT}
    out = kwargs.pop("out", None)
    if name in _FACTORIES:
        return Place(_made(name, args, meta, rows))
    into: Any = out
    if out is None and name.endswith("_"):
        into, name = args[0], name.removesuffix("_")
        if name in ("copy", "fill", "zero"):
            into.write(filled(_read(args[1]) if len(args) > 1 else 0, meta.shape, _dtype(meta)))
            return into
    if name not in OPS:
        raise UnsupportedOpError(f"XLA is not told how to compute {node.target}; {_ADVICE}")
    found = OPS[name](*tree_map(_read, args), **tree_map(_read, kwargs))
    if isinstance(found, tuple):
        return tuple(Place(part.astype(_dtype(like))) for part, like in zip(found, meta, strict=True))
    if into is not None:
        into.write(filled(found, meta.shape, _dtype(meta)))
        return into
    return Place(found if found.dtype == _dtype(meta) else whole(found).astype(_dtype(meta)))


def _read(leaf: Any) -> Any:
    return leaf.read() if isinstance(leaf, Place) else leaf


def _dtype(like: Tensor) -> Any:
    return jnp.dtype(str(like.dtype).removeprefix("torch."))


#: where and how torch stores a result, which is XLA's own business
_LAYOUT = {"layout", "device", "pin_memory", "memory_format", "non_blocking", "dtype", "sparse_grad"}
#: ops that make a tensor like another one
_FACTORIES = {
    "empty_like", "full_like", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros", "ones_like",
    "zeros_like",
}  # fmt: skip


def _made(name: str, args: tuple[Any, ...], like: Tensor, rows: Collection[int]) -> Any:
    value: Any = 1 if "ones" in name else args[-1] if "full" in name else 0
    if like.dim() > 2 and len(like) in rows:
        return Pieces((filled(_read(value), (1, *like.shape[1:]), _dtype(like)),) * len(like))
    return filled(_read(value), like.shape, _dtype(like))
