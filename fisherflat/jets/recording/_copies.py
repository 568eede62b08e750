"""A copy of a tree of modules to call in its place."""

from __future__ import annotations

import copy
import threading
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

#: held by the thread that copies modules, or hangs hooks on some that other threads may see
alone = threading.RLock()


def own(module: nn.Module) -> nn.Module:
    """The same modules in eval mode, sharing weights with the user's, and nothing that a call may change.

    Buffers are copied, and so are lists, dictionaries and tensors among the attributes, hooks included, so that neither
    flags nor counters nor caches of the user's modules change when the copy runs. Modules and bound methods that are
    attributes stand for their copies. A scripted module cannot be copied and stays itself.
    """
    with alone:
        return _copied(module)


def _copied(module: nn.Module) -> nn.Module:
    known: dict[int, Any] = {}
    kept: list[Any] = []  # alive as long as their ids are in use
    for part in module.modules():
        known[id(part)] = part if isinstance(part, torch.jit.ScriptModule) else object.__new__(type(part))

    def copied(thing: Any) -> Any:
        if id(thing) in known:
            return known[id(thing)]
        made: Any = thing
        if isinstance(thing, MethodType):
            made = MethodType(thing.__func__, known[id(thing.__self__)]) if id(thing.__self__) in known else thing
        elif isinstance(thing, Tensor) and not isinstance(thing, nn.Parameter) and thing.is_leaf:
            made = thing.detach().clone()
        elif type(thing).__name__ in ("list", "dict", "OrderedDict", "set") and isinstance(thing, list | dict | set):
            made = known[id(thing)] = thing.copy()
            kept.append(thing)
            if isinstance(thing, dict):
                made.update({name: copied(item) for name, item in thing.items()})
            elif isinstance(thing, list):
                made[:] = map(copied, thing)
            return made
        elif type(thing) is tuple:
            made = tuple(map(copied, thing))
        known[id(thing)] = made
        kept.append(thing)
        return made

    def attribute(name: str, value: Any) -> Any:
        # an object in the place of `forward`, as other libraries put it there, knows the module that it calls
        if name == "forward" and not isinstance(value, (FunctionType, MethodType)):
            shared = {id(weight): weight for part in module.modules() for weight in part.parameters(recurse=False)}
            return copy.deepcopy(value, {**known, **shared})
        return copied(value)

    with torch.inference_mode(False), torch.no_grad():
        for part in module.modules():
            if not isinstance(part, torch.jit.ScriptModule):
                known[id(part)].__dict__.update({name: attribute(name, value) for name, value in part.__dict__.items()})
                known[id(part)].__dict__["training"] = False
    return known[id(module)]
