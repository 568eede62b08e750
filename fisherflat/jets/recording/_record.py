"""How a module call becomes a graph.

The call is recorded by a dispatch mode below `torch.func.functionalize`, so that the graph is free of mutation and of
whatever does not depend on the input: masks, rotary tables and weights are constants. Ops that only rename, cast to a
lower precision or copy leave no node, complex numbers become pairs of real ones, and composite ops their parts.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functionalize
from torch.utils._python_dispatch import TorchDispatchMode

from fisherflat.errors import FisherflatError, TraceError
from fisherflat.jets.graph import Graph, Node, Origin, getitem, leaves, mapped_leaves
from fisherflat.jets.recording._mapping import Mapping
from fisherflat.jets.recording.decompositions import decomposition

aten = torch.ops.aten

_RENAMING = {aten.clone, aten.detach, aten.alias, aten.lift_fresh}
_RENAMING |= {aten.contiguous, aten.lift_fresh_copy, aten.detach_copy, aten.alias_copy}
_RESHAPE = {aten.view, aten._unsafe_view, aten.reshape, aten.view_copy, aten._reshape_alias, aten._reshape_copy}
_RESHAPE |= {aten.unsqueeze, aten.unsqueeze_copy, aten.squeeze, aten.squeeze_copy, aten.flatten, aten.unflatten}
_PERMUTE = {aten.t, aten.transpose, aten.permute, aten.t_copy, aten.transpose_copy, aten.permute_copy}
_EXPAND = {aten.expand, aten.expand_copy, aten.copy}
_PRODUCTS = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.convolution}
_BRANCHES = {aten._local_scalar_dense, aten.nonzero, aten.is_nonzero, aten.equal}
_LOW = (torch.float16, torch.bfloat16, torch.float32)


def record(mapping: Mapping, at: Tensor) -> Graph:
    """The graph of `mapping` at `at` without roles; see `fisherflat.trace`."""
    recorder = _Recorder(mapping, at)
    try:
        with torch.no_grad(), recorder:
            y = functionalize(lambda x: _plain(mapping(x)))(recorder.started(at))
    except FisherflatError:
        raise
    except Exception as error:
        raise TraceError(
            f"the call could not be traced at {_place(error)}: {type(error).__name__}: {error}. Trace block by block "
            "rather than a whole model, and without branches on values"
        ) from error
    return recorder.finished(y)


def _plain(y: Any) -> Tensor:
    if not isinstance(y, Tensor):
        raise TraceError(
            f"the map must return one tensor, it returned {type(y).__name__}; wrap it, e.g. lambda x: module(x)[0]"
        )
    return y


class _Recorder(TorchDispatchMode):
    """Notes every op that depends on the input; runs the others, which are constants."""

    def __init__(self, mapping: Mapping, at: Tensor) -> None:
        super().__init__()
        self._dtype = at.dtype
        self._nodes: list[Node] = []
        # tensors are kept alive beside what they stand for, so that an id stays theirs
        self._known: dict[int, tuple[Tensor, Node]] = {}
        self._pairs: dict[int, tuple[Tensor, Tensor]] = {}
        self._promoted: dict[int, tuple[Tensor, Tensor]] = {}
        self._made: dict[int, tuple[Tensor, Origin]] = {}
        self._weights = {_storage(tensor): name for name, tensor in mapping.weights.items()}
        self._paths: dict[int, str] = {}
        roots = [mapping.module] if mapping.module is not None else _modules_of(mapping.mean)
        for root in roots:
            for name, module in root.named_modules():
                self._paths.setdefault(id(module), name)
            if mapping.module is None:
                for name, tensor in root.state_dict(keep_vars=True).items():
                    self._weights.setdefault(_storage(tensor), name)

    def started(self, at: Tensor) -> Tensor:
        x = at.detach().clone()
        self._bind(x, self._node(None, (), {}, tuple(x.shape)))
        return x

    def finished(self, y: Tensor) -> Graph:
        if id(y) not in self._known:
            raise TraceError(
                "the output of the map does not depend on its input, as far as a trace can see (a constant, or "
                "computed outside torch); check the map"
            )
        given = leaves([(node.args, node.kwargs) for node in self._nodes])
        constants = [leaf for leaf in given if isinstance(leaf, Tensor) and leaf.numel()]
        names = {id(c): self._weights[_storage(c)] for c in constants if _storage(c) in self._weights}
        origins = {id(constant): self._origin_of(constant) for constant in constants}
        return Graph(self._nodes, self._known[id(y)][1], names, origins=origins)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _node(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any) -> Node:
        path, source = self._origin() if target is not None else ("", "")
        node = Node(len(self._nodes), target, args, kwargs, shape, module_path=path, source=source)
        self._nodes.append(node)
        return node

    def _bind(self, tensor: Tensor, node: Node) -> None:
        self._known[id(tensor)] = (tensor, node)

    def _noted(self, target: Any, args: Any, kwargs: Any, out: Any) -> Any:
        """`out` as the output of a new node, or its outputs as those of one node each."""
        args, kwargs = mapped_leaves(self._named, (args, kwargs))
        if isinstance(out, Tensor):
            self._bind(out, self._node(target, args, kwargs, tuple(out.shape)))
            return out
        whole = self._node(target, args, kwargs, tuple(tuple(o.shape) if isinstance(o, Tensor) else () for o in out))
        for position, tensor in enumerate(out):
            if isinstance(tensor, Tensor):
                self._bind(tensor, self._node(getitem, (whole, position), {}, tuple(tensor.shape)))
        return out

    def _named(self, leaf: Any) -> Any:
        return self._known[id(leaf)][1] if isinstance(leaf, Tensor) and id(leaf) in self._known else leaf

    def _promote(self, leaf: Any) -> Any:
        """Constants without a tape, and in the working precision, so that mixed ops run."""
        if not isinstance(leaf, Tensor) or id(leaf) in self._known:
            return leaf
        if not leaf.is_floating_point() or (leaf.dtype == self._dtype and not leaf.requires_grad):
            return leaf
        if id(leaf) not in self._promoted:
            promoted = leaf.detach().to(self._dtype)
            self._promoted[id(leaf)] = (leaf, promoted)
            self._made[_storage(promoted)] = (promoted, self._origin_of(leaf))
            if _storage(leaf) in self._weights:
                self._weights[_storage(promoted)] = self._weights[_storage(leaf)]
        return self._promoted[id(leaf)][1]

    # -- constants -----------------------------------------------------------------------------------------------------

    def _note_origin(self, packet: Any, tensors: list[Tensor], out: Any) -> None:
        """What a constant was made of: constants of a common origin can be keys and values of another input."""
        origins = [self._origin_of(tensor) for tensor in tensors]
        joined = frozenset().union(*(origin.leaves for origin in origins))
        projected = packet in _PRODUCTS or any(origin.projected for origin in origins)
        for tensor in leaves(out):
            if isinstance(tensor, Tensor) and tensors and _storage(tensor) not in map(_storage, tensors):
                self._made[_storage(tensor)] = (tensor, Origin(joined, projected))

    def _origin_of(self, tensor: Tensor) -> Origin:
        place = _storage(tensor)
        if place in self._made:
            return self._made[place][1]
        return Origin(frozenset({place} if tensor.is_floating_point() and tensor.dim() > 1 else ()), False)

    # -- ops -----------------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        if kwargs.get("dtype") in _LOW:
            kwargs["dtype"] = self._dtype  # casts to a lower precision are dropped, here and in constants
        args, kwargs = mapped_leaves(self._promote, (args, kwargs))
        tensors = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise TraceError(f"{packet} draws random numbers ({self._origin()[1]}); put the module into eval mode")
        if not any(id(tensor) in self._known or id(tensor) in self._pairs for tensor in tensors):
            if func._schema.is_mutable:
                self._preserve(kwargs.get("out", args[0]))
            out = func(*args, **kwargs)
            self._note_origin(packet, tensors, out)
            return out
        if packet in _BRANCHES:
            raise TraceError(
                f"{packet} at {self._origin()[1]}: the control flow depends on the values of the input, so one graph "
                "does not hold at other points; replace the branch"
            )
        if func._schema.is_mutable:
            return self._mutated(func, args, kwargs)
        decomposed = decomposition(func) or func.decompose
        with self:
            out = decomposed(*args, **kwargs)
        if out is not NotImplemented:
            return out
        out = func(*args, **kwargs)
        if any(leaf.is_complex() for leaf in (*tensors, *leaves(out)) if isinstance(leaf, Tensor)):
            return self._complex(func, args, out)
        return self._simplified(func, args, kwargs, out, tensors[0])

    def _simplified(self, func: Any, args: Any, kwargs: Any, out: Any, first: Tensor) -> Any:
        """One of a few canonical ops for all that rename, reshape, permute and expand; no node for no change."""
        packet = func.overloadpacket
        if packet is aten.copy:  # its second operand; where that is constant, so is the copy
            if id(args[1]) not in self._known:
                return out
            first = args[1]
        if packet is aten._to_copy and out.is_floating_point() and first.is_floating_point():
            renames = True
        elif packet in _RESHAPE:
            func, args, kwargs = aten.reshape.default, (first, tuple(out.shape)), {}
            renames = out.shape == first.shape
        elif packet in _PERMUTE:
            func, args, kwargs = aten.permute.default, (first, _permutation(packet, args)), {}
            renames = args[1] == tuple(range(out.dim()))
        elif packet in _EXPAND:
            func, args, kwargs = aten.expand.default, (first, tuple(out.shape)), {}
            renames = out.shape == first.shape
        elif packet is aten.slice_scatter:
            args, kwargs = (*args[:2], *_bounds(first, *args[2:], **kwargs)), {}
            renames = False
        elif packet is aten.log_sigmoid_forward:  # its second output is scratch space
            self._noted(aten.log_sigmoid.default, args, kwargs, out[0])
            return out
        else:
            renames = packet in _RENAMING or (packet is aten.slice and out.shape == first.shape)
        if renames:
            self._bind(out, self._known[id(first)][1])
            return out
        return self._noted(func, args, kwargs, out)

    def _complex(self, func: Any, args: Any, out: Tensor) -> Tensor:
        """Complex numbers as pairs of real ones on a last axis of length two: rotary codes are written with them."""

        def pair(z: Tensor) -> Tensor:
            return self._pairs[id(z)][1] if id(z) in self._pairs else torch.view_as_real(z)

        packet = func.overloadpacket
        if packet in (aten.view_as_real, aten.view_as_real_copy):
            return pair(args[0])
        if packet in (aten.view_as_complex, aten.view_as_complex_copy):
            real = args[0]
        elif packet in _RENAMING:
            real = pair(args[0])
        elif packet is aten.mul and all(isinstance(z, Tensor) and z.is_complex() for z in args):
            with self:
                (a, b), (c, d) = (pair(z).unbind(-1) for z in args)
                real = torch.stack((a * c - b * d, a * d + b * c), -1)
        else:
            raise TraceError(
                f"{packet} of complex numbers at {self._origin()[1]} is not supported; write that step in real numbers"
            )
        self._pairs[id(out)] = (out, real)
        return out

    def _mutated(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An in-place op on a tensor of its own (the others were functionalised): its functional form, renamed."""
        name = func.overloadpacket.__name__
        functional = getattr(getattr(aten, name.rstrip("_"), None), func._overloadname, None)
        if functional is None or not name.endswith("_"):
            raise TraceError(
                f"{func} at {self._origin()[1]} writes into a tensor and has no functional form; rewrite that line"
            )
        target = args[0]
        with self:
            out = functional(*args, **kwargs)
        self._preserve(target)
        func(*args, **kwargs)
        if id(out) in self._known:
            self._bind(target, self._known[id(out)][1])
        return target

    def _preserve(self, target: Any) -> None:
        """Copy what nodes hold of a constant that is about to be written into."""
        if not isinstance(target, Tensor):
            return

        def kept(leaf: Any) -> Any:
            return leaf.clone() if isinstance(leaf, Tensor) and _storage(leaf) == _storage(target) else leaf

        for node in self._nodes:
            node.args, node.kwargs = mapped_leaves(kept, (node.args, node.kwargs))

    def _origin(self) -> tuple[str, str]:
        """The innermost submodule on the call stack, and the innermost line outside torch and this package."""
        path, source, inside = None, None, None
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            filename = code.co_filename
            if filename == __file__ and code.co_name == "record":
                break  # who asked for the trace has no part in the map
            if path is None and code.co_varnames[:1] == ("self",):
                path = self._paths.get(id(frame.f_locals.get("self")))
            if source is None and filename != __file__ and not filename.startswith("<"):
                place = f"{Path(filename).name}:{frame.f_lineno}"
                if filename.startswith(_TORCH):
                    inside = inside or (place if "/nn/modules/" in filename else None)
                elif not filename.startswith(_JETS) and "/jaxtyping/" not in filename:  # which wraps checked calls
                    source = place
            if path is not None and source is not None:
                break
            frame = frame.f_back
        return path or "", (source if source is not None else inside) or "?"


