"""From a module to its graph, and from a graph to one with parts of it held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from fisherflat._arrays import as_float64, strings
from fisherflat.errors import InputError
from fisherflat.jets.graph import ROLES, Graph, Held, Holding, Live, Node, Tangent, fold, run, unwrapped
from fisherflat.jets.ops import STRUCTURAL
from fisherflat.jets.recording import Mapping, graphed, recorded
from fisherflat.parts._activations import ends
from fisherflat.parts._flow import Flow, entries, moving
from fisherflat.parts._roles import assign, held
from fisherflat.spaces.charts import Chart


def trace(module: Callable[[Tensor], Tensor], at: Any, *, differentiable: bool = False) -> Graph:
    """The graph of `module(at)`: nodes with op, role, module path and source line. `print` it for a table.

    **Args:** `module`: an `nn.Module` or a callable, one tensor to one tensor; `at`: an input of the shape to trace,
    taken to float64, or a chart, on which the trace is then checked. The graph holds for every input of that shape
    unless control flow depends on the input's values, which is an error. `differentiable`: the graph follows the
    weights, for a manifold that has gradients by them.

    The trace, with every cast that the module has, gives the module's own value at `at` and at three more points to the
    last places, and says what it does without casts to lower precision.

    **Raises:** `TraceError`, `MapError` where the call itself fails, `InputError` for a bad `at`.

    >>> import torch, fisherflat as ff
    >>> graph = ff.trace(ff.layers.GatedMLP(4, 6), torch.ones(4))
    >>> [node.op for node in graph.nodes if node.role == "mlp_gate" and not node.factor]
    ['aten.mul']
    """
    place = at if isinstance(at, Chart) else as_float64(at, "at")
    point = place.point if isinstance(place, Chart) else place
    mapping = Mapping(module, point.dtype, point.device, live=differentiable)
    mapping.check(point)
    return traced(mapping, place)


def traced(mapping: Mapping, at: Tensor | Chart) -> Graph:
    """The graph of a map in its working precision; a graph itself is taken as the map has it. See `recorded`."""
    if isinstance(mapping.mean, Graph):
        return mapping.mean
    with mapping.writing():
        graph = graphed(*recorded(mapping, at))
    graph.watch = mapping.watch
    if mapping.program is not None:
        graph.program = mapping.program.ended(leaf for _, leaf in graph.constants())
    assign(graph)
    return graph


def freeze(
    module: Callable[[Tensor], Tensor],
    at: Any,
    roles: Sequence[str] = ("pattern",),
    *,
    differentiable: bool = False,
) -> Graph:
    """`module` with the parts of some roles held at their values at the input `at`.

    The factor of a role (the attention pattern, the gate, the inverse scale of a norm) becomes a constant, and what it
    multiplies stays live; an activation becomes its tangent at `at`. So ungated attention with its pattern frozen is
    affine, and so is an MLP with its gate or activation frozen.

    **Args:** `module` and `at` as in `trace` (a graph can be frozen further); `roles` out of `pattern`,
    `attention_gate`, `norm`, `mlp_gate`, `activation`. What each is, docs/readings.md says. `differentiable`, as in
    `trace`: what is held is then what the live weights make of `at`, with its gradient.

    **Returns:** a `Graph`, callable like the module; `.held` lists what is held, with op, module and source line, and
    `.frozen` names the roles of which something is: a role that the module does not have is not among them.

    **Raises:** `InputError` for an unknown role, and what `trace` raises.

    >>> import torch, fisherflat as ff
    >>> layer, at = ff.layers.SelfAttention(4), torch.randn(3, 4)
    >>> frozen = ff.freeze(layer, at)
    >>> ff.certify(frozen, ff.charts.token(at, -1, torch.eye(4)[:2])).verdict
    'flat'
    """
    module = unwrapped(module)
    roles = (roles,) if isinstance(roles, str) else tuple(strings(roles, "roles"))
    for role in roles:
        if role not in ROLES or role == "other":
            raise InputError(f"{role!r} cannot be frozen; choose from {', '.join(ROLES[:-1])}")
    point = as_float64(at, "at")
    if isinstance(module, Graph) and module.live is not None and torch.equal(module.live.at, point):
        return freeze(module.live.graph, point, (*module.frozen, *roles))  # all at once, as it was live
    graph = trace(module, point, differentiable=differentiable)
    if graph.program is None:
        return _frozen(graph, point, roles)
    program = graph.program.ended(leaf for _, leaf in graph.constants())
    with program.written():
        found = _frozen(graph, point, roles)
    found.program = program.ended(leaf for _, leaf in found.constants())
    return found


def _frozen(graph: Graph, point: Tensor, roles: Sequence[str]) -> Graph:
    values = graph.values(point)
    flow, names = Flow(graph), dict(graph.names)
    constant: dict[Node, Any] = {}
    tangents: dict[Node, Tangent] = {}
    holdings = list(graph.holdings)

    def hold(node: Node, *stands: tuple[str, Tensor]) -> None:
        number = len(holdings) + 1
        names.update({id(tensor): f"held {number}{suffix}" for suffix, tensor in stands})
        constants = tuple(names[id(tensor)] for _, tensor in stands)
        made = flow.back(node, lambda n: n.packet in STRUCTURAL and flow.sources[n][:1] not in ([], [graph.input]))
        what = Held(made.op, made.module_path, made.source)
        holdings.append(Holding(node.role, node.index, what, constants))

    for node in held(graph, roles):
        constant[node] = values[node]
        hold(node, ("", values[node]))
    found = _tangents(graph, values) if "activation" in roles else {}
    for node in (node for node in ends(graph) if node in found):
        _, slope, intercept = tangents[node] = found[node]
        hold(node, (" slope", slope), (" intercept", intercept))
    nodes, output = fold(graph, constant, tangents)
    return Graph(nodes, output, names, tuple(holdings), live=Live(graph, point), watch=graph.watch)


def _tangents(graph: Graph, values: dict[Node, Any]) -> dict[Node, Tangent]:
    """The tangent of each activation at `values`, also where it is written out in several ops.

    An activation of infinite entries (a router's scores of experts that are not chosen) has none and stays live.
    """
    sources = moving(graph)
    entry = entries(graph, sources)
    tangents: dict[Node, Tangent] = {}
    slopes: dict[Node, Tensor] = {}
    for node in graph.nodes:
        x = entry[node]
        if x is node:
            continue
        slopes.setdefault(x, torch.ones_like(values[x]))
        slopes[node] = torch.zeros_like(values[x])
        for source, partial in _partials(node, sources[node], values).items():
            slopes[node] += partial * slopes[source]
        if node.role == "activation" and values[x].isfinite().all():
            tangents[node] = (x, slopes[node], values[node] - slopes[node] * values[x])
    return tangents


def _partials(node: Node, inputs: list[Node], values: dict[Node, Any]) -> dict[Node, Tensor]:
    """The derivative of a function of single entries by each of its inputs."""
    distinct = list(dict.fromkeys(inputs))

    def op(*moved: Tensor) -> Tensor:
        given = dict(zip(distinct, moved, strict=True))
        return run(node, lambda source: given.get(source, values[source]))

    value, pull = vjp(op, *(values[source] for source in distinct))[:2]
    return dict(zip(distinct, pull(torch.ones_like(value)), strict=True))
