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
    attributes stand for their copies. A scripted module cannot be copied and stays itself. What runs a module by other
    means, compiled or on several devices, is left out: the module runs in its place, under the same name.
    """
    with alone:
        return _Copies(module).made()


#: what every module has
_OWN = tuple(name for name in vars(nn.Module()) if name != "training")


def _runs(part: nn.Module) -> str | None:
    """Under which name a wrapper holds the module that it runs; `None` for what is none."""
    if type(part).__module__.startswith("torch._dynamo") and "_orig_mod" in part._modules:  # of `torch.compile`
        return "_orig_mod"
    return "module" if isinstance(part, nn.DataParallel | nn.parallel.DistributedDataParallel) else None


def _plain(part: nn.Module) -> type[nn.Module]:
    return {None: type(part), "_orig_mod": _Eager, "module": _Alone}[_runs(part)]


class _Eager(nn.Module):
    """What stands for a compiled module: the one that was compiled, as it was written."""

    runs = "_orig_mod"

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.runs)(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__(self.runs), name)


class _Alone(_Eager):
    """What stands for a module that runs on several devices: the same module on its own."""

    runs = "module"


class _Copies:
    """Copies by the ids of what they are of.

    An object, and no functions that call themselves: those would keep a whole model until garbage is collected.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._kept: list[Any] = []  # alive as long as their ids are in use
        self._known: dict[int, Any] = {
            id(part): part if isinstance(part, torch.jit.ScriptModule) else object.__new__(_plain(part))
            for part in module.modules()
        }

    def made(self) -> nn.Module:
        """The copy of the whole."""
        with torch.inference_mode(False), torch.no_grad():
            for part in self._module.modules():
                if not isinstance(part, torch.jit.ScriptModule):
                    own = self._known[id(part)].__dict__
                    kept = part.__dict__ if _runs(part) is None else {name: part.__dict__[name] for name in _OWN}
                    own.update({name: self._attribute(name, value) for name, value in kept.items()})
                    own["training"], own["_compiled_call_impl"] = False, None  # of `module.compile()`
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
