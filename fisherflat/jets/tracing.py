"""From a module to its graph, and from a graph to one with parts of it held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fisherflat._arrays import as_float64
from fisherflat.errors import InputError
from fisherflat.jets.elementary import FUNCTIONS
from fisherflat.jets.graph import ROLES, Graph, Node, fold
from fisherflat.jets.mapping import Mapping
from fisherflat.jets.recording import record
from fisherflat.jets.roles import assign, held

aten = torch.ops.aten


def trace(module: Callable[[Tensor], Tensor], at: Any) -> Graph:
    """The graph of `module(at)`: nodes with op, role, module path and source line. `print` it for a table.

    **Args:** `module`: an `nn.Module` or a callable, one tensor to one tensor; `at`: an input of the shape to trace,
    taken to float64. The graph holds for every input of that shape unless control flow depends on the input's values,
    which is an error.

    **Raises:** `TraceError`, `MapError` where the call itself fails, `InputError` for a bad `at`.
    """
    point = as_float64(at, "at")
    mapping = Mapping(module, point.dtype, point.device)
    mapping.check(point)
    return traced(mapping, point)


def traced(mapping: Mapping, point: Tensor) -> Graph:
    """The graph of a map in its working precision; a graph itself is taken as it is."""
    if isinstance(mapping.mean, Graph):
        return mapping.mean.to(mapping.dtype, point.device)
    graph = record(mapping, point)
    assign(graph)
    return graph


def freeze(module: Callable[[Tensor], Tensor], at: Any, roles: Sequence[str] = ("pattern",)) -> Graph:
    """`module` with the parts of some roles held at their values at the input `at`.

    The factor of a role (the attention pattern, the gate, the inverse scale of a norm) becomes a constant, and what it
    multiplies stays live; an activation that stands alone becomes its tangent at `at`. So ungated attention with its
    pattern frozen is affine, and so is an MLP with its gate or activation frozen.

    **Args:** `module` and `at` as in `trace` (a graph can be frozen further); `roles` out of `pattern`, `attention_gate`,
    `norm`, `mlp_gate`, `activation`. A role that the module does not have holds nothing.

    **Returns:** a `Graph`, callable like the module; `.frozen` names the roles.

    **Raises:** `InputError` for an unknown role, and what `trace` raises.
    """
    roles = (roles,) if isinstance(roles, str) else tuple(roles)
    for role in roles:
        if role not in ROLES or role == "other":
            raise InputError(f"{role!r} cannot be frozen; choose from {', '.join(ROLES[:-1])}")
    graph = trace(module, at)
    values = graph.values(as_float64(at, "at"))
    constant = {node: values[node] for role in roles for node in held(graph, role)}
    nodes: list[Node] = []
    tangents: dict[Node, Node] = {}
    for node in graph.nodes:
        copy = replace(node, args=_moved(node.args, tangents), kwargs=_moved(node.kwargs, tangents))
        tangents[node] = copy
        nodes.append(copy)
        if node.role == "activation" and "activation" in roles and not node.factor and node.packet is not aten.mul:
            steps = _tangent(node, copy, values)
            nodes[-1:] = steps
            tangents[node] = steps[-1]
    output = graph.output if isinstance(graph.output, Tensor) else tangents[graph.output]
    if isinstance(output, Node):
        kept, output = fold(nodes, output, {tangents[node]: value for node, value in constant.items()})
    else:
        kept = nodes[:1]
    frozen = tuple(role for role in ROLES if role in roles or role in graph.frozen)
    return Graph(kept, output, graph.names, frozen)


def _moved(thing: Any, mapping: dict[Node, Node]) -> Any:
    return tree_map(lambda leaf: mapping[leaf] if isinstance(leaf, Node) else leaf, thing)


def _tangent(node: Node, copy: Node, values: dict[Node, Any]) -> list[Node]:
    """`f(x0) + f'(x0) (x - x0)` as a product and a sum."""
    source = node.inputs[0]
    x0 = values[source]
    _, slope, _ = FUNCTIONS[node.packet.__name__](x0, *node.args[1:], **node.kwargs)
    scaled = replace(copy, target=aten.mul.Tensor, args=(copy.inputs[0], slope), kwargs={})
    return [scaled, replace(copy, target=aten.add.Tensor, args=(scaled, values[node] - slope * x0), kwargs={})]