def _place(error: Exception) -> str:
    """The innermost line outside torch and this package that an error passed through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = (_TORCH, _JETS, "<")
    return next(
        (f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames) if not f.filename.startswith(own)), "?"
    )


def _storage(tensor: Tensor) -> int:
    """What a tensor and all views of it share, so that a transposed weight still bears its name."""
    return tensor.untyped_storage().data_ptr()


_TORCH = str(Path(torch.__file__).parent)
_JETS = str(Path(__file__).parents[1])


def _modules_of(function: Any) -> list[nn.Module]:
    """Modules that a callable holds in its attributes, its bound object or its closure: to name weights and paths."""
    held = [*vars(function).values()] if hasattr(function, "__dict__") else []
    held += [getattr(function, "__self__", None)]
    held += [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    return [thing for thing in held if isinstance(thing, nn.Module)]


def _bounds(x: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> tuple[int, int, int, int]:
    """The arguments of a slice, within the bounds of `x`: batched ops take no others."""
    start, end, _ = slice(start, end).indices(x.shape[dim])
    return dim, start, end, step


def _permutation(packet: Any, args: tuple[Any, ...]) -> tuple[int, ...]:
    rank = args[0].dim()
    if packet in (aten.permute, aten.permute_copy):
        return tuple(dim % rank for dim in args[1])
    order = list(range(rank))
    if rank < 2:
        return tuple(order)
    a, b = (0, 1) if packet in (aten.t, aten.t_copy) else (args[1] % rank, args[2] % rank)
    order[a], order[b] = order[b], order[a]
    return tuple(order)
