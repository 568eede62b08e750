"""The weights of a gated MLP, extracted from its traced graph: from structure and values, never from names."""

from __future__ import annotations

from typing import Any

import torch
from torch.func import jvp, vmap
from torch.utils._pytree import tree_flatten

from fisherflat._arrays import as_float64
from fisherflat._typing import Tensor
from fisherflat.errors import InputError
from fisherflat.gated_mlp._units import GatedUnits
from fisherflat.jets.graph import Graph, Node, run
from fisherflat.jets.ops import SCALING
from fisherflat.layers import Activation, GatedMLP
from fisherflat.parts import entries, moving, structure, trace

aten = torch.ops.aten

_PRODUCTS = {aten.mm, aten.addmm}
#: relative; of the units against the graph that they were read from
_TOLERANCE = 1e-9
#: rows that are pushed through a derivative at a time
_TOGETHER = 1024


def gated_units(mlp: Any, at: Any = None) -> GatedUnits:
    """The units of any gated MLP.

    **Args:**

    - `mlp`: a `fisherflat.layers.GatedMLP`, `block.mlp` of a checkpoint, or any module or callable that is a gated MLP,
      with a projection each for gate and up or one for both: its weights are extracted from its traced graph.
      `GatedUnits` are returned as they are.
    - `at`: an input to trace it at, `[n, d]`; not needed for the first two.

    **Returns:** `GatedUnits`, in float64.

    **Raises:** `InputError` where the MLP is not gated, or is not of the form `b + Σ_i v_i φ(g_i·x) (u_i·x)`; what
    `fisherflat.trace` raises.

    >>> import torch, fisherflat as ff
    >>> gate, up, down = torch.randn(3, 5, 5, dtype=torch.float64)
    >>> units = ff.symmetry.gated_units(lambda x: (torch.tanh(x @ gate) * (x @ up)) @ down, torch.ones(2, 5))
    >>> units.name, torch.equal(units.gate, gate.T)
    ('tanh', True)
    """
    if isinstance(mlp, GatedUnits):
        return mlp
    if isinstance(mlp, GatedMLP):
        return GatedUnits.of_layer(mlp)
    captured = getattr(mlp, "input", None)  # of a part of a checkpoint, which takes that shape alone
    at = captured if isinstance(captured, Tensor) else at
    if at is None:
        raise InputError("this MLP has to be traced to be read; give an input [n, d] to trace it at")
    at = as_float64(at, "at")
    return units_of_graph(trace(mlp, at), at)


def units_of_graph(graph: Graph, at: Tensor) -> GatedUnits:
    """The units of a graph `[n, d] -> [n, D]`.

    The two factors of the gate's product are followed back to their pre-activations. The maps from the input to those,
    and from the product to the output, are differentiated; what was read is then compared with the graph itself at `at`
    and at another point, so that a map of another form is refused.

    **Raises:** `InputError` where there is no gate, more than one, or the map is not that of the units.
    """
    product = _product(graph)
    gate, up = sorted(product.inputs, key=lambda node: not node.factor)
    before, chain = activation_nodes(graph, gate)
    tokens = at.shape[0]
    if at.dim() != 2 or not before.shape == up.shape == product.shape or product.shape[-1] * tokens != _size(product):
        raise _other(f"the factors of its gate have the shapes {list(before.shape)} and {list(up.shape)}")
    if not isinstance(graph.output, Node):
        raise _other("its output is constant")
    _check_affine(graph, (before, up), product, graph.output)
    gate_weight, gate_bias = affine_map(graph, graph.input, before, tokens)
    up_weight, up_bias = affine_map(graph, graph.input, up, tokens)
    value, bias = affine_map(graph, product, graph.output, tokens)
    if gate_bias.any() or up_bias.any():
        gate_weight, up_weight = (torch.cat([w, b[None]]) for w, b in ((gate_weight, gate_bias), (up_weight, up_bias)))
    units = GatedUnits(
        gate_weight.T,
        up_weight.T,
        value,
        as_activation(before, gate, chain),
        activation_name(chain),
        len(gate_weight) > at.shape[1],
        bias if bias.any() else None,
    )
    _check(units, graph, at)
    return units


