"""Finding a model's stack of blocks, in the calls of a real forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn

from fisherflat.errors import CheckpointError
from fisherflat.models._recorded_calls import Call, is_state, same_values


def lists_of_modules(root: nn.Module, path: str | None = None) -> dict[str, Sequence[nn.Module]]:
    """The lists of modules in `root` by path, or the one at `path`, which may also be a sequence.

    **Raises:** `CheckpointError` where there is none at `path`.
    """
    modules = dict(root.named_modules())
    kinds = nn.ModuleList if path is None else (nn.ModuleList, nn.Sequential)
    lists = {name: module for name, module in modules.items() if isinstance(module, kinds) and len(module)}
    if path is not None and path not in lists:
        raise CheckpointError(f"{path!r} is not a list of modules; there are {sorted(lists)}")
    return {name: list(iter(module)) for name, module in lists.items() if path in (None, name)}


def find_stack(calls: Sequence[Call], paths: Iterable[str], tokens: int) -> list[Call]:
    """The calls of the members of one list: of those whose members hand hidden states on, the one with most weights.

    Empty where there is none.
    """
    return max((_stack(path, calls, tokens) for path in paths), key=_weights, default=[])


def most_weights(lists: Mapping[str, Sequence[nn.Module]]) -> str | None:
    """The path of the list whose members have most weights: likely the blocks."""

    def weights(path: str) -> int:
        return sum(parameter.numel() for module in lists[path] for parameter in module.parameters())

    return max(lists, key=weights, default=None)


def _stack(path: str, calls: Sequence[Call], tokens: int) -> list[Call]:
    """The calls of a list's members, if these hand hidden states of one width from one to the next."""
    mine = [call for call in calls if call.path.rpartition(".")[0] == path]
    states = [call.arguments.hidden for call in mine if call.arguments]
    widths = {state.shape[-1] for state in states}
    if len(states) < len(mine) or len(widths) != 1 or not all(is_state(c.output, tokens, *widths) for c in mine):
        return []
    passed_on = [same_values(call.output, state) for call, state in zip(mine, states[1:], strict=False)]
    return mine if 2 * sum(passed_on) >= len(passed_on) else []


def _weights(calls: list[Call]) -> int:
    return sum(parameter.numel() for module in {call.module for call in calls} for parameter in module.parameters())
