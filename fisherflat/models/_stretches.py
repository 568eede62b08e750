"""Blocks that are no modules: stretches of one module's forward pass, from one hidden state to the next.

Some libraries keep a block as a list of its pieces, and add the residual in the forward pass of what holds the list:
`for norm, attention, mlp in self.layers: x = x + attention(norm(x)); x = x + mlp(x)`. Such a block begins when the
first of its pieces is given a hidden state, and ends when the first piece of the next one is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from fisherflat.errors import CheckpointError
from fisherflat.jets.recording import evaluating
from fisherflat.models._block_list import CONTAINERS
from fisherflat.models._recorded_calls import Arguments, Call, first_tensor, is_hidden, recording, rows_of

#: relative to the largest output: rounding, and nothing that a second way of the state would leave
TOLERANCE = 1e-8


class _Ended(Exception):
    """Raised when the state at the end of a stretch is there."""

    def __init__(self, state: Tensor) -> None:
        self.state = state


class _Instead(TorchFunctionMode):
    """Gives every operation one tensor in the place of another."""

    def __init__(self, new: Tensor | None) -> None:
        super().__init__()
        self.old: Tensor | None = None
        self._new = new

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.old is not None and self._new is not None:
            args, kwargs = tree_map(lambda leaf: self._new if leaf is self.old else leaf, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


class Moment:
    """When a module is called for the n-th time: what is its hidden state then.

    **Args:** `call`, as it was recorded; `calls`, all of them.
    """

    def __init__(self, call: Call, calls: Sequence[Call]) -> None:
        assert call.arguments is not None
        self.module = call.module
        self._number = [other for other in calls if other.module is call.module].index(call)
        leaves = tree_leaves(call.given)
        self._place = next(i for i, leaf in enumerate(leaves) if leaf is call.arguments.hidden)

    def hook(self, tell: Any) -> Any:
        """A hook that tells the state when it is there."""
        seen = 0

        def look(module: nn.Module, args: Any, kwargs: Any) -> None:
            nonlocal seen
            if seen == self._number:
                tell(tree_leaves((args, kwargs))[self._place])
            seen += 1

        return look


class Stretch(nn.Module):
    """What a module computes from one hidden state to another, as a map of the first.

    All else is as it was in a real forward pass. What comes before runs, too, and its result is not used.

    **Args:** `pieces`, the modules that run within; `holder`, the module that calls them, with its `given` arguments;
    `start`, `end`: the moments; without an end, what the holder returns.
    """

    def __init__(
        self, pieces: Mapping[str, nn.Module], holder: nn.Module, given: Any, start: Moment, end: Moment | None
    ) -> None:
        super().__init__()
        for path, piece in pieces.items():
            self.add_module(path.replace(".", "_"), piece)
        # a tuple, so that the rest of the model is no part of it
        self._run = (holder, given, start, end)

    def forward(self, x: Tensor) -> Tensor:
        """The state at the end, from that at the start."""
        return self._between(self._run[1], x)[1]

    def states(self, given: Any) -> tuple[Tensor, Tensor]:
        """The states at the start and at the end where the holder runs with other arguments."""
        return self._between(given, None)

    def _between(self, given: Any, x: Tensor | None) -> tuple[Tensor, Tensor]:
        holder, _, start, end = self._run
        instead, began = _Instead(x), []

        def begin(state: Tensor) -> None:
            began.append(state if x is None else x)
            instead.old = state

        def finish(state: Tensor) -> None:
            raise _Ended(x if x is not None and state is instead.old else state)

        args, kwargs = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, given)
        with ExitStack() as hooks:
            hooks.callback(start.module.register_forward_pre_hook(start.hook(begin), with_kwargs=True).remove)
            if end is not None:
                hooks.callback(end.module.register_forward_pre_hook(end.hook(finish), with_kwargs=True).remove)
            hooks.enter_context(instead)
            try:
                output = first_tensor(holder(*args, **kwargs), began[0] if began else None)
            except _Ended as ended:
                output = ended.state
        if output is None or not began:
            raise CheckpointError(f"{type(holder).__name__} did not run as it did when its blocks were found")
        return began[0], output


def pieces(member: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules in a container, and in containers in it, that may be called."""
    if isinstance(member, CONTAINERS):
        for name, child in member.named_children():
            yield from pieces(child, f"{path}.{name}")
    else:
        yield path, member


