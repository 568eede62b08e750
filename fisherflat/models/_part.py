"""A part of a block as a map of hidden states."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from fisherflat._display import Card, displayed
from fisherflat._typing import Float
from fisherflat.errors import InputError, MapError
from fisherflat.jets.recording import alone, in_double
from fisherflat.models._recorded_calls import Arguments, first_tensor

#: what a block is analysed as: two of its parts, and the whole
PARTS = ("attention", "mlp", "block")


class _Reached(Exception):
    """Raised inside the module once the output of interest is there, so that nothing after it runs."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


@displayed
class Part(nn.Module):
    """A stretch of a real forward pass as a map `[n, d] -> [n, m]`, all else held at its captured value.

    `Block.attention`, `Block.mlp` and a `Block` itself are parts. With entries and an exit a part need not be a module
    of its own: a feed-forward layer written inline in a block runs from its first projection to its last.

    **Args:**

    - `root`: the module that runs; `arguments`: those that were captured.
    - `entries`: `(module, arguments)` of the submodules of `root` that the input is given to; empty for `root` itself.
      What comes before them is constant.
    - `exit`: the submodule whose output is the result; `None` for `root` itself. What comes after it does not run.

    >>> import fisherflat as ff
    >>> part = ff.load("python-llama").blocks("def mean(values):")[0].attention
    >>> part(part.input).shape == part.input.shape
    True
    """

    def __init__(
        self,
        root: nn.Module,
        arguments: Arguments,
        entries: tuple[tuple[nn.Module, Arguments], ...] = (),
        exit: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.root = root
        # tuples, so that the submodules of root are not registered a second time
        self.arguments, self._entries, self._exit = arguments, entries, (exit,)
        self._shape = (entries[0][1] if entries else arguments).rows.shape

    @property
    def input(self) -> Float[Tensor, "n d"]:
        """What entered this part in the real forward pass."""
        return (self._entries[0][1] if self._entries else self.arguments).rows

    def forward(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        """The part's output at `x`, without the batch axis."""
        if not isinstance(x, Tensor):
            raise InputError(f"a part takes a tensor {list(self._shape)} (tokens, width), got {type(x).__name__}")
        if x.shape != self._shape:
            raise InputError(f"this part takes {list(self._shape)} (tokens, width), as captured; got {list(x.shape)}")
        exit = self._exit[0]
        with ExitStack() as hooks:
            hooks.enter_context(alone)
            for module, arguments in self._entries:
                handle = module.register_forward_pre_hook(_give(arguments, x), with_kwargs=True)
                hooks.callback(handle.remove)
            if exit is not None:
                hooks.callback(exit.register_forward_hook(_stop).remove)
            args, kwargs = self.arguments.with_hidden(None if self._entries else x)
            hooks.enter_context(in_double(self.root))  # as in the forward pass that the arguments come from
            try:
                output = first_tensor(self.root(*args, **kwargs), None if self._entries else self.arguments.hidden)
            except _Reached as reached:
                output = reached.output
        if output is None:
            raise MapError(f"{type(self.root).__name__} returned no tensor")
        return output.reshape(self._shape[0], -1)

    def _card(self) -> Card:
        tokens, width = self._shape
        name = f"Block {self.index}" if hasattr(self, "index") else type(self).__name__
        return Card(name, {"of": type(self.root).__name__, "tokens": tokens, "width": width})


def _give(arguments: Arguments, x: Tensor) -> Callable[..., Any]:
    return lambda module, args, kwargs: arguments.with_hidden(x)


def _stop(module: nn.Module, args: Any, output: Any) -> None:
    raise _Reached(output)
