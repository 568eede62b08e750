"""Feed-forward layers of checkpoints as key-value memories: what triggers a key, and what its value says.

Geva, Schuster, Berant, Levy, *Transformer Feed-Forward Layers Are Key-Value Memories* (arXiv 2012.14913). An MLP adds
`Σ_i m_i(x) v_i`: each memory i has a coefficient `m_i`, which depends on the input, and a fixed value `v_i`. In a plain
MLP, `m_i(x) = f(k_i·x + c_i)` with one key; in a gated MLP, which the paper does not treat, `m_i(x) = φ(g_i·x) (u_i·x)`
with two. There the sign of a coefficient means nothing, as (u, v) and (-u, -v) are the same unit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from fisherflat._arrays import as_float64
from fisherflat._display import displayed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import CheckpointError, InputError
from fisherflat.gated_mlp._extraction import (
    activation_name,
    activation_nodes,
    affine_map,
    as_activation,
    gated_units,
    units_of_graph,
)
from fisherflat.gated_mlp._units import GatedUnits
from fisherflat.jets.graph import Graph, Node
from fisherflat.layers import MLP_ACTIVATIONS, GatedMLP, KeyValueMemory
from fisherflat.models import Part, class_names
from fisherflat.parts import trace

if TYPE_CHECKING:
    import pandas as pd

    from fisherflat.models import Model

__all__ = ["Triggers", "coefficients", "extract", "strongest", "triggers", "unembedding", "value_tokens"]

#: relative; of the memories against the graph that they were extracted from
_TOLERANCE = 1e-9
#: how many numbers of the distributions over the vocabulary are in memory at a time
_CHUNK = 2**24


@displayed
class Triggers(NamedTuple):
    """The inputs that trigger each key most; see `strongest`.

    **Attributes:** `coefficients`, `[h, count]`, in order; `rows`, the inputs that they belong to, `[h, count]`.
    """

    coefficients: Tensor
    rows: Tensor


def extract(mlp: Any, at: Any = None) -> KeyValueMemory | GatedUnits:
    """The memories of an MLP, gated or not, extracted from its traced graph, in float64.

    **Args:**

    - `mlp`: `block.mlp` of a checkpoint, a layer, or any module or callable of the form `b + Σ_i m_i(x) v_i` above.
    - `at`: an input `[n, d]` to trace it at; not needed for the first and for `GatedMLP`.

    **Returns:** `KeyValueMemory` for a plain MLP, `GatedUnits` for a gated one. Both have `value` `[h, D]`.

    **Raises:** `InputError` where the MLP is neither; what `fisherflat.trace` raises.

    >>> import torch, fisherflat as ff
    >>> key, value = torch.randn(2, 4, 4, dtype=torch.float64)
    >>> memory = ff.memories.extract(lambda x: torch.relu(x @ key.T) @ value, torch.ones(2, 4))
    >>> memory.activation, torch.equal(memory.key, key)
    ('relu', True)
    """
    if isinstance(mlp, (GatedUnits, GatedMLP)):
        return gated_units(mlp)
    if isinstance(mlp, KeyValueMemory):
        return copy.deepcopy(mlp).double().requires_grad_(False)
    at = mlp.input if at is None and isinstance(mlp, Part) else at
    if at is None:
        raise InputError("this MLP has to be traced to be read; give an input [n, d] to trace it at")
    at = as_float64(at, "at")
    graph = trace(mlp, at)
    gated = any(node.role == "mlp_gate" for node in graph.nodes)
    return units_of_graph(graph, at) if gated else _plain(graph, at)


def coefficients(memory: KeyValueMemory | GatedUnits, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch h"]:
    """The memory coefficients `m_i(x)`: how much of each value the MLP adds at `x`.

    **Args:**

    - `memory`: from `extract`.
    - `x`: inputs `[*batch, d]`.

    **Returns:** `[*batch, h]`.

    **Raises:** `InputError` where the inputs are not of the memory's width.

    >>> import torch, fisherflat as ff
    >>> memory = ff.memories.extract(ff.layers.GatedMLP(4, 6))
    >>> ff.memories.coefficients(memory, torch.ones(3, 4)).shape
    torch.Size([3, 6])
    """
    with torch.no_grad():
        return memory.scores(x) if isinstance(memory, GatedUnits) else memory.coefficients(x.to(memory.key))


def strongest(memory: KeyValueMemory | GatedUnits, hidden: Float[Tensor, "m d"], count: int) -> Triggers:
    """The inputs that trigger each key most, among given ones.

    They are in order of the coefficient for a plain MLP, as in the paper, and of its absolute value for a gated one.

    **Args:**

    - `memory`: from `extract`.
    - `hidden`: what enters the MLP, `[m, d]`.
    - `count`: how many for each memory, at most m.

    **Returns:** `Triggers`: the coefficients, and the rows of `hidden` that they belong to.

    >>> import torch, fisherflat as ff
    >>> memory = ff.layers.KeyValueMemory(torch.eye(3).double(), torch.eye(3).double())
    >>> ff.memories.strongest(memory, torch.tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]), 1).rows
    tensor([[1],
            [0],
            [1]])
    """
    found = coefficients(memory, hidden.double()).T
    rows = _leading(memory, found, count)
    return Triggers(found.gather(1, rows), rows)


def triggers(model: Model, prompts: Any, layer: int, *, count: int = 10, special: bool = False) -> pd.DataFrame:
    """The tokens that trigger each key of one layer most, over all tokens of the prompts, in the order of `strongest`.

    **Args:**

    - `model`: from `fisherflat.load`.
    - `prompts`: a text, token ids, or a list of such prompts.
    - `layer`: from 0; negative ones count from the end.
    - `count`: how many triggers for each key.
    - `special`: whether special tokens, such as [CLS], count.

    **Returns:** a table with a row for each memory and rank: `memory`, `rank` from 1, `coefficient`, `prompt` (its
    index), `position`, `token`.

    **Raises:** `InputError` where there is no such layer or no token left; what `Model.blocks` and `extract` raise.

    >>> import fisherflat as ff
    >>> table = ff.memories.triggers(ff.load("python-llama"), "def mean(values):", layer=-1, count=2)
    >>> list(table.columns)
    ['memory', 'rank', 'coefficient', 'prompt', 'position', 'token']
    """
    import pandas as pd

    several = isinstance(prompts, list) and not all(isinstance(item, int) for item in prompts)
    memory: KeyValueMemory | GatedUnits | None = None
    where: list[tuple[int, int, str]] = []
    best, numbers = torch.empty(0, 0), torch.empty(0, 0)
    for index, given in enumerate(prompts if several else [prompts]):
        prompt = model.encode(given)
        blocks = model.blocks(prompt)
        if not -len(blocks) <= layer < len(blocks):
            raise InputError(f"there is no layer {layer}; {model.name} has {len(blocks)} blocks, from 0")
        mlp = blocks[layer].mlp
        memory = extract(mlp) if memory is None else memory
        kept = [i for i in range(len(prompt.tokens)) if special or not prompt.special[i]]
        found, rows = (part.cpu() for part in strongest(memory, mlp.input[kept], count))
        rows += len(where)
        where += [(index, i, prompt.tokens[i]) for i in kept]
        if index:
            found, rows = torch.cat([best, found], 1), torch.cat([numbers, rows], 1)
            chosen = _leading(memory, found, count)
            found, rows = found.gather(1, chosen), rows.gather(1, chosen)
        best, numbers = found, rows
    if not where:
        raise InputError("the prompts hold only special tokens; pass special=True to count them")
    table = pd.DataFrame([where[row] for row in numbers.flatten().tolist()], columns=["prompt", "position", "token"])
    for place, (name, column) in enumerate(_ranks(best).items()):
        table.insert(place, name, column)
    table.insert(2, "coefficient", best.flatten().numpy())
    return table


def value_tokens(
    memory: KeyValueMemory | GatedUnits,
    unembedding: Float[Tensor, "vocabulary D"],
    *,
    count: int = 10,
    tokens: Sequence[str] | None = None,
) -> pd.DataFrame:
    """What each value says when it is projected onto the vocabulary: the tokens of largest `softmax(E v_i)`.

    This is what the paper does: no final norm is applied, and a probability here is not a prediction of the model.

    **Args:**

    - `memory`: from `extract`.
    - `unembedding`: E, `[vocabulary, D]`, from the function of that name.
    - `count`: how many tokens for each value.
    - `tokens`: the vocabulary as text.

    **Returns:** a table with a row for each memory and rank: `memory`, `rank` from 1, `id`, `probability` and, with
    `tokens`, `token`.

    **Raises:** `InputError` where the unembedding does not fit the values.

    >>> import torch, fisherflat as ff
    >>> memory = ff.layers.KeyValueMemory(torch.eye(2), torch.eye(2))
    >>> list(ff.memories.value_tokens(memory, torch.eye(2), count=1, tokens=["a", "b"])["token"])
    ['a', 'b']
    """
    import pandas as pd

    value, head = memory.value.detach(), as_float64(unembedding, "unembedding")
    if head.dim() != 2 or head.shape[1] != value.shape[1]:
        raise InputError(
            f"values of width {value.shape[1]} need an unembedding [vocabulary, {value.shape[1]}], "
            f"got {list(head.shape)}"
        )
    tops = [
        (part @ head.T).softmax(-1).topk(min(count, len(head)), -1)
        for part in value.to(head).split(max(1, _CHUNK // len(head)))
    ]
    probability, ids = (torch.cat(parts).cpu() for parts in zip(*tops, strict=True))
    columns: dict[str, Any] = {
        **_ranks(ids),
        "id": ids.flatten().numpy(),
        "probability": probability.flatten().numpy(),
    }
    if tokens is not None:
        columns["token"] = [tokens[i] for i in ids.flatten().tolist()]
    return pd.DataFrame(columns)


def unembedding(model: Model) -> Float[Tensor, "vocabulary D"]:
    """The matrix E of a model's head, in float64: its output embeddings, or input embeddings that are tied to them.

    **Args:**

    - `model`: from `fisherflat.load`.

    **Returns:** E, `[vocabulary, D]`.

    **Raises:** `CheckpointError` where there is none, as in encoders without a language head, or where it was not
    loaded.

    >>> import fisherflat as ff
    >>> ff.memories.unembedding(ff.load("python-llama")).shape
    torch.Size([1024, 96])
    """
    module: Any = model.module
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    output = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    causal = any(name.endswith("ForCausalLM") for name in class_names(model.config))
    if output is None and causal and getattr(config, "tie_word_embeddings", False):
        output = module.get_input_embeddings()
    if output is None or not isinstance(getattr(output, "weight", None), Tensor):
        raise CheckpointError(
            f"{model.name} has no unembedding here: it is an encoder without a language head, or its head is a weight "
            "of its own, which is not loaded; give value_tokens the matrix [vocabulary, width] yourself, such as "
            "lm_head.weight of the checkpoint's files"
        )
    weight = output.weight.detach()
    if weight.is_meta or weight[:1].isnan().any():  # the place of a table that is on disk
        raise CheckpointError(f"the embeddings of {model.name} were left on disk; load it with lazy=False")
    return weight.double()


def _leading(memory: KeyValueMemory | GatedUnits, found: Tensor, count: int) -> Tensor:
    """The places of the largest coefficients of each memory, in order."""
    size = found.abs() if isinstance(memory, GatedUnits) else found
    return size.topk(min(count, size.shape[1]), 1).indices


def _ranks(ordered: Tensor) -> dict[str, Any]:
    """The columns that say which memory and rank the entries of a matrix are for."""
    memories, ranks = ordered.shape
    return {
        "memory": torch.arange(memories).repeat_interleave(ranks).numpy(),
        "rank": torch.arange(1, ranks + 1).repeat(memories).numpy(),
    }


def _plain(graph: Graph, at: Tensor) -> KeyValueMemory:
    """The memories of a graph `[n, d] -> [n, D]` with one activation between two affine maps of each token."""
    last = [node for node in graph.nodes if node.role == "activation"]
    if not last or not isinstance(graph.output, Node):
        raise _other("it has no activation")
    try:
        before, chain = activation_nodes(graph, last[-1])
        key, key_bias = affine_map(graph, graph.input, before, len(at))
        value, value_bias = affine_map(graph, last[-1], graph.output, len(at))
        name = activation_name(chain)
        memory = KeyValueMemory(
            key.T,
            value,
            name if name in MLP_ACTIVATIONS else as_activation(before, last[-1], chain),
            key_bias=key_bias if key_bias.any() else None,
            value_bias=value_bias if value_bias.any() else None,
        )
    except (InputError, RuntimeError) as error:
        raise _other("there is more between its input and its output than one activation") from error
    for x in (at, at.roll(1, -1)):
        expected = graph(x).detach()
        change = (memory(x).detach().reshape(expected.shape) - expected).abs().max()
        if not change <= _TOLERANCE * expected.abs().max():
            raise _other(f"the memories extracted from it differ by {change.item():.1e}")
    return memory.requires_grad_(False)


def _other(what: str) -> InputError:
    return InputError(
        f"this MLP is neither gated nor of the form b + Σ_i v_i f(k_i·x + c_i): {what}; give the part that is, such as "
        "one expert of a mixture"
    )
