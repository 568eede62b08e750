"""What a block is made of, read from the graphs of its parts on one short prompt: gates, heads, norms, kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fisherflat._display import displayed
from fisherflat.errors import CheckpointError, FisherflatError, TraceError
from fisherflat.jets.graph import Graph, Node, getitem
from fisherflat.jets.ops import MATRIX_PRODUCTS, PROJECTIONS, STRUCTURAL
from fisherflat.models._blocks import Block
from fisherflat.models._heads import Heads
from fisherflat.models._sections import Section
from fisherflat.parts import activation_name, activation_names, choices, moving, readings, trace


@displayed
@dataclass(frozen=True)
class GateDescription:
    """A factor that multiplies something else that moves.

    **Attributes:**

    - `kind`: `attention` or `mlp`.
    - `position`: of an attention gate in the words of `fisherflat.layers.GATE_POSITIONS`, `value`, `output` or
      `projection` (`unknown` in a token mixer without a softmax); of an MLP gate `hidden`, on its hidden units, or
      `output`.
    - `granularity`: `elementwise`, `headwise` or `token`, a number for each entry, head or token.
    - `activation`: its function, `none` for a linear gate.
    - `source`: file and line of the product; `module`: the path of the submodule that multiplies.
    """

    kind: str
    position: str
    granularity: str
    activation: str
    source: str
    module: str


@displayed
@dataclass(frozen=True)
class NormDescription:
    """A norm of hidden states.

    **Attributes:**

    - `path`: of the norm in the block.
    - `kind`: `layer` (removes the mean) or `rms`.
    - `placement`: such as `before attention`.
    """

    path: str
    kind: str
    placement: str


@displayed
@dataclass(frozen=True)
class LayerDescription:
    """What one block is made of.

    **Attributes:**

    - `layer`: the number of the block, from 0.
    - `attention`: `softmax`, `sliding window (w)`, `latent`, `no softmax` (linear attention, a state space, a
      convolution) or `none`.
    - `mixer`: the class of the token mixer.
    - `heads`: how many heads the queries have; `value_heads`: how many different ones the values have; `None` where
      they cannot be told apart.
    - `gates`, `norms`: a description of each.
    - `mlp`: `plain`, `gated` or `bilinear`, with `experts (k of n)` where a router chooses some, or `none`;
      `activations`: its nonlinear functions.
    - `parameters`: how many the block has.
    - `readings`: for each part, those that make sense.
    - `unread`: what could not be read, and why.
    """

    layer: int
    attention: str
    mixer: str | None
    heads: int | None
    value_heads: int | None
    gates: tuple[GateDescription, ...]
    norms: tuple[NormDescription, ...]
    mlp: str
    activations: tuple[str, ...]
    parameters: int
    readings: dict[str, list[str]]
    unread: tuple[str, ...] = ()

    @classmethod
    def of(cls, plain: dict[str, Any]) -> LayerDescription:
        """The description that `dataclasses.asdict` and JSON made plain."""
        made: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in plain.items()}
        made["gates"] = tuple(GateDescription(**gate) for gate in plain["gates"])
        made["norms"] = tuple(NormDescription(**norm) for norm in plain["norms"])
        return cls(**made)


def describe(block: Block, config: Any = None) -> LayerDescription:
    """What a block is made of; `config`, of the model, is asked for the width of windows alone.

    A part that cannot be traced is in `unread`. Nothing is computed of its geometry.
    """
    unread: list[str] = []
    graphs: dict[str, Graph] = {}
    for name in ("attention", "mlp", "block"):
        try:
            part = block if name == "block" else getattr(block, name)
            graphs[name] = trace(part, part.input)
        except CheckpointError:
            continue  # there is no such part
        except (TraceError, FisherflatError) as error:
            unread.append(f"{name}: {error}")
    attention, mlp = graphs.get("attention"), graphs.get("mlp")
    heads = _heads(attention, block) if attention is not None and block.sections.softmax else None
    gates = [*_attention_gates(attention)] if attention is not None else []
    gates += _mlp_gates(mlp) if mlp is not None else []
    return LayerDescription(
        layer=block.index,
        attention=_attention_kind(block, attention, config),
        mixer=block.sections.mixer,
        heads=len(heads) if heads is not None else None,
        value_heads=_value_heads(attention, block) if attention is not None else None,
        gates=tuple(gates),
        norms=tuple(_norms(block, graphs.get("block"))),
        mlp=_mlp_kind(mlp, gates),
        activations=_activations(mlp) if mlp is not None else (),
        parameters=sum(parameter.numel() for parameter in block.root.parameters()),
        readings={name: readings.sensible(readings.present(graph)) for name, graph in graphs.items()},
        unread=tuple(unread),
    )


# -- attention ---------------------------------------------------------------------------------------------------------


def _heads(graph: Graph, block: Block) -> Heads | None:
    try:
        return Heads(graph, block.attention_input)
    except CheckpointError:
        return None


def _weighings(graph: Graph) -> list[Node]:
    """The products of patterns with values."""
    return [n for n in graph.nodes if n.role == "pattern" and not n.factor and n.packet in MATRIX_PRODUCTS]


def _values(graph: Graph, weighing: Node) -> Node | None:
    return next((node for node in weighing.inputs if node.role != "pattern"), None)


def _value_heads(graph: Graph, block: Block) -> int | None:
    """How many heads have values of their own: those that share them have equal ones."""
    found = _weighings(graph)
    values = _values(graph, found[0]) if found else None
    if values is None:
        return None
    heads = graph.values(block.attention_input)[values].flatten(0, -3)
    return len({tuple(head.flatten().tolist()) for head in heads}) if heads.dim() == 3 else None


def _attention_kind(block: Block, graph: Graph | None, config: Any) -> str:
    if block.sections.mixer is None:
        return "none"
    if not block.sections.softmax:
        return "no softmax"
    window = _window(block, config)
    kind = "softmax" if window is None else f"sliding window ({window})"
    return f"{kind}, latent" if graph is not None and _is_latent(graph) else kind


def _window(block: Block, config: Any) -> int | None:
    """A short prompt does not show the window, so the module is asked, and the configuration."""
    for module in block.root.modules():
        if isinstance(width := getattr(module, "sliding_window", None), int) and width > 0:
            return width
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    kinds = getattr(config, "layer_types", None)
    width = getattr(config, "sliding_window", None)
    named = isinstance(kinds, (list, tuple)) and block.index < len(kinds) and "sliding" in str(kinds[block.index])
    return width if named and isinstance(width, int) else None


def _is_latent(graph: Graph) -> bool:
    """Whether values are made in two steps, through a state that is narrower than what entered."""
    sources = moving(graph)
    for weighing in _weighings(graph):
        node, widths = _values(graph, weighing), []
        while node is not None and node is not graph.input:
            if node.packet in PROJECTIONS and len(sources[node]) == 1:
                widths.append(sources[node][0].shape[-1])
            # through a norm, along what it scales
            node = next((source for source in sources[node] if not source.factor), None)
        if len(widths) > 1 and widths[0] < graph.input.shape[-1]:
            return True
    return False


def _attention_gates(graph: Graph) -> list[GateDescription]:
    weighed = min((node.index for node in _weighings(graph)), default=None)
    gates = []
    for node in _products(graph, "attention_gate"):
        if weighed is None:
            position = "unknown"
        elif node.index < weighed:
            position = "value"
        else:
            position = "projection" if _is_projected(graph, node) else "output"
        gates.append(_gate("attention", position, graph, node))
    return gates


def _is_projected(graph: Graph, product: Node) -> bool:
    """Whether a projection lies between the weighing of values and a gate: on the way back along what is gated."""
    sources, weighings = moving(graph), _weighings(graph)
    node: Node | None = product
    while node is not None and node not in weighings:
        if node.packet in PROJECTIONS and len(sources[node]) == 1:
            return True
        node = next((source for source in sources[node] if not source.factor), None)
    return False


# -- MLP ---------------------------------------------------------------------------------------------------------------


def _mlp_gates(graph: Graph) -> list[GateDescription]:
    gates = []
    for node in _products(graph, "mlp_gate"):
        whole = node.shape[-1] == graph.shape[-1] and _granularity(node) == "token"
        gates.append(_gate("mlp", "output" if whole else "hidden", graph, node))
    return gates


def _mlp_kind(graph: Graph | None, gates: list[GateDescription]) -> str:
    if graph is None:
        return "none"
    units = [gate for gate in gates if gate.kind == "mlp" and gate.position == "hidden"]
    kind = "plain" if not units else "bilinear" if all(gate.activation == "none" for gate in units) else "gated"
    routed = choices(graph)
    if not routed:
        return kind
    # groups of experts may be chosen first
    chosen, among = max(((node.shape[-1], _among(node)) for node in routed), key=lambda pair: pair[1])
    return f"{kind}, experts ({chosen} of {among})"


def _among(choice: Node) -> int:
    """How many were to choose from."""
    chooser = choice.args[0] if choice.target is getitem else choice
    return int(chooser.inputs[0].shape[-1])


def _activations(graph: Graph) -> tuple[str, ...]:
    """The nonlinear functions of single entries in an MLP, without those of its router."""
    found = [
        activation_name(graph, _factor(node))
        for node in _products(graph, "mlp_gate")
        if node.shape[-1] == _factor(node).shape[-1]
    ]
    if not found:
        found = activation_names(graph)
    return tuple(dict.fromkeys(name for name in found if name != "none"))


# -- gates -------------------------------------------------------------------------------------------------------------


def _products(graph: Graph, role: str) -> list[Node]:
    return [node for node in graph.nodes if node.role == role and not node.factor]


def _gate(kind: str, position: str, graph: Graph, product: Node) -> GateDescription:
    return GateDescription(
        kind,
        position,
        _granularity(product),
        activation_name(graph, _factor(product)),
        product.source,
        product.module_path,
    )


def _factor(product: Node) -> Node:
    return next((node for node in product.inputs if node.factor), product.inputs[0])


def _granularity(product: Node) -> str:
    shape = tuple(_factor(product).shape)
    if shape[-1:] == tuple(product.shape[-1:]) and shape[-1] > 1:
        return "elementwise"
    return "headwise" if len(shape) > 3 and shape[-2] > 1 else "token"


# -- norms -------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _norms(block: Block, graph: Graph | None) -> list[NormDescription]:
    states = {"before attention": "attention_input", "before MLP": "mlp_input"}
    inputs: dict[str, torch.Tensor] = {}
    for placement, name in states.items():
        try:
            inputs[placement] = getattr(block, name)
        except CheckpointError:
            continue
    last = block(block.input)
    post = any(_same(norm(norm.input), last) for norm in block.norms.values())
    found = []
    for path, norm in block.norms.items():
        value = norm(norm.input)
        shifted = norm(norm.input + 1.0)
        kind = "layer" if torch.allclose(shifted, value, rtol=1e-4, atol=1e-4) else "rms"
        before = [p for p, entered in inputs.items() if _same(value, entered)]
        if len(before) > 1 and graph is not None:  # side by side, of one input, and perhaps with equal weights
            sides = {"before attention": block.sections.attention, "before MLP": block.sections.mlp}
            before = [p for p in before if _feeds(graph, path, sides[p])] or before
        placement = " and ".join(before).replace(" and before", " and")
        if post and _same(value, last):
            placement = "after MLP"
        elif post and placement == "before MLP":
            placement = "after attention"
        elif not placement:
            inside = any(s and s.root and path.startswith(f"{s.root}.") for s in (block.sections.attention,))
            placement = "within attention" if inside else _after(norm.input, block)
        found.append(NormDescription(path, kind, placement))
    return found


def _feeds(graph: Graph, path: str, part: Section | None) -> bool:
    """Whether what a norm makes enters a part as it is."""
    made = {node for node in graph.nodes if node.module_path == path}
    for node in graph.nodes:
        inside = part is not None and bool(part.root) and f"{node.module_path}.".startswith(f"{part.root}.")
        if made & set(node.inputs):
            if inside:
                return True
            if node.packet in STRUCTURAL:
                made.add(node)
    return False


def _after(entered: torch.Tensor, block: Block) -> str:
    for name in ("attention", "mlp"):
        try:
            part: Any = getattr(block, name)
        except CheckpointError:
            continue
        if _same(part(part.input), entered):
            return f"after {'MLP' if name == 'mlp' else name}"
    return "elsewhere"


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def parameters(module: nn.Module) -> int:
    """The number of parameters of a module, tied ones once."""
    return sum(parameter.numel() for parameter in module.parameters())
