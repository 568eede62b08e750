"""How a call of the user's map becomes a tape: every op that depends on the input, with every cast as the map has it.

The map runs on `Watched` tensors, whose real values are computed beside, by the ops that the map calls in the order in
which it calls them. What does not depend on the input is a constant. Writes become functional forms (`_buffers`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fisherflat.errors import FisherflatError, TraceError
from fisherflat.jets.graph import Node, getitem, leaves, mapped_leaves
from fisherflat.jets.recording._buffers import Buffer, Step, View, key, no_entries, step_in_memory, step_to
from fisherflat.jets.recording._forms import (
    BRANCHES,
    EXCHANGING,
    OF_KIND,
    OVERWRITING,
    UNWRITTEN,
    by_values,
    functional,
    implementation,
    is_composite,
    material,
    needed,
    outputs,
    plain_attention,
    returned,
    returns_targets,
    shapes,
    targets,
    with_outputs,
)
from fisherflat.jets.recording._guard import Guard
from fisherflat.jets.recording._mapping import Mapping, no_tensor
from fisherflat.jets.recording._modes import higher_order, refuse
from fisherflat.jets.recording._origin import Origins, place
from fisherflat.jets.recording._tape import Tape
from fisherflat.jets.recording._watched import Watched, moves, unwritten

aten = torch.ops.aten


def record(mapping: Mapping, at: Tensor) -> Tape:
    """The tape of `mapping` at `at`.

    **Raises:** `TraceError` for whatever no tape can hold, with the line, also where the map itself catches it;
    `MapError` for a map that returns no single tensor.
    """
    recorder = Recorder(mapping)
    try:
        with torch.inference_mode(False), torch.no_grad():
            x = recorder.started(at)
            with recorder:
                y = mapping(x)
            return recorder.ended(y)
    except Exception as error:
        if recorder.refused is not None:
            raise recorder.refused from (None if error is recorder.refused else error)
        if isinstance(error, FisherflatError):
            raise
        raise TraceError(
            f"the call could not be traced at {place(error)}: {type(error).__name__}: {error}. Trace block by block "
            "rather than a whole model, and without branches on values"
        ) from error
    finally:
        recorder.finished = True


class Recorder(Guard, TorchDispatchMode):
    """Notes every op that depends on the input; runs the others, which are constants."""

    supports_higher_order_operators = True

    def __init__(self, mapping: Mapping) -> None:
        Guard.__init__(self, mapping.modules)
        TorchDispatchMode.__init__(self)
        self._nodes: list[Node] = []
        self._dtypes: dict[Node, torch.dtype] = {}
        #: by what tensors of one memory share; held, so that the key stays theirs
        self._buffers: dict[int, Buffer] = {}
        #: memory of constants -> the nodes that read it
        self._readers: dict[int, list[Node]] = {}
        self._origins = Origins()
        self._weights = {key(tensor): name for name, tensor in mapping.weights.items()}
        if mapping.module is None:
            for root in mapping.modules:
                for name, tensor in root.state_dict(keep_vars=True).items():
                    self._weights.setdefault(key(tensor), name)

    def started(self, at: Tensor) -> Tensor:
        """The map's input."""
        value = at.detach().clone()
        return Watched(View(value, self._buffer(value, self._node(None, (), {}, value))), self)

    def ended(self, y: Any) -> Tape:
        """The tape, of the output `y`."""
        if self.refused is not None:
            raise self.refused
        if not isinstance(y, Tensor):
            raise no_tensor(y)
        if not isinstance(y, Watched) or not y._view.moves:
            self.refuse(
                "the output of the map does not depend on its input, as far as a trace can see (a constant, or "
                "computed outside torch); check the map"
            )
        self._read([y])
        output = y._view.symbol(self._emitted)
        return Tape(self._nodes, output, self._dtypes, self._weights, self._origins)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _node(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Node:
        if target is aten.view.dtype:
            self.refuse(f"{target} reads the bits of the map's numbers; use torch ops on numbers")
        path, source = self.origin() if target is not None else ("", "")
        shape = tuple(out.shape) if isinstance(out, Tensor) else shapes(out)
        node = Node(len(self._nodes), target, args, kwargs, shape, module_path=path, source=source)
        self._nodes.append(node)
        if isinstance(out, Tensor):
            self._dtypes[node] = out.dtype
        for leaf in leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and leaf.numel():
                self._readers.setdefault(key(leaf), []).append(node)
        return node

    def _emitted(self, target: Any, args: tuple[Any, ...], like: Tensor) -> Any:
        if any(isinstance(leaf, Node) for leaf in leaves(args)):
            return self._node(target, args, {}, like)
        return target(*args)

    def _preserve(self, memory: int) -> None:
        """Copy what nodes hold of a constant that is about to be written into."""

        def kept(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor) or not leaf.numel() or key(leaf) != memory:
                return leaf
            copy = leaf.clone()
            self._origins.note(copy, self._origins.of(leaf))
            if memory in self._weights:
                self._weights[key(copy)] = self._weights[memory]
            return copy

        for node in self._readers.pop(memory, ()):
            node.args, node.kwargs = mapped_leaves(kept, (node.args, node.kwargs))
            node._inputs = None

    # -- tensors -------------------------------------------------------------------------------------------------------

    def _buffer(self, value: Tensor, node: Node | None, external: bool = False) -> Buffer:
        buffer = Buffer(value, node, external)
        self._buffers[key(value)] = buffer
        return buffer

    def _value(self, leaf: Any) -> Any:
        return leaf._view.value if isinstance(leaf, Watched) else leaf

    def _symbol(self, leaf: Any) -> Any:
        if isinstance(leaf, Watched):
            return leaf._view.symbol(self._emitted)
        return leaf.detach() if isinstance(leaf, Tensor) and leaf.requires_grad else leaf

    def _read(self, tensors: list[Any]) -> None:
        for tensor in tensors:
            blank = tensor._view.unwritten() if isinstance(tensor, Watched) else None
            if blank is not None and blank.any():
                self.refuse("the map reads memory that it has not written; fill such tensors before they are used")

    # -- ops -----------------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if self.refused is not None:
            raise self.refused
        tensors = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        foreign = next((t for t in tensors if isinstance(t, Watched) and t.guard is not self), None)
        if foreign is not None:
            self.refuse("the map keeps a tensor from one call to the next; make it a function of its input alone")
        try:
            refuse(func, args, kwargs, self.paths)
        except TraceError as error:
            self.refused = error
            raise
        with self:
            for written_out in (higher_order, plain_attention, implementation, is_composite):
                instead = written_out(func)
                if instead is not None and (written_out is not plain_attention or any(map(moves, tensors))):
                    return instead(*args, **kwargs)
        packet = func.overloadpacket
        if packet in EXCHANGING:
            self.refuse(f"{packet} gives a tensor other memory, which a trace cannot follow; make a new tensor")
        if torch.Tag.inplace_view in func.tags:
            return self._turned(func, args, kwargs)
        if func._schema.is_mutable:
            return self._write(func, args, kwargs)
        return self._run(func, args, kwargs, tensors)

    def _run(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        packet = func.overloadpacket
        moving = packet not in OF_KIND and any(map(moves, tensors))
        if moving:
            reason = by_values(func, args, moves)
            if reason:
                self.refuse(reason)
        values, named = mapped_leaves(self._value, (args, kwargs))
        out = material(func(*values, **named))
        if packet in UNWRITTEN:
            return self._blank(out)
        outs = [leaf for leaf in leaves(out) if isinstance(leaf, Tensor)]
        sources = {key(self._value(t)): t for t in reversed(tensors) if t.layout == torch.strided}
        if any(o.layout != torch.strided or o.is_quantized or o.is_mkldnn for o in outs):
            if any(map(moves, tensors)):
                self.refuse(f"{packet} makes a tensor that is not dense, which has no trace; use dense tensors")
            return out
        views = all(key(o) in sources for o in outs) and packet is not aten.lift_fresh and bool(outs)
        if not views:
            self._read(needed(packet, args, kwargs, tensors))
        if moving and any(not isinstance(leaf, Tensor | None) for leaf in leaves(out)):
            self.refuse(f"{packet}: {BRANCHES}")
        if views:
            return self._views(func, args, kwargs, out, sources)
        if out is None:
            return None
        if not moving:
            dense = [t for t in map(self._value, tensors) if t.layout == torch.strided]
            self._origins.join(packet, [t for t in dense if packet not in OF_KIND], out)
            return _mapped(lambda o: Watched(View(o, self._buffer(o, None)), self), out)
        symbols, options = mapped_leaves(self._symbol, (args, kwargs))
        node = self._node(func, symbols, options, out)
        if isinstance(out, Tensor):
            return self._result(out, node)
        for i, o in enumerate(parts := list(out)):
            parts[i] = self._result(o, self._node(getitem, (node, i), {}, o)) if isinstance(o, Tensor) else o
        return parts if isinstance(out, list) else tuple(parts)

    def _result(self, out: Tensor, node: Node) -> Watched:
        view = View(out, self._buffer(out, node))
        view.hold(node)
        return Watched(view, self)

    def _blank(self, out: Tensor) -> Watched:
        """Memory without values is zeros that must not be read."""
        out.zero_()
        buffer = self._buffer(out, None)
        buffer.blank = no_entries(out).logical_not_() if out.numel() else None
        return Watched(View(out, buffer), self)

    def _views(self, func: Any, args: Any, kwargs: Any, out: Any, sources: dict[int, Tensor]) -> Any:
        position = iter(range(len(out) if not isinstance(out, Tensor) else 1))

        def view(after: Tensor) -> Tensor:
            source, index = sources[key(after)], next(position)
            if not isinstance(source, Watched):
                known = self._buffers.get(key(source))
                buffer = known if known is not None else self._buffer(source, None, external=True)
                return Watched(View(after, buffer), self)
            parent = source._view
            if parent.buffer.external:
                return Watched(View(after, parent.buffer), self)
            step = step_to(func.overloadpacket, args, kwargs, parent.value, after, index)
            steps = parent.steps
            if step is None and func.overloadpacket is aten.as_strided:
                step, steps = step_in_memory(parent.buffer.root, after), ()
            elif step is None and isinstance(out, Tensor) and args[0] is source and not kwargs:
                inside = step_in_memory(parent.value, after)
                back = (None, ()) if inside is None else (inside.back, inside.back_args)
                step = Step(func, args[1:], parent.value, after, *back)
            elif step is None:
                step = step_in_memory(parent.value, after)
            if step is None:
                self.refuse(f"{func.overloadpacket} looks at memory in a way that a trace cannot follow")
            made = View(after, parent.buffer, (*steps, step))
            if parent.moves and made.steps[:-1] == parent.steps:
                made.hold(made.steps[-1].taken(self._emitted, parent.symbol(self._emitted)))
            return Watched(made, self)

        return _mapped(view, out)

    # -- writes --------------------------------------------------------------------------------------------------------

    def _turned(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An op that turns a tensor into a view of itself."""
        target = args[0]
        if isinstance(target, Watched):
            turned = functional(func)
            if turned is None:
                self.refuse(f"{func} gives a tensor other memory, which a trace cannot follow; make a new tensor")
            with self:
                target._view = turned(*args, **kwargs)._view
        with torch.utils._mode_utils.no_dispatch():
            func(*args, **kwargs)
        return target

    def _write(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An op that writes into some of its arguments: its functional form, whose outputs they hold from then on."""
        packet = func.overloadpacket
        written = targets(func, args, kwargs)
        if written is None:
            self.refuse(f"{func} writes into lists of tensors, which a trace cannot follow; write that step out")
        rest = [leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        overwrites = packet in OVERWRITING or "out" in kwargs
        if overwrites:
            rest = [t for t in rest if all(t is not w for w in written)]
        values, named = mapped_leaves(self._value, (args, kwargs))
        blank = unwritten(args[1]) if packet is aten.copy_ else None
        if blank is None:
            self._read(needed(packet, args, kwargs, rest))
        if not any(map(moves, [*rest, *written])):
            for t in written:
                self._touched(t)
            out = func(*values, **named)
            self._leave_blank(written[0], blank)
            if returns_targets(func):
                return returned(func, written)
            return _mapped(lambda o: Watched(View(o, self._buffer(o, None)), self), out)
        outside = next((t for t in written if not isinstance(t, Watched) or t._view.buffer.external), None)
        if outside is not None:
            self.refuse(
                f"{packet} writes values of the map into a tensor that was there before, so the next call would find "
                "them; copy it first"
            )
        beside = 0 if returns_targets(func) else len(func._schema.returns)
        form = with_outputs(func) if beside else functional(func)
        if form is None:
            self.refuse(f"{func} writes into a tensor and has no functional form; rewrite that line")
        given, options = mapped_leaves(self._symbol, (args, kwargs))
        options = {name: option for name, option in options.items() if name not in outputs(func)}
        plain = {name: option for name, option in named.items() if name not in outputs(func)}
        whole = packet in OVERWRITING and not any(map(moves, rest))
        out = form(*values, **plain)
        outs = [out] if isinstance(out, Tensor) else list(out)
        if whole:
            symbols: list[Any] = [o.clone() for o in outs]
        elif packet is aten.copy_:  # what was there does not matter
            symbols = [given[1]]
            outs = [values[1]]
        else:
            node = self._node(form, given, options, out)
            symbols = (
                [node]
                if isinstance(out, Tensor)
                else [self._node(getitem, (node, i), {}, o) for i, o in enumerate(outs)]
            )
        for target, symbol, result in zip(written, symbols[beside:], outs[beside:], strict=False):
            self._put(target, symbol, result)
        self._leave_blank(written[0], blank)
        results = [self._result(out, node) for out, node in zip(outs[:beside], symbols, strict=False)]
        return tuple(results) if results else returned(func, written)

    def _leave_blank(self, target: Any, blank: Tensor | None) -> None:
        """Copies of what has not been written have not been written either; they may be, before they are read."""
        if blank is None:
            return
        if not isinstance(target, Watched) or target._view.buffer.external:
            self.refuse("the map reads memory that it has not written; fill such tensors before they are used")
        buffer = target._view.buffer
        if buffer.blank is None:
            buffer.blank = no_entries(buffer.root)
        target._view.unwritten().copy_(blank)  # type: ignore[union-attr]

    def _put(self, target: Any, symbol: Any, result: Tensor) -> None:
        """Let `target` hold `symbol`, whose value is `result`, in its own shape and precision."""
        view = target._view
        if view.value.shape != result.shape and view.value.numel() != 0 and result.numel() > view.value.numel():
            self.refuse("an op writes an output of another shape than the tensor that is given for it; make a new one")
        filled = torch.empty_like(view.value, memory_format=torch.contiguous_format).copy_(result)
        if result.dtype != filled.dtype:
            symbol = self._kept(aten._to_copy.default, (symbol,), {"dtype": filled.dtype}, result.to(filled.dtype))
        if result.shape != filled.shape:
            symbol = self._emitted(aten.expand.default, (symbol, list(filled.shape)), filled)
        self._touched(target)
        before = view.buffer.root.clone() if view.buffer.node is None else view.buffer.root
        if not view.write(self._emitted, symbol, before):
            self.refuse("the map writes into a view in a way that a trace cannot follow; write into the tensor itself")
        view.value.copy_(filled)

    def _kept(self, target: Any, args: Any, kwargs: Any, out: Tensor) -> Any:
        return self._node(target, args, kwargs, out) if isinstance(args[0], Node) else out

    def _touched(self, target: Tensor) -> None:
        """What is about to be written: constants that nodes hold are kept, its entries are no longer blank."""
        value = self._value(target)
        if value.numel():
            self._preserve(key(value))
        if isinstance(target, Watched):
            unwritten = target._view.unwritten()
            if unwritten is not None:
                unwritten.fill_(True).logical_not_()
                if not target._view.buffer.blank.any():  # type: ignore[union-attr]
                    target._view.buffer.blank = None


def _mapped(function: Any, out: Any) -> Any:
    return mapped_leaves(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, out)