def find_stretches(holder: Call, members: Mapping[str, nn.Module], tokens: int) -> list[Call]:
    """The blocks of a list whose members are containers, as calls of stretches of what holds the list.

    **Args:** `holder`, a call of the module that runs the list; `members`, of the list, by path; `tokens`.

    **Returns:** them in order, empty where no hidden state is handed from one to the next, or something else is, too.
    """
    module, (args, kwargs) = holder.module, holder.given
    names = list(module.named_modules())[1:]
    with torch.no_grad(), evaluating(module), recording(names, tokens, copy=True) as calls:
        output = first_tensor(module(*args, **kwargs))
    below = {path: dict(pieces(member, path)) for path, member in members.items()}
    owner = {id(piece): path for path, inner in below.items() for piece in inner.values()}
    mine = [call for call in calls if id(call.module) in owner]
    given = [call for call in mine if call.arguments is not None]  # a hidden state
    kinds: dict[str, list[type]] = {owner[id(call.module)]: [] for call in given}
    for call in mine:
        kinds.setdefault(owner[id(call.module)], []).append(type(call.module))
    groups = _groups(kinds)
    firsts = {owner[id(call.module)]: call for call in reversed(given)}
    if not groups or any(group[0] not in firsts for group in groups):
        return []
    starts = [firsts[group[0]] for group in groups]
    width = _hidden(starts[0]).shape[-1]
    after = [call for call in calls if call.order > mine[-1].order and not any(call.inside(other) for other in mine)]
    following = [
        *starts[1:],
        *[call for call in after if call.arguments and is_hidden(_hidden(call), tokens, width)][:1],
    ]
    ends = [Moment(call, calls) for call in following]
    outputs = [*map(_hidden, following), output]
    found = []
    for i, (group, start) in enumerate(zip(groups, starts, strict=True)):
        inside = {path: piece for member in group for path, piece in below[member].items()}
        stretch = Stretch(inside, module, (args, kwargs), Moment(start, calls), ends[i] if i < len(ends) else None)
        state = _hidden(start)
        found.append(Call(group[0], stretch, Arguments((state,), {}, state, tokens), None, i, outputs[i]))
    return found if _hand_on(found, holder, tokens) else []


def _hidden(call: Call) -> Tensor:
    assert call.arguments is not None
    return call.arguments.hidden


def _groups(kinds: Mapping[str, list[type]]) -> list[list[str]]:
    """Members that make a block together: where attention and MLP are members of their own, they come in a pattern.

    **Args:** `kinds`: by path of each member, the classes of its modules as they are called.
    """
    found = list(kinds.values())
    period = next((p for p in range(1, len(found)) if all(found[i] == found[i % p] for i in range(len(found)))), None)
    groups: list[list[str]] = []
    for i, (path, kind) in enumerate(kinds.items()):
        if i % period == 0 if period else kind == found[0]:
            groups.append([])
        groups[-1].append(path)
    return groups


def _hand_on(found: Sequence[Call], holder: Call, tokens: int) -> bool:
    """Whether each stretch maps the states of another run, too: what it is given is all that it depends on."""
    if any(rows_of(call.output) != tokens or call.output.shape != _hidden(call).shape for call in found):  # type: ignore[union-attr]
        return False
    given = _elsewhere(holder)
    with torch.no_grad(), evaluating(holder.module):
        for call in found:
            stretch = call.module
            assert isinstance(stretch, Stretch)
            before, after = stretch.states(given)
            if not torch.allclose(stretch(before), after, rtol=0, atol=TOLERANCE * float(after.abs().max())):
                return False
    return True


def _elsewhere(holder: Call) -> Any:
    """Other arguments of the same kind: a hidden state that is moved, or token ids in another order."""
    if holder.arguments is not None:
        rows = holder.arguments.rows
        return holder.arguments.with_hidden(rows + rows.flip(-1))
    return tree_map(lambda leaf: leaf.flip(-1) if isinstance(leaf, Tensor) and leaf.dim() > 1 else leaf, holder.given)
