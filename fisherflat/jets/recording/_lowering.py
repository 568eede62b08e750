"""How a tape becomes the graph that rules read.

The tape is run once more in the working precision, below a dispatch mode: ops that only rename, cast to a lower
precision or copy leave no node, complex numbers become pairs of real ones, and composite ops their parts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fisherflat.errors import FisherflatError, TraceError
from fisherflat.jets.graph import Graph, Node, getitem, leaves, mapped_leaves
from fisherflat.jets.recording._buffers import PERMUTING, RENAMING, RESHAPING, bounds, key, permutation
from fisherflat.jets.recording._forms import is_composite
from fisherflat.jets.recording._integers import OF_TRUTHS, Integers
from fisherflat.jets.recording._origin import Origins
from fisherflat.jets.recording._tape import Tape
from fisherflat.jets.recording.decompositions import complex_numbers, decomposition

aten = torch.ops.aten

_RENAMING = RENAMING | {aten.clone, aten.contiguous, aten.lift_fresh_copy}
_EXPANDING = {aten.expand, aten.expand_copy, aten.copy}


def lowered(tape: Tape, at: Tensor) -> Graph:
    """The graph of a tape, of ops that have rules, in the precision of `at`, where it is run."""
    lowering = _Lowering(tape, at.dtype)
    x = at.detach().clone()
    try:
        with torch.inference_mode(False), torch.no_grad():
            output = lowering.run(x)
    except FisherflatError:
        raise
    except Exception as error:
        source = lowering.current.source if lowering.current is not None else "?"
        raise TraceError(f"{type(error).__name__} at {source}: {error}; write that step in simpler ops") from error
    return lowering.finished(output)


class _Lowering(TorchDispatchMode):
    """Notes every op that depends on the input; runs the others, which are constants."""

    def __init__(self, tape: Tape, dtype: torch.dtype) -> None:
        super().__init__()
        self._tape, self._dtype = tape, dtype
        self.current: Node | None = None
        self._nodes: list[Node] = []
        # tensors are kept alive beside what they stand for, so that an id stays theirs
        self._known: dict[int, tuple[Tensor, Node]] = {}
        self._pairs: dict[int, tuple[Tensor, complex_numbers.Pair]] = {}
        self._promoted: dict[int, tuple[Tensor, Tensor]] = {}
        self._weights = dict(tape.weights)
        self._made = Origins(tape.origins)
        self._exact = Integers(tape)

    def run(self, x: Tensor) -> Tensor:
        """The output of the tape at `x`, with all that leads to it known."""
        self._bind(x, self._node(None, (), {}, tuple(x.shape)))
        return self._tape.raised(self._dtype, self._step, self._promote)(x)

    def finished(self, y: Tensor) -> Graph:
        """The graph that was noted, of the output `y`."""
        if id(y) not in self._known:
            raise TraceError("the output of the map does not depend on its input; check the map")
        given = leaves([(node.args, node.kwargs) for node in self._nodes])
        constants = [leaf for leaf in given if isinstance(leaf, Tensor) and leaf.numel()]
        names = {id(c): self._weights[key(c)] for c in constants if key(c) in self._weights}
        origins = {id(constant): self._made.of(constant) for constant in constants}
        return Graph(self._nodes, self._known[id(y)][1], names, origins=origins)

    def _step(self, node: Node, args: Any, kwargs: Any) -> Any:
        self.current = node
        kind = self._tape.dtypes.get(node)
        with self:
            out = self._exact.form(node)(*args, **kwargs)
        if kind is not None and (out.is_floating_point(), out.is_complex(), out.dtype == torch.bool) != (
            kind.is_floating_point, kind.is_complex, kind == torch.bool
        ):  # fmt: skip
            raise TraceError(f"{node.op} of integers at {node.source} has no rule; write that step in real numbers")
        return out

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _node(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any) -> Node:
        path, source = ("", "") if self.current is None else (self.current.module_path, self.current.source)
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

    @property
    def _source(self) -> str:
        return self.current.source if self.current is not None else "?"

    def _promote(self, leaf: Any) -> Any:
        """Constants without a tape, and in the working precision, so that mixed ops run."""
        if not isinstance(leaf, Tensor) or id(leaf) in self._known:
            return leaf
        if not leaf.is_floating_point() or (leaf.dtype == self._dtype and not leaf.requires_grad):
            return leaf
        if id(leaf) not in self._promoted:
            promoted = leaf.detach().to(self._dtype)
            self._promoted[id(leaf)] = (leaf, promoted)
            self._made.note(promoted, self._made.of(leaf))
            if key(leaf) in self._weights:
                self._weights[key(promoted)] = self._weights[key(leaf)]
        return self._promoted[id(leaf)][1]

    # -- ops -----------------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        args, kwargs = mapped_leaves(self._promote, (args, kwargs))
        tensors = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(id(tensor) in self._known or id(tensor) in self._pairs for tensor in tensors):
            out = func(*args, **kwargs)
            self._made.join(func.overloadpacket, tensors, out)
            return out
        if func._schema.is_mutable:
            raise TraceError(f"{func} at {self._source} writes into a tensor where no rule can follow it")
        decomposed = decomposition(func) or is_composite(func)
        if decomposed is not None:
            with self:
                out = decomposed(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if complex_numbers.is_complex(tensors, out):
            return self._complex(func, args, kwargs, out)
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
        elif packet in RESHAPING:
            func, args, kwargs = aten.reshape.default, (first, tuple(out.shape)), {}
            renames = out.shape == first.shape
        elif packet in PERMUTING:
            func, args, kwargs = aten.permute.default, (first, permutation(packet, args)), {}
            renames = args[1] == tuple(range(out.dim()))
        elif packet in _EXPANDING:
            func, args, kwargs = aten.expand.default, (first, tuple(out.shape)), {}
            renames = out.shape == first.shape
        elif packet is aten.slice_scatter:
            args, kwargs = (*args[:2], *bounds(first, *args[2:], **kwargs)), {}
            renames = False
        elif packet in OF_TRUTHS and out.dtype == torch.bool:  # within a composite op
            func, renames = OF_TRUTHS[packet].default, False
        elif packet is aten.log_sigmoid_forward:  # its second output is scratch space
            self._noted(aten.log_sigmoid.default, args, kwargs, out[0])
            return out
        else:
            renames = packet in _RENAMING or (packet is aten.slice and out.shape == first.shape)
        if renames:
            self._bind(out, self._known[id(first)][1])
            return out
        return self._noted(func, args, kwargs, out)

    def _complex(self, func: Any, args: Any, kwargs: Any, out: Any) -> Any:
        """Complex numbers as pairs of real ones."""
        with self:
            real = complex_numbers.written_out(func, args, kwargs, self._parts)
        if real is NotImplemented:
            raise TraceError(
                f"{func.overloadpacket} of complex numbers at {self._source} is not supported; write that step in real "
                "numbers"
            )
        if isinstance(real, Tensor):
            return real
        self._pairs[id(out)] = (out, real)
        return out

    def _parts(self, z: Tensor) -> complex_numbers.Pair:
        if id(z) in self._pairs:
            return self._pairs[id(z)][1]
        return complex_numbers.Pair(*torch.view_as_real(z.resolve_conj()).unbind(-1))
