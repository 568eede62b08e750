"""A map as a graph of ATen ops: what structure, numbers and proofs are read from.

See `fisherflat.jets.recording` for how a module call becomes one, `fisherflat.parts` for what its nodes do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fisherflat.errors import TraceError
from fisherflat.jets.graph._copied import Reference, called, plain
from fisherflat.jets.graph._held import Held, Holding, Origin
from fisherflat.jets.graph._nests import leaves, mapped_leaves
from fisherflat.jets.graph._shown import Shown, displayed
from fisherflat.jets.graph._watch import Constants, Watch

aten = torch.ops.aten

#: what a part of a layer does; see `fisherflat.parts`
ROLES = ("pattern", "attention_gate", "norm", "mlp_gate", "activation", "other")


@displayed
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
    _inputs: list[Node] | None = field(default=None, init=False, repr=False)

    @property
    def op(self) -> str:
        """The op's name, such as `aten.bmm`; `input` for the graph's input."""
        if self.target is None:
            return "input"
        return "getitem" if self.target is getitem else str(self.packet)

    @property
    def packet(self) -> Any:
        """The op without its overload: what rules are keyed by."""
        return getattr(self.target, "overloadpacket", self.target)

    @property
    def entries(self) -> int:
        """How many numbers the output holds, or all of them together."""
        shapes = self.shape if self.shape and isinstance(self.shape[0], tuple) else (self.shape,)
        return sum(math.prod(shape) for shape in shapes)

    @property
    def inputs(self) -> list[Node]:
        """The nodes that this one reads, in order of appearance; found once, for a node does not change."""
        if self._inputs is None:
            self._inputs = [leaf for leaf in leaves((self.args, self.kwargs)) if isinstance(leaf, Node)]
        return self._inputs

    def __repr__(self) -> str:
        return f"%{self.index} = {self.op} [{self.role}] {self.source}"


class Live(NamedTuple):
    """What a frozen graph was before: the graph with everything live, and the input at which parts of it are held."""

    graph: Graph
    at: Tensor


class Traced:
    """What is a map by a graph that it holds, `graph`: engines read that instead of tracing its calls."""

    graph: Graph


def unwrapped(mean: Any) -> Any:
    """The graph of what holds one as its map; anything else as it is."""
    return mean.graph if isinstance(mean, Traced) else mean


def getitem(outputs: Sequence[Any], position: int) -> Any:
    """One output of an op that has several."""
    return outputs[position]


class Graph(Shown):
    """A traced map `x -> y` of one tensor.

    Calling a graph computes the map with plain torch ops (so it can be vmapped, differentiated and traced).

    **Attributes:** `nodes`, the input first, in order of execution; `output`, a node, or a tensor where the output does
    not depend on the input; `names`, weight name by `id` of the constant; `holdings`, what is held at the base point;
    `origins`, by `id` of a constant, what it was made of (of a fresh trace alone); `live`, what a frozen graph was
    before, which is what its held numbers are checked against; `watch`, of the weights that it was traced with: a graph
    belongs to them as they were, and raises `MapError` where they have changed; `program`, of a graph that follows its
    weights instead, how its constants are made of them.

    `fisherflat.trace` makes one.
    """

    def __init__(
        self,
        nodes: list[Node],
        output: Node | Tensor,
        names: dict[int, str],
        holdings: tuple[Holding, ...] = (),
        origins: dict[int, Origin] | None = None,
        live: Live | None = None,
        watch: Watch | None = None,
        program: Constants | None = None,
    ) -> None:
        self.nodes, self.output, self.names = _live(nodes, output), output, names
        self.holdings, self.origins, self.live = holdings, origins or {}, live
        self.watch, self.program = watch or Watch(), program

    @property
    def frozen(self) -> tuple[str, ...]:
        """The roles of which something is held, in the order of `ROLES`."""
        found = {holding.role for holding in self.holdings}
        return tuple(role for role in ROLES if role in found)

    @property
    def held(self) -> list[Held]:
        """What is held: op, module path and source line of each node; empty for a live graph."""
        return [holding.what for holding in self.holdings]

    @property
    def input(self) -> Node:
        """The node of the input."""
        return self.nodes[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the output."""
        return tuple(self.output.shape)

    def __call__(self, x: Tensor) -> Tensor:
        """The map at `x`, of the shape that was traced."""
        if tuple(x.shape) != tuple(self.input.shape):
            raise TraceError(
                f"this graph was traced for an input of {list(self.input.shape)}, not {list(x.shape)}; trace again"
            )
        self.watch.check()
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
        self.watch.check()
        values: dict[Node, Any] = {}
        for node in self.nodes:
            values[node] = x if node.target is None else run(node, values.__getitem__)
        return values

    def last_use(self) -> dict[Node, list[Node]]:
        """Node -> the nodes whose value is not needed after it; found once, for a graph does not change."""
        if (known := vars(self).get("_last_use")) is not None:
            return known
        self._last_use = last_uses(self.nodes, {self.output} if isinstance(self.output, Node) else ())
        return self._last_use

    def users(self) -> dict[Node, list[Node]]:
        """Node -> the nodes that read it."""
        users: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                users[source].append(node)
        return users

    def constants(self) -> Iterator[tuple[str, Tensor]]:
        """The distinct constant tensors with their names (weights), or `constant N`, in order of appearance."""
        seen: set[int] = set()
        for node in self.nodes:
            for leaf in leaves((node.args, node.kwargs)):
                if isinstance(leaf, Tensor) and id(leaf) not in seen:
                    seen.add(id(leaf))
                    yield self.names.get(id(leaf), f"constant {len(seen)}"), leaf

    def to(self, dtype: torch.dtype, device: torch.device) -> Graph:
        """The same graph with floating constants and casts in `dtype` and everything on `device`.

        It is this one where they are so already, unless it follows its weights.
        """
        moved: dict[int, Tensor] = {}
        names: dict[int, str] = {}

        def convert(leaf: Any) -> Any:
            if isinstance(leaf, torch.dtype) and leaf.is_floating_point:
                return dtype
            if not isinstance(leaf, Tensor):
                return leaf
            if id(leaf) not in moved:
                target = leaf.to(device=device, dtype=dtype if leaf.is_floating_point() else leaf.dtype)
                moved[id(leaf)] = target
                if id(leaf) in self.names:
                    names[id(target)] = self.names[id(leaf)]
            return moved[id(leaf)]

        if self.program is None:
            everything = leaves(([(node.args, node.kwargs) for node in self.nodes], self.output))
            return self if all(convert(leaf) is leaf for leaf in everything) else self._rebuilt(convert, names)
        program = self.program.ended(leaf for _, leaf in self.constants())
        with program.written():
            found = self._rebuilt(convert, names)
        found.program = program.ended(leaf for _, leaf in found.constants())
        return found

    def _rebuilt(self, convert: Callable[[Any], Any], names: dict[int, str]) -> Graph:
        copies: dict[Node, Node] = {}

        def mapped(leaf: Any) -> Any:
            return copies[leaf] if isinstance(leaf, Node) else convert(leaf)

        for node in self.nodes:
            copies[node] = replace(
                node, args=mapped_leaves(mapped, node.args), kwargs=mapped_leaves(mapped, node.kwargs)
            )
        return Graph(list(copies.values()), mapped(self.output), names, self.holdings, live=self.live, watch=self.watch)

    def __getstate__(self) -> dict[str, Any]:
        """Plain data. A copy holds its own weights, so that it watches none."""
        known = {id(leaf): leaf for _, leaf in self.constants()}

        def flat(leaf: Any) -> Any:
            return Reference(leaf.index) if isinstance(leaf, Node) else leaf

        def flattened(node: Node) -> dict[str, Any]:
            nested = {"args": mapped_leaves(flat, node.args), "kwargs": mapped_leaves(flat, node.kwargs)}
            fields = {name: value for name, value in vars(node).items() if name != "_inputs"}
            return {**fields, **nested, "target": plain(node.target)}

        return {
            "nodes": [flattened(node) for node in self.nodes],
            "output": flat(self.output),
            "names": [(leaf, self.names[i]) for i, leaf in known.items() if i in self.names],
            "origins": [(leaf, self.origins[i]) for i, leaf in known.items() if i in self.origins],
            "holdings": self.holdings,
            "live": self.live,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        nodes: list[Node] = []

        def node(leaf: Any) -> Any:
            return nodes[leaf.number] if isinstance(leaf, Reference) else leaf

        def nested(thing: Any) -> Any:
            """As `mapped_leaves`, for references are tuples."""
            if isinstance(thing, dict):
                return {name: nested(item) for name, item in thing.items()}
            if isinstance(thing, (tuple, list)) and not isinstance(thing, Reference):
                return type(thing)(map(nested, thing))
            return node(thing)

        for flat in state["nodes"]:
            args, kwargs = nested(flat["args"]), nested(flat["kwargs"])
            nodes.append(Node(**{**flat, "args": args, "kwargs": kwargs, "target": called(flat["target"])}))
        self.nodes, self.output, self.watch, self.program = nodes, node(state["output"]), Watch(), None
        self.names = {id(leaf): name for leaf, name in state["names"]}
        self.origins = {id(leaf): origin for leaf, origin in state["origins"]}
        self.holdings, self.live = state["holdings"], state["live"]

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


def last_uses(nodes: Sequence[Node], kept: Collection[Node]) -> dict[Node, list[Node]]:
    """Node -> what is not needed after it, where these nodes are computed in their order, but for what is `kept`."""
    last: dict[Node, Node] = {}
    for node in nodes:
        last[node] = node
        for source in node.inputs:
            last[source] = node
    dead: dict[Node, list[Node]] = {}
    for node, user in last.items():
        if node not in kept:
            dead.setdefault(user, []).append(node)
    return dead


def most_alive(nodes: Sequence[Node], last: Mapping[Node, Sequence[Node]], times: Callable[[Node], float]) -> float:
    """The largest number of entries alive at a time where nodes are computed in their order, each so many `times`.

    Each has room for one more of its size while it is computed.
    """
    computed, peak = set(nodes), 0.0
    live = sum(node.entries * times(node) for dead in last.values() for node in dead if node not in computed)
    for node in nodes:
        live += node.entries * times(node)
        peak = max(peak, live + node.entries * times(node))
        live -= sum(dead.entries * times(dead) for dead in last.get(node, ()))
    return peak


#: ops whose backward formula torch cannot differentiate forwards (measured on torch 2.13), in ops that it can
_WRITTEN_OUT: dict[Any, Callable[..., Tensor]] = {aten.silu: lambda x: x * torch.sigmoid(x)}


def run(node: Node, value: Callable[[Node], Any]) -> Any:
    """The op of `node` on the values of its inputs."""

    def filled(leaf: Any) -> Any:
        return value(leaf) if isinstance(leaf, Node) else leaf

    args, kwargs = mapped_leaves(filled, (node.args, node.kwargs))
    return _WRITTEN_OUT.get(node.packet, node.target)(*args, **kwargs)


#: an entry-by-entry function as `slope * x + intercept` of an earlier node x
Tangent = tuple[Node, Tensor, Tensor]


def fold(graph: Graph, constant: dict[Node, Any], tangents: dict[Node, Tangent]) -> tuple[list[Node], Node | Tensor]:
    """Copies of the nodes, some of them replaced by constants and tangents, and of the output.

    What depends on nothing but constants is a constant too.
    """
    copies: dict[Node, Any] = dict(constant)
    kept: list[Node] = []

    def mapped(leaf: Any) -> Any:
        return copies[leaf] if isinstance(leaf, Node) else leaf

    def put(node: Node, **changes: Any) -> Any:
        copy = replace(node, **mapped_leaves(mapped, changes))
        if node.target is not None and not copy.inputs:
            return run(copy, mapped)
        kept.append(copy)
        return copy

    for node in graph.nodes:
        if node in tangents and node not in constant:
            source, slope, intercept = tangents[node]
            line = {"kwargs": {}, "role": "other"}  # no activation any more
            copies[node] = put(node, target=aten.mul.Tensor, args=(source, slope), **line)
            copies[node] = put(node, target=aten.add.Tensor, args=(node, intercept), **line)
        elif node not in constant:
            copies[node] = put(node, args=node.args, kwargs=node.kwargs)
    return kept, mapped(graph.output)


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