def _product(graph: Graph) -> Node:
    products = [n for n in graph.nodes if n.role == "mlp_gate" and not n.factor]
    if not products:
        raise InputError(
            "this MLP is not gated: in its graph no product of two factors that both move was found, so that it has no "
            "query and key factor to exchange; print(fisherflat.trace(mlp, at)) shows what it does"
        )
    if len(products) > 1 or products[0].packet is not aten.mul or len(set(products[0].inputs)) != 2:
        raise _other(
            f"{len(products)} products were found where one of a gate and a linear factor is expected; give the part "
            "that is, such as one expert of a mixture"
        )
    return products[0]


def _other(what: str) -> InputError:
    return InputError(f"this gated MLP is not of the form b + Σ_i v_i φ(g_i·x) (u_i·x): {what}")


def _check_affine(graph: Graph, factors: tuple[Node, Node], product: Node, output: Node) -> None:
    """By structure, as numbers at a few inputs do not show a clamp far away."""
    for start, end in (*((graph.input, factor) for factor in factors), (product, output)):
        orders = structure.read(graph, start).orders
        if orders[end] < 2:
            continue
        bent = next(node for node in _between(graph, start, end) if orders[node] == 2)
        what = {"norm": "a norm", "activation": "an activation"}.get(bent.role, "a nonlinear op")
        where = "product and its output" if start is product else "input and a factor of its product"
        place = f" in {bent.module_path!r}" if bent.module_path else ""
        raise _other(f"{what} ({bent.op}{place}) lies between its {where}")


def activation_nodes(graph: Graph, gate: Node) -> tuple[Node, list[Node]]:
    """The last node before the activation, and the nodes of the activation in order, `gate` the last of them."""
    entry = entries(graph, moving(graph))
    start = entry[gate]
    inside, stack = {gate}, [gate]
    while stack:
        for source in stack.pop().inputs:
            if source not in inside and source is not start and entry[source] is start:
                inside.add(source)
                stack.append(source)
    inside.discard(start)
    # a bias or a scale after the matrix product belongs to the pre-activation
    while len(first := [node for node in inside if start in node.inputs]) == 1:
        node = first[0]
        if (
            node.packet not in SCALING
            or len(node.inputs) != 1
            or (node.packet is aten.div and node.args[0] is not start)
        ):
            break
        inside.discard(node)
        start = node
    return start, [node for node in graph.nodes if node in inside]


def as_activation(before: Node, gate: Node, chain: list[Node]) -> Activation:
    """The nodes of an activation as a function of one tensor, of any shape."""
    if any(
        isinstance(leaf, Tensor) and leaf.numel() > 1 for n in chain for leaf in tree_flatten((n.args, n.kwargs))[0]
    ):
        raise _other("its activation is not the same for all units")

    def activation(z: Tensor) -> Tensor:
        values = {before: z}
        for node in chain:
            values[node] = run(node, values.__getitem__)
        return values[gate]

    return activation


def activation_name(chain: list[Node]) -> str:
    """What an activation is called, or its ops where it has no name."""
    ops = [node.packet for node in chain]
    if not ops:
        return "identity"
    if ops == [aten.gelu]:
        tanh = "tanh" in (*chain[0].args, *chain[0].kwargs.values())
        return "gelu_tanh" if tanh else "gelu"
    squared = len(ops) == 2 and ops[0] is aten.relu and (ops[1] is aten.square or chain[1].args[1:] == (2,))
    if squared and ops[1] in (aten.square, aten.pow):
        return "relu2"
    return " ".join(map(_called, chain))


