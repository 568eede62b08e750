"""The blocks of a model as they ran on one prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, SupportsIndex, overload

import torch
from torch import nn

from fisherflat._arrays import integer
from fisherflat._display import Card, displayed
from fisherflat._typing import Float, Tensor
from fisherflat.errors import CheckpointError, MapError, TraceError
from fisherflat.jets.graph import Graph
from fisherflat.jets.recording import evaluating
from fisherflat.models._heads import Heads
from fisherflat.models._part import Part
from fisherflat.models._recorded_calls import Arguments, is_state, recording
from fisherflat.models._sections import Section, Sections
from fisherflat.parts import halves, trace


@displayed
class Halves(NamedTuple):
    """A block as two maps `[n, d] -> [n, d]`, one after the other, of which each ends in a residual sum.

    **Attributes:** `first`, up to the residual sum of the attention; `second`, the rest.
    """

    first: Graph
    second: Graph


@displayed
class Blocks(Sequence):  # of Block, as its methods say; named here, a checker of types would make one
    """The blocks of a model as they ran on one prompt, made when they are taken out.

    `Model.blocks` makes one. A slice of it is such a sequence, too.

    **Args:**

    - `make`: makes the block of a layer; `layers`: which layers.
    - `keep`: whether a block that was made stays. Where the weights stay on disk only the last one does, so that the
      weights of others can go.

    >>> import fisherflat as ff
    >>> [block.index for block in ff.load("python-llama").blocks("def mean(values):")[1:3]]
    [1, 2]
    """

    def __init__(self, make: Callable[[int], Block], layers: range, keep: bool) -> None:
        self._make, self._layers, self._keep = make, layers, keep
        self._made: dict[int, Block] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_made": {}}  # they are made anew from what makes them

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Block]:
        return (self[layer] for layer in range(len(self)))

    @overload
    def __getitem__(self, index: SupportsIndex) -> Block: ...

    @overload
    def __getitem__(self, index: slice) -> Blocks: ...

    def __getitem__(self, index: SupportsIndex | slice) -> Block | Blocks:
        if isinstance(index, slice):
            return Blocks(self._make, self._layers[index], self._keep)
        index = integer(index, "the index of a block")
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} blocks, from 0; there is no block {index}")
        layer = self._layers[index]
        if layer not in self._made:
            if not self._keep:
                self._made.clear()
            self._made[layer] = self._make(layer)
        return self._made[layer]

    def _card(self) -> Card:
        which = f"{self._layers[0]} to {self._layers[-1]}" if len(self) else "none"
        return Card(f"{len(self)} blocks", {"layers": which})


class Block(Part):
    """A whole block, `[n, d] -> [n, d]`, and its parts, at the arguments of a real forward pass.

    **Attributes:**

    - `index`: its place in the stack, from 0.
    - `tokens`: those of the prompt, as text.
    - `sections`: where its parts lie, and whether its token mixer has an attention pattern.

    >>> import torch, fisherflat as ff
    >>> block = ff.load("python-llama").blocks("def mean(values):")[1]
    >>> block.index, block.hidden_states.shape[1], torch.equal(block(block.hidden_states), block(block.input))
    (1, 96, True)
    """

    def __init__(
        self, index: int, module: nn.Module, arguments: Arguments, sections: Sections, tokens: Sequence[str]
    ) -> None:
        super().__init__(module, arguments)
        self.index, self.sections, self.tokens = index, sections, list(tokens)
        self._parts = self._capture()  # in a dict, so that shared modules are not registered a second time

    @property
    def hidden_states(self) -> Float[Tensor, "n d"]:
        """What entered the block."""
        return self.input

    @property
    def attention(self) -> Part:
        """The token mixer with its output projection: no residual, no norm before or after it, all else held constant.

        **Raises:** `CheckpointError` where the block has none.
        """
        return self._part("attention")

    @property
    def attention_input(self) -> Float[Tensor, "n d"]:
        """What entered the attention (after the norm, in a pre-norm model)."""
        return self.attention.input

    @cached_property
    def heads(self) -> Heads:
        """What the heads of the attention compute before its output projection; see `Heads`.

        **Raises:** `CheckpointError` where the block has no attention, or no heads are found in it; `TraceError` where
        it cannot be traced.
        """
        return Heads(trace(self.attention, self.attention_input), self.attention_input)

    @property
    def mlp(self) -> Part:
        """The MLP (or the mixture of experts): no residual, no norm before or after it.

        **Raises:** `CheckpointError` where the block has none.
        """
        return self._part("mlp")

    @property
    def mlp_input(self) -> Float[Tensor, "n d"]:
        """What entered the MLP."""
        return self.mlp.input

    @cached_property
    def norms(self) -> dict[str, Part]:
        """The norms of hidden states by their path in the block, in the order in which they run.

        Norms that are modules; one inside a part, such as that of queries, maps `[n, heads · width]`.
        """
        leaves = [(path, module) for path, module in self.root.named_modules() if path and not _has_matrices(module)]
        with torch.no_grad(), evaluating(self), recording(leaves, tokens=self.input.shape[0], copy=True) as calls:
            self(self.input)
        found: dict[str, Part] = {}
        for call in calls:
            if call.arguments is not None and is_state(call.output, self.input.shape[0]):
                norm = Part(call.module, call.arguments)
                if call.path not in found and _is_norm(norm):
                    found[call.path] = norm
        return found

    @property
    def halves(self) -> Halves | None:
        """The block as two maps `[n, d] -> [n, d]`, one after the other: up to the attention's residual sum, the rest.

        `None` where the block does not come apart, as where attention and MLP run side by side. A depth profile can
        measure after every half.

        **Raises:** `TraceError` where the block cannot be traced.
        """
        found = halves(trace(self, self.input))
        return None if found is None else Halves(*found)

    def _part(self, name: str) -> Part:
        part = self._parts[name]
        if part is None:
            raise CheckpointError(
                f"no {name} part was found in block {self.index} ({type(self.root).__name__}); analyse the block as a "
                f"whole, or wrap the submodule you mean in a function of hidden states {list(self.input.shape)}"
            )
        return part

    def _capture(self) -> dict[str, Part | None]:
        """Replay the block once to capture the arguments of its parts."""
        sections: dict[str, Section | None] = {"attention": self.sections.attention, "mlp": self.sections.mlp}
        paths = {path for section in sections.values() if section for path in section.paths} - {""}
        modules = [(path, self.root.get_submodule(path)) for path in sorted(paths)]
        with torch.no_grad(), evaluating(self), recording(modules, tokens=self.input.shape[0], copy=True) as calls:
            self(self.input)
        captured = {"": self.arguments, **{call.path: call.arguments for call in calls}}
        return {
            name: section.part(self.root.get_submodule, captured.get) if section else None
            for name, section in sections.items()
        }


def _has_matrices(module: nn.Module) -> bool:
    return any(parameter.dim() > 1 for parameter in module.parameters())


def _is_norm(part: Part) -> bool:
    """Whether a part divides by the root of a mean square, and moves that alone."""
    try:
        graph = trace(part, part.input)
    except (TraceError, MapError):
        return False
    return {node.role for node in graph.nodes[1:]} >= {"norm"} and not any(
        node.role not in ("norm", "other") for node in graph.nodes
    )
