"""Finding a model's stack of blocks, in the calls of a real forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from fisherflat.errors import CheckpointError
from fisherflat.models._recorded_calls import Call, is_state, same_values

#: what holds modules and is not called itself
CONTAINERS = (nn.ModuleList, nn.ModuleDict)
#: in the place of a path: the module itself is the only block
ITSELF = "."


def lists_of_modules(root: nn.Module, path: str | None = None, wide: bool = False) -> dict[str, dict[str, nn.Module]]:
    """The lists of modules in `root` by path, each with its members by their paths; or the one at `path`.

    A list is a `ModuleList`, a `ModuleDict` or a `Sequential`. Where these are not the blocks, `wide` takes the
    children of one class of any other module for such a list, too, and `root` for the only block.

    **Raises:** `CheckpointError` where there is none at `path`.
    """
    found: dict[str, dict[str, nn.Module]] = {}
    for name, module in root.named_modules():
        children = dict(module.named_children())
        if not isinstance(module, (*CONTAINERS, nn.Sequential)):
            if not wide:
                continue
            kinds = [type(child) for child in children.values()]
            children = {key: child for key, child in children.items() if kinds.count(type(child)) > 1}
            children = {key: child for key, child in children.items() if not isinstance(child, CONTAINERS)}
        if children:
            found[name] = {f"{name}.{key}" if name else key: child for key, child in children.items()}
    if path is None:
        return found | ({ITSELF: {"": root}} if wide and not isinstance(root, CONTAINERS) else {})
    if path not in found:
        listed = [name for name in found if isinstance(root.get_submodule(name), (*CONTAINERS, nn.Sequential))]
        raise CheckpointError(f"{path!r} is not a list of modules; there are {sorted(listed)}")
    return {path: found[path]}


def find_stack(calls: Sequence[Call], lists: Mapping[str, Mapping[str, nn.Module]], tokens: int) -> list[Call]:
    """The calls of the members of one list: of those whose members hand hidden states on, the one with most weights.

    A single call gives way to several inside it that hold most of its weights. Empty where there is none.
    """
    stacks = [stack for members in lists.values() if weights(stack := _stack(members, calls, tokens))]
    whole = [stack for stack in stacks if stack[0].path == ""]
    stacks = [stack for stack in stacks if stack not in whole]
    found = max(stacks or whole, key=weights, default=[])
    if len(found) == 1:
        inside = [stack for stack in stacks if len(stack) > 1 and stack[0].path.startswith(f"{found[0].path}.")]
        largest = max(inside, key=weights, default=[])
        return largest if 2 * weights(largest) > weights(found) else found
    return found


def most_weights(lists: Mapping[str, Mapping[str, nn.Module]]) -> str | None:
    """The path of the list whose members have most weights: likely the blocks."""

    def held(path: str) -> int:
        return sum(parameter.numel() for module in lists[path].values() for parameter in module.parameters())

    return max((path for path in lists if len(lists[path]) > 1), key=held, default=next(iter(lists), None))


def list_of(stack: Sequence[Call], lists: Mapping[str, Mapping[str, nn.Module]]) -> str | None:
    """The path of the list that the members of a stack are of."""
    return next((path for path, members in lists.items() if stack and stack[0].path in members), None)


def _stack(members: Mapping[str, nn.Module], calls: Sequence[Call], tokens: int) -> list[Call]:
    """The calls of a list's members, if these hand hidden states of one width from one to the next.

    Of a sequence that embeds first and has a head at its end, those between.
    """
    runs: list[list[Call]] = [[]]
    for call in (call for call in calls if call.path in members):
        if call.arguments is None or not is_state(call.output, tokens, call.arguments.hidden.shape[-1]):
            runs.append([])
        elif runs[-1] and runs[-1][-1].arguments.hidden.shape != call.arguments.hidden.shape:  # type: ignore[union-attr]
            runs.append([call])
        else:
            runs[-1].append(call)
    mine = max(runs, key=weights)
    states = [call.arguments.hidden for call in mine if call.arguments]
    passed_on = [same_values(call.output, state) for call, state in zip(mine, states[1:], strict=False)]
    return mine if 2 * sum(passed_on) >= len(passed_on) else []


def weights(calls: Sequence[Call]) -> int:
    """How many numbers the modules of some calls hold."""
    return sum(parameter.numel() for module in {call.module for call in calls} for parameter in module.parameters())
