"""The name of an activation, also of one that is written out in several ops: by its values, not by its ops."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional as F

from fisherflat._typing import Tensor
from fisherflat.jets.graph import Graph, Node, getitem, leaves, run
from fisherflat.jets.ops import OPS, PROJECTIONS, SCALING, STRUCTURAL, UNARY
from fisherflat.layers import MLP_ACTIVATIONS
from fisherflat.parts._flow import Flow

aten = torch.ops.aten

#: those that gates and MLPs are known to use, in the order in which they are tried
_KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: function for name, function in MLP_ACTIVATIONS.items() if name != "identity"},
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "quick_gelu": lambda z: z * torch.sigmoid(1.702 * z),
    "mish": F.mish,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softsign": F.softsign,
    "logsigmoid": F.logsigmoid,
    "exp": torch.exp,
    "square": torch.square,
}
#: where two functions are compared: near zero, and far out
_AT = torch.cat([torch.linspace(-8, 8, 129), torch.tensor([-40.0, -20.0, -1e-3, 1e-3, 20.0, 40.0])]).double()
#: relative; constants of published formulas are rounded
_TOLERANCE = 1e-7


def activation_name(graph: Graph, node: Node) -> str:
    """The function of single entries that a node ends in: `none` where it is linear.

    Moves and scales by constants before and behind it do not count. One that equals none of the usual functions has the
    names of its ops.
    """
    flow = Flow(graph)
    while not flow.is_pointwise(node) and node.packet not in UNARY | PROJECTIONS and len(set(flow.sources[node])) == 1:
        if not (node.packet in STRUCTURAL | SCALING or node.target is getitem):
            break
        node = flow.sources[node][0]
    if not flow.is_pointwise(node):
        linear = node.packet in PROJECTIONS or node is graph.input
        return "none" if linear else _op(node)
    start, chain = _chain(flow, node)
    if all(leaf.numel() == 1 for n in chain for leaf in leaves((n.args, n.kwargs)) if isinstance(leaf, Tensor)):
        values = _values(start, chain)
        for name, function in _KNOWN.items():
            expected = function(_AT)
            scale = (values @ expected) / (expected @ expected)
            if scale and torch.allclose(values / scale, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
                return name
    nonlinear = [n for n in chain if n.packet in UNARY or n.packet is aten.pow]
    return " ".join(dict.fromkeys(map(_op, nonlinear or chain)))


def activation_names(graph: Graph) -> list[str]:
    """The names of all activations of a graph, in order: each once, however many ops it has."""
    return list(dict.fromkeys(activation_name(graph, node) for node in ends(graph)))


def ends(graph: Graph) -> list[Node]:
    """The last node of each activation: of several ops that write one out, that which something else reads."""
    flow = Flow(graph)
    within: set[Node] = set()
    for node in reversed(graph.nodes):
        users = [user for user in flow.users[node] if flow.entry[user] is flow.entry[node]]
        whole = users and len(users) == len(flow.users[node]) and node is not graph.output
        if whole and all(user.role == "activation" or user in within for user in users):
            within.add(node)
    return [node for node in graph.nodes if node.role == "activation" and node not in within]


def _op(node: Node) -> str:
    return OPS[node.packet].name if node.packet in OPS else str(node.packet).removeprefix("aten.")


def _chain(flow: Flow, node: Node) -> tuple[Node, list[Node]]:
    """The node that an activation is a function of, and the nodes from there on, in order."""
    start = flow.entry[node]
    inside, stack = {node}, [node]
    while stack:
        for source in flow.sources[stack.pop()]:
            if source is not start and source not in inside:
                inside.add(source)
                stack.append(source)
    # a bias or a scale in front belongs to what is activated
    while len(first := [n for n in inside if start in n.inputs]) == 1 and flow.is_scaling(first[0]):
        if first[0] is node:
            break
        (start,) = first
        inside.discard(start)
    return start, sorted(inside, key=lambda n: n.index)


def _values(start: Node, chain: list[Node]) -> Tensor:
    values = {start: _AT}
    for node in chain:
        values[node] = run(node, values.__getitem__)
    return values[chain[-1]]