def _called(node: Node) -> str:
    """The op of a node, with the numbers in which its call differs from the op without any: `softplus(beta=2.0)`."""
    name = str(node.packet).removeprefix("aten.")
    defaults = {argument.name: argument.default_value for argument in node.target._schema.arguments}
    given = {**dict(zip(defaults, node.args, strict=False)), **node.kwargs}
    own = {key: value for key, value in given.items() if not isinstance(value, Node) and value != defaults[key]}
    return f"{name}({', '.join(f'{key}={value}' for key, value in own.items())})" if own else name


def _between(graph: Graph, start: Node, end: Node) -> list[Node]:
    """The nodes by which `end` depends on `start`, in order of execution."""
    needed, stack = {end}, [end]
    while stack:
        node = stack.pop()
        if node is graph.input and node is not start:
            raise _other("its output depends on its input by another way than the gate's product")
        for source in node.inputs if node is not start else ():
            if source not in needed:
                needed.add(source)
                stack.append(source)
    return [node for node in graph.nodes if node in needed and node is not start]


def affine_map(graph: Graph, start: Node, end: Node, tokens: int) -> tuple[Tensor, Tensor]:
    """Weight `[n, m]` and bias `[m]` of the map between two nodes, which is affine in each token alone.

    Where the map begins with a matrix product the weight is that matrix, as whatever follows changes it: reshapes do
    not, and through the rest its rows are pushed by the derivative, in place of as many tokens as there are. Where it
    does not, these are the rows of the identity. The weights come out without rounding, because nothing is added to
    them but zeros.
    """
    inside = _between(graph, start, end)
    zero, rows = torch.zeros(tuple(start.shape), dtype=torch.float64), None
    while inside and len(first := [node for node in inside if start in node.inputs]) == 1:
        node = first[0]
        matrix = _matrix(node, start) if rows is None else None
        if matrix is not None:
            rows = matrix
        elif node.packet is not aten.reshape or (tokens > 1 and node.shape[-1] != start.shape[-1]):
            break
        zero, start = run(node, {start: zero}.__getitem__), node
        inside.remove(node)
    if rows is None:
        rows = torch.eye(_size(start) // tokens, dtype=torch.float64)
    if not inside:
        return rows.clone(), zero.reshape(tokens, -1)[0]

    def function(x: Tensor) -> Tensor:
        values = {start: x}
        for node in inside:
            values[node] = run(node, values.__getitem__)
        return values[end].reshape(tokens, -1)

    directions = torch.cat([rows, rows.new_zeros(-len(rows) % tokens, rows.shape[1])]).reshape(-1, *zero.shape)
    slopes = vmap(lambda direction: jvp(function, (zero,), (direction,))[1], chunk_size=1 + _TOGETHER // tokens)
    return slopes(directions).flatten(0, 1)[: len(rows)].detach(), function(zero)[0].detach()


def _matrix(node: Node, start: Node) -> Tensor | None:
    """The matrix `[n, m]` that a node multiplies the rows of `start` by, where it does no more than that."""
    left, right = node.args[-2:] if len(node.args) > 1 else (None, None)
    if node.kwargs or len(node.inputs) > 1:
        return None
    if node.packet in _PRODUCTS and left is start:
        return right
    if node.packet is aten.bmm and left is start and tuple(start.shape[:2]) == (1, 1):
        return right[0]
    if node.packet is aten.bmm and right is start and start.shape[::2] == (1, 1):
        return left[0].T
    return None


def _check(units: GatedUnits, graph: Graph, at: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    other = torch.randn(at.shape, generator=generator, dtype=at.dtype) * at.square().mean().sqrt().clamp(min=1)
    for x in (at, other):
        expected = graph(x).detach()
        change = (units(x).reshape(expected.shape) - expected).abs().max()
        if not change <= _TOLERANCE * expected.abs().max():
            raise _other(f"the units read from it differ by {change.item():.1e} from {expected.abs().max().item():.1e}")


def _size(node: Node) -> int:
    size = 1
    for length in node.shape:
        size *= length
    return size
