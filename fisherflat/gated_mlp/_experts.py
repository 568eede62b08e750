"""The gated MLPs inside a mixture of experts, each with the routing fixed to it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from fisherflat._display import displayed
from fisherflat._typing import Float, Tensor
from fisherflat.jets.recording import alone

if TYPE_CHECKING:
    from fisherflat.models import Part


@displayed
class Expert(nn.Module):
    """One expert of a mixture as a map of hidden states, with weight 1 and whatever the router says.

    `experts` makes them.

    **Args:**

    - `mixture`: the module that holds the experts. It takes states `[n, d]`, the numbers of the chosen experts `[n, k]`
      and their weights `[n, k]`.
    - `index`: which expert this is.
    - `routed`: the states that the router gave it, `[m, d]`; `states`: all states, `[n, d]`.

    >>> import torch, fisherflat as ff
    >>> class Mixture(torch.nn.Module):
    ...     def forward(self, states, chosen, weights):
    ...         return (chosen + 1) * weights * states
    >>> expert = ff.symmetry.Expert(Mixture(), 1, torch.ones(2, 3), torch.ones(4, 3))
    >>> expert(torch.ones(1, 3))
    tensor([[2., 2., 2.]])
    """

    def __init__(self, mixture: nn.Module, index: int, routed: Tensor, states: Tensor) -> None:
        super().__init__()
        self._mixture, self.index, self.routed = (mixture,), index, routed  # a tuple: not registered a second time
        #: a state to trace the map at
        self.input: Float[Tensor, "1 d"] = states[:1]

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The expert's output."""
        index = torch.full((len(x), 1), self.index, device=x.device)
        return self._mixture[0](x, index, torch.ones(len(x), 1, dtype=x.dtype, device=x.device))


def experts(mlp: Part) -> list[Expert]:
    """The experts of an MLP; none where it is not a mixture.

    A mixture is known by how it is called: with states `[n, d]`, and for each of them the numbers and the weights of
    some experts, `[n, k]` integers and `[n, k]` floats. It runs once, at the MLP's own input. Experts that all tokens
    share, and the router, are not among them.

    **Args:**

    - `mlp`: `block.mlp` of a checkpoint.

    **Returns:** a list of `Expert`, in the order of their numbers.

    >>> import fisherflat as ff
    >>> ff.symmetry.experts(ff.load("python-llama").blocks("def mean(values):")[0].mlp)  # a plain gated MLP
    []
    """
    calls: list[tuple[nn.Module, list[Tensor]]] = []

    def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if _is_routed(tensors):
            calls.append((module, tensors))

    with alone, ExitStack() as hooks, torch.no_grad():
        for module in mlp.modules():
            hooks.callback(module.register_forward_hook(note, with_kwargs=True).remove)
        mlp(mlp.input)
    if not calls:
        return []
    mixture, (states, chosen, _) = calls[0]
    count = {parameter.shape[0] for parameter in mixture.parameters() if parameter.dim() == 3}
    if len(count) != 1:
        return []
    return [
        Expert(mixture, index, states[(chosen == index).any(1)].detach(), states.detach()) for index in range(*count)
    ]


def _is_routed(tensors: list[Tensor]) -> bool:
    if len(tensors) != 3 or any(tensor.dim() != 2 for tensor in tensors):
        return False
    states, chosen, weights = tensors
    return (
        states.is_floating_point()
        and weights.is_floating_point()
        and chosen.dtype == torch.long
        and len(states) == len(chosen)
        and chosen.shape == weights.shape
    )
