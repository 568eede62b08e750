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
        return _Copies(module).made()


class _Copies:
    """Copies by the ids of what they are of.

    An object, and no functions that call themselves: those would keep a whole model until garbage is collected.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._kept: list[Any] = []  # alive as long as their ids are in use
        self._known: dict[int, Any] = {
            id(part): part if isinstance(part, torch.jit.ScriptModule) else object.__new__(type(part))
            for part in module.modules()
        }

    def made(self) -> nn.Module:
        """The copy of the whole."""
        with torch.inference_mode(False), torch.no_grad():
            for part in self._module.modules():
                if not isinstance(part, torch.jit.ScriptModule):
                    own = self._known[id(part)].__dict__
                    own.update({name: self._attribute(name, value) for name, value in part.__dict__.items()})
                    own["training"] = False
        return self._known[id(self._module)]

    def _attribute(self, name: str, value: Any) -> Any:
        # an object in the place of `forward`, as other libraries put it there, knows the module that it calls
        if name == "forward" and not isinstance(value, (FunctionType, MethodType)):
            parts = self._module.modules()
            shared = {id(weight): weight for part in parts for weight in part.parameters(recurse=False)}
            return copy.deepcopy(value, {**self._known, **shared})
        return self._copied(value)

    def _copied(self, thing: Any) -> Any:
        known = self._known
        if id(thing) in known:
            return known[id(thing)]
        made: Any = thing
        if isinstance(thing, MethodType):
            made = MethodType(thing.__func__, known[id(thing.__self__)]) if id(thing.__self__) in known else thing
        elif isinstance(thing, Tensor) and not isinstance(thing, nn.Parameter) and thing.is_leaf:
            made = thing.detach().clone()
        elif type(thing).__name__ in ("list", "dict", "OrderedDict", "set") and isinstance(thing, list | dict | set):
            made = known[id(thing)] = thing.copy()
            self._kept.append(thing)
            if isinstance(thing, dict):
                made.update({name: self._copied(item) for name, item in thing.items()})
            elif isinstance(thing, list):
                made[:] = map(self._copied, thing)
            return made
        elif type(thing) is tuple:
            made = tuple(map(self._copied, thing))
        known[id(thing)] = made
        self._kept.append(thing)
        return made
