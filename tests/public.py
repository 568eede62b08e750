"""The public names: the table of contents, and what its modules list."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import fisherflat as ff

MODULES = {name: thing for name in dir(ff) if isinstance(thing := getattr(ff, name), ModuleType)}


def _names() -> dict[str, Any]:
    found = {name: getattr(ff, name) for name in dir(ff) if name not in MODULES and name != "__version__"}
    for module, thing in MODULES.items():
        found |= {f"{module}.{name}": getattr(thing, name) for name in thing.__all__}
    return found


#: functions and classes by the name that a user writes after `ff.`; constants and type aliases are left out
NAMES = {name: thing for name, thing in _names().items() if inspect.isclass(thing) or inspect.isfunction(thing)}


def is_exception(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Exception)
