"""A module call traced once into a graph of ATen ops.

The call is recorded by a dispatch mode below `torch.func.functionalize`, so that the graph is free of mutation and of
whatever does not depend on the input: masks, rotary tables and weights are constants. Ops that only rename, cast to a
lower precision or copy leave no node. The same graph is read as structure, as numbers and as proof.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functionalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from fisherflat.errors import FisherflatError, TraceError
from fisherflat.jets.decompositions import decomposition
from fisherflat.jets.mapping import Mapping

aten = torch.ops.aten

#: what a part of a layer does; see `fisherflat.jets.roles`
ROLES = ("pattern", "attention_gate", "norm", "mlp_gate", "activation", "other")

_IDENTITY = {aten.clone, aten.detach, aten.alias, aten.lift_fresh, aten.contiguous, aten.lift_fresh_copy, aten.detach_copy, aten.alias_copy}
_RESHAPE = {aten.view, aten._unsafe_view, aten.reshape, aten.view_copy, aten._reshape_alias, aten._reshape_copy, aten.unsqueeze,
            aten.unsqueeze_copy, aten.squeeze, aten.squeeze_copy, aten.flatten, aten.unflatten}
_PERMUTE = {aten.t, aten.transpose, aten.permute, aten.t_copy, aten.transpose_copy, aten.permute_copy}
_LOW = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(eq=False)
class Node:
    """One op of a graph.

    **Attributes:** `target`, the ATen overload (the graph's input has `None`); `args`, `kwargs`, in which other nodes
    stand for their outputs and tensors are constants; `shape` of the output; `role`, one of `ROLES`; `factor`, whether
    freezing the role holds this node; `module_path`, the submodule that made the call; `source`, file and line.
    """

    index: int
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: Any
    role: str = "other"
    factor: bool = False
    module_path: str = ""
    source: str = ""

    @property
    def op(self) -> str:
        """The op's name, such as `aten.bmm`; `input` for the graph's input."""
        if self.target is None:
            return "input"
        return f"{self.packet}" if not isinstance(self.packet, str) else self.packet

    @property
    def packet(self) -> Any:
        """The op without its overload: what rules are keyed by."""
        return getattr(self.target, "overloadpacket", self.target)

    @property
    def inputs(self) -> list[Node]:
        """The nodes that this one reads, in order of appearance."""
        return [leaf for leaf in tree_flatten((self.args, self.kwargs))[0] if isinstance(leaf, Node)]

    def __repr__(self) -> str:
        return f"%{self.index} = {self.op} [{self.role}] {self.source}"


def getitem(outputs: tuple[Any, ...], position: int) -> Any:
    """One output of an op that has several."""
    return outputs[position]


class Graph:
    """A traced map `x -> y` of one tensor.

    Calling a graph computes the map with plain torch ops (so it can be vmapped, differentiated and traced).

    **Attributes:** `nodes`, the input first, in order of execution; `output`, a node, or a tensor where the output does
    not depend on the input; `names`, weight name by `id` of the constant; `frozen`, the roles that are held.
    """

    def __init__(self, nodes: list[Node], output: Node | Tensor, names: dict[int, str], frozen: tuple[str, ...] = ()) -> None:
        self.nodes, self.output, self.names, self.frozen = _live(nodes, output), output, names, frozen

    @property
    def input(self) -> Node:
        return self.nodes[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the output."""
        return tuple(self.output.shape)

    def __call__(self, x: Tensor) -> Tensor:
        """The map at `x`, of the shape that was traced."""
        if tuple(x.shape) != tuple(self.input.shape):
            raise TraceError(f"this graph was traced for an input of shape {list(self.input.shape)}, not {list(x.shape)}; trace again")
        if isinstance(self.output, Tensor):
            return self.output.to(x)
        values: dict[Node, Any] = {}
        last = self.last_use()
        for node in self.nodes:
            values[node] = x if node.target is None else run(node, lambda n: values[n])
            for dead in last.get(node, ()):
                del values[dead]
        return values[self.output]

    def values(self, x: Tensor) -> dict[Node, Any]:
        """The value of every node at `x`."""
        values: dict[Node, Any] = {}
        for node in self.nodes:
            values[node] = x if node.target is None else run(node, values.__getitem__)
        return values

    def last_use(self) -> dict[Node, list[Node]]:
        """node -> the nodes whose value is not needed after it."""
        last: dict[Node, Node] = {}
        for node in self.nodes:
            last[node] = node
            for source in node.inputs:
                last[source] = node
        dead: dict[Node, list[Node]] = {}
        for node, user in last.items():
            if node is not self.output:
                dead.setdefault(user, []).append(node)
        return dead

    def users(self) -> dict[Node, list[Node]]:
        """node -> the nodes that read it."""
        users: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                users[source].append(node)
        return users

    def constants(self) -> Iterator[tuple[str, Tensor]]:
        """The distinct constant tensors with their names (weights), or `constant N`, in order of appearance."""
        seen: set[int] = set()
        for node in self.nodes:
            for leaf in tree_flatten((node.args, node.kwargs))[0]:
                if isinstance(leaf, Tensor) and id(leaf) not in seen:
                    seen.add(id(leaf))
                    yield self.names.get(id(leaf), f"constant {len(seen)}"), leaf

    def to(self, dtype: torch.dtype, device: torch.device) -> Graph:
        """The same graph with floating constants in `dtype` and everything on `device`."""
        moved: dict[int, Tensor] = {}
        names: dict[int, str] = {}

        def convert(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            if id(leaf) not in moved:
                target = leaf.to(device=device, dtype=dtype if leaf.is_floating_point() else leaf.dtype)
                moved[id(leaf)] = target
                if id(leaf) in self.names:
                    names[id(target)] = self.names[id(leaf)]
            return moved[id(leaf)]

        return self._rebuilt(convert, names)

    def _rebuilt(self, convert: Callable[[Any], Any], names: dict[int, str]) -> Graph:
        copies: dict[Node, Node] = {}

        def mapped(leaf: Any) -> Any:
            return copies[leaf] if isinstance(leaf, Node) else convert(leaf)

        for node in self.nodes:
            copies[node] = replace(node, args=tree_map(mapped, node.args), kwargs=tree_map(mapped, node.kwargs))
        return Graph(list(copies.values()), mapped(self.output), names, self.frozen)

    def __str__(self) -> str:
        """A table of the nodes: what `print(ff.trace(module, at))` shows."""
        rows = [("node", "op", "shape", "role", "module", "source")]
        for node in self.nodes:
            role = node.role + ("*" if node.factor else "")
            rows.append((f"%{node.index}", node.op, str(list(node.shape)), role, node.module_path, node.source))
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        note = "* held when its role is frozen" if any(node.factor for node in self.nodes) else ""
        return "\n".join([*lines, note]).rstrip()

    def __repr__(self) -> str:
        counts = {role: sum(node.role == role for node in self.nodes) for role in ROLES}
        found = ", ".join(f"{role} {count}" for role, count in counts.items() if count)
        held = f", frozen {'+'.join(self.frozen)}" if self.frozen else ""
        return f"Graph({list(self.input.shape)} -> {list(self.shape)}, {len(self.nodes)} nodes: {found}{held})"


def run(node: Node, value: Callable[[Node], Any]) -> Any:
    """The op of `node` on the values of its inputs."""

    def filled(leaf: Any) -> Any:
        return value(leaf) if isinstance(leaf, Node) else leaf

    args, kwargs = tree_map(filled, node.args), tree_map(filled, node.kwargs)
    return node.target(*args, **kwargs)


def fold(nodes: Iterable[Node], output: Node, constant: dict[Node, Any]) -> tuple[list[Node], Node | Tensor]:
    """Copies of `nodes` in which those in `constant`, and all that depends on nothing else, are constants."""
    copies: dict[Node, Any] = dict(constant)
    kept: list[Node] = []

    def mapped(leaf: Any) -> Any:
        return copies[leaf] if isinstance(leaf, Node) else leaf

    for node in nodes:
        if node in copies:
            continue
        copy = replace(node, args=tree_map(mapped, node.args), kwargs=tree_map(mapped, node.kwargs))
        if node.target is not None and not copy.inputs:
            copies[node] = run(copy, mapped)
        else:
            copies[node] = copy
            kept.append(copy)
    return kept, copies[output]


def _live(nodes: list[Node], output: Node | Tensor) -> list[Node]:
    """The nodes that the output needs, the input always, numbered anew."""
    needed = {nodes[0]}
    stack = [output] if isinstance(output, Node) else []
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(node.inputs)
    kept = [node for node in nodes if node in needed]
    for index, node in enumerate(kept):
        node.index = index
    return kept


# -- recording ---------------------------------------------------------------------------------------------------------


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
            f"the call could not be traced: {type(error).__name__}: {error}. Trace block by block rather than a whole model, "
            'or use engine="autodiff", which needs no graph'
        ) from error
    return recorder.finished(y)


def _plain(y: Any) -> Tensor:
    if not isinstance(y, Tensor):
        raise TraceError(f"the map must return one tensor, it returned {type(y).__name__}; wrap it, e.g. lambda x: module(x)[0]")
    return y


class _Recorder(TorchDispatchMode):
    """Notes every op that depends on the input; runs the others, which are constants."""

    def __init__(self, mapping: Mapping, at: Tensor) -> None:
        super().__init__()
        self._dtype = at.dtype
        self._nodes: list[Node] = []
        # tensors are kept alive beside their nodes, so that an id stays theirs
        self._known: dict[int, tuple[Tensor, Node]] = {}
        self._promoted: dict[int, tuple[Tensor, Tensor]] = {}
        self._names = {id(tensor): name for name, tensor in mapping.weights.items()}
        self._paths: dict[int, str] = {}
        roots = [mapping.module] if mapping.module is not None else _modules_of(mapping.mean)
        for root in roots:
            for name, module in root.named_modules():
                self._paths.setdefault(id(module), name)
            if mapping.module is None:
                for name, tensor in root.state_dict(keep_vars=True).items():
                    self._names.setdefault(id(tensor), name)

    def started(self, at: Tensor) -> Tensor:
        x = at.detach().clone()
        self._bind(x, self._node(None, (), {}, tuple(x.shape)))
        return x

    def finished(self, y: Tensor) -> Graph:
        known = self._known.get(id(y))
        if known is not None:
            return Graph(self._nodes, known[1], self._names)
        raise TraceError(
            "the output of the map does not depend on its input, as far as a trace can see (a constant, or computed outside torch); "
            "check the map"
        )

    def _node(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], shape: Any) -> Node:
        path, source = self._origin() if target is not None else ("", "")
        node = Node(len(self._nodes), target, args, kwargs, shape, module_path=path, source=source)
        self._nodes.append(node)
        return node

    def _bind(self, tensor: Tensor, node: Node) -> None:
        self._known[id(tensor)] = (tensor, node)

    def _bind_outputs(self, out: Any, node: Node) -> None:
        if isinstance(out, Tensor):
            node.shape = tuple(out.shape)
            self._bind(out, node)
            return
        node.shape = tuple(tuple(o.shape) if isinstance(o, Tensor) else () for o in out)
        for position, tensor in enumerate(out):
            if isinstance(tensor, Tensor):
                item = Node(len(self._nodes), getitem, (node, position), {}, tuple(tensor.shape), module_path=node.module_path, source=node.source)
                self._nodes.append(item)
                self._bind(tensor, item)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        packet = func.overloadpacket
        cast = packet in (aten._to_copy, aten.to)
        if kwargs.get("dtype") in _LOW:
            kwargs["dtype"] = self._dtype  # casts to a lower precision are dropped, here and in constants
        args, kwargs = tree_map(self._promote, (args, kwargs))
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        tracked = [tensor for tensor in tensors if id(tensor) in self._known]
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise TraceError(f"{packet} draws random numbers ({self._origin()[1]}); put the module into eval mode")
        if not tracked:
            return func(*args, **kwargs)
        if packet in (aten._local_scalar_dense, aten.nonzero, aten.is_nonzero, aten.equal):
            raise TraceError(
                f"{packet} at {self._origin()[1]}: the control flow depends on the values of the input, so one graph does not hold "
                'at other points; replace the branch, or use engine="autodiff"'
            )
        if func._schema.is_mutable:
            return self._mutated(func, args, kwargs)
        decomposed = decomposition(func)
        if decomposed is not None:
            with self:
                return decomposed(*args, **kwargs)
        out = func(*args, **kwargs)
        if packet in _IDENTITY or (cast and out.is_floating_point() and args[0].is_floating_point()):
            self._bind(out, self._known[id(args[0])][1])
            return out
        target: Any = func
        if packet in _RESHAPE:
            target, args, kwargs = aten.reshape.default, (args[0], tuple(out.shape)), {}
        elif packet in _PERMUTE:
            target, args, kwargs = aten.permute.default, (args[0], _permutation(packet, args)), {}
        elif packet in (aten.expand, aten.expand_copy):
            target, args, kwargs = aten.expand.default, (args[0], tuple(out.shape)), {}
        renames = target in (aten.reshape.default, aten.expand.default) and out.shape == tensors[0].shape
        if renames or (target is aten.permute.default and args[1] == tuple(range(out.dim()))):
            self._bind(out, self._known[id(tensors[0])][1])
            return out
        node_args, node_kwargs = tree_map(self._named, (args, kwargs))
        self._bind_outputs(out, self._node(target, node_args, node_kwargs, None))
        return out

    def _named(self, leaf: Any) -> Any:
        return self._known[id(leaf)][1] if isinstance(leaf, Tensor) and id(leaf) in self._known else leaf

    def _promote(self, leaf: Any) -> Any:
        """Constants of a lower precision are taken up to the working precision, so that mixed ops run."""
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point() or leaf.dtype == self._dtype or id(leaf) in self._known:
            return leaf
        if id(leaf) not in self._promoted:
            promoted = leaf.detach().to(self._dtype)
            self._promoted[id(leaf)] = (leaf, promoted)
            if id(leaf) in self._names:
                self._names[id(promoted)] = self._names[id(leaf)]
        return self._promoted[id(leaf)][1]

    def _mutated(self, func: Any, args: Any, kwargs: Any) -> Any:
        """An in-place op on a tensor of its own (the others were functionalised): its functional form, and a new name."""
        name = func.overloadpacket.__name__
        functional = getattr(getattr(aten, name.rstrip("_"), None), func._overloadname, None)
        if functional is None or not name.endswith("_"):
            raise TraceError(f"{func} at {self._origin()[1]} writes into a tensor and has no functional form; rewrite that line")
        target = args[0]
        with self:
            out = functional(*args, **kwargs)
        func(*args, **kwargs)
        if id(out) in self._known:
            self._bind(target, self._known[id(out)][1])
        return target

    def _origin(self) -> tuple[str, str]:
        """The innermost submodule on the call stack, and the innermost line outside torch and this package."""
        path, source, inside = None, None, None
        frame = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            filename = code.co_filename
            if path is None and code.co_varnames[:1] == ("self",):
                path = self._paths.get(id(frame.f_locals.get("self")))
            if source is None and filename != __file__ and not filename.startswith("<"):
                place = f"{Path(filename).name}:{frame.f_lineno}"
                if filename.startswith(_TORCH):
                    inside = inside or (place if "/nn/modules/" in filename else None)
                elif not filename.startswith(_JETS):
                    source = place
            if path is not None and source is not None:
                break
            frame = frame.f_back
        return path or "", (source if source is not None else inside) or "?"


_TORCH = str(Path(torch.__file__).parent)
_JETS = str(Path(__file__).parent)


def _modules_of(function: Any) -> list[nn.Module]:
    """Modules that a callable holds in its attributes, its bound object or its closure: to name weights and paths."""
    held = [*vars(function).values()] if hasattr(function, "__dict__") else []
    held += [getattr(function, "__self__", None)]
    held += [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    return [thing for thing in held if isinstance(thing, nn.Module)]


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

