"""What a model does with the states that its last block hands on: final norm, pooling, heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from fisherflat._typing import Float
from fisherflat.errors import CheckpointError
from fisherflat.jets.recording import alone, in_double, own
from fisherflat.models._recorded_calls import Call, first_tensor


class _Reached(Exception):
    """Raised where the tensor of interest is there, so that nothing after it runs."""

    def __init__(self, given: Tensor) -> None:
        self.given = given


class _Relay:
    """What the modules in place of the blocks hand on: the same object in all copies of them."""

    def __init__(self, count: int) -> None:
        self.count, self.calls = count, 0
        self.states: Any = None

    def next(self) -> bool:
        """Whether this is the last call of a block."""
        self.calls += 1
        return self.calls == self.count


class _Passed(nn.Module):
    """In place of a block: returns what the block returned, the last one with the states that are given instead."""

    def __init__(self, relay: _Relay, output: Any, hidden: Tensor) -> None:
        super().__init__()
        self._relay, self._output = relay, (output, hidden)  # in a tuple, so that they are neither copied nor weights

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The output as it was, or with other states."""
        output, hidden = self._output
        states = self._relay.states.reshape(hidden.shape) if self._relay.next() else hidden
        return tree_map(lambda leaf: states if leaf is hidden else leaf, output)


class Reach(nn.Module):
    """In place of a linear map whose input is wanted; models ask for the precision of its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = torch.zeros(1, dtype=torch.float64), None

    def forward(self, given: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """**Raises:** `_Reached`."""
        raise _Reached(given)


class Tail(nn.Module):
    """The map from the states `[n, d]` after the last block to what the model makes of them.

    **Args:**

    - `root`: the module that runs, of which a copy is taken; `call`: calls it, or a copy, on the prompt.
    - `calls`: those of its blocks on the prompt; `modules`: the blocks in `root`, one for each call; `outputs`: what
      the calls returned.
    - `instead`: modules in `root`, each with what stands in its place; behind a `Reach` nothing runs.

    >>> import fisherflat as ff
    >>> model = ff.load("python-llama")
    >>> last = model.blocks([1, 2, 3])[-1]
    >>> model.readout("next-token", [1, 2, 3]).lens(last(last.input)).shape  # behind the final norm
    torch.Size([3, 96])
    """

    def __init__(
        self,
        root: nn.Module,
        call: Callable[[nn.Module], Any],
        calls: Sequence[Call],
        modules: Sequence[nn.Module],
        outputs: Sequence[Any],
        instead: Sequence[tuple[nn.Module, nn.Module]] = (),
    ) -> None:
        super().__init__()
        relay = _Relay(len(calls))
        places = {id(module): path for path, module in root.named_modules()}
        self.root = own(root)
        for one, module, output in zip(calls, modules, outputs, strict=True):
            hidden = first_tensor(output, one.arguments.hidden if one.arguments else None)
            if hidden is None or id(module) not in places:
                raise CheckpointError("what follows the last block cannot be told apart from it in this model")
            _put(self.root, places[id(module)], _Passed(relay, output, hidden))
        for module, other in instead:
            _put(self.root, places[id(module)], other)
        self._relay, self._call = relay, (call,)

    def forward(self, states: Float[Tensor, "n d"]) -> Tensor:
        """The first tensor that the model returns, or what reaches the module, without a batch axis."""
        self._relay.calls, self._relay.states = 0, states
        with ExitStack() as stack:
            stack.enter_context(alone)
            stack.enter_context(in_double(self.root))
            try:
                found = first_tensor(self._call[0](self.root))
            except _Reached as reached:
                found = reached.given
            finally:
                self._relay.states = None
        if found is None:
            raise CheckpointError(f"{type(self.root).__name__} returned no tensor")
        return found[0] if found.dim() > 1 and found.shape[0] == 1 else found


def _put(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    root.get_submodule(parent)._modules[name] = module
