"""Old names that keep working for one release, each with a `DeprecationWarning` that says the new one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

#: the first release without the old names
GONE = "0.3"


def renamed(**names: str) -> Callable[[Function], Function]:
    """A decorator by which a function also takes keywords by their old names: `renamed(old="new")`."""

    def decorate(function: Function) -> Function:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old in names.keys() & kwargs.keys():
                _warn(f"the keyword {old!r} of {function.__qualname__.removesuffix('.__init__')}", names[old])
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


def former(new: str) -> Any:
    """A property that stands under an old name for the attribute `new`."""

    def get(self: Any) -> Any:
        _warn("this attribute", new)
        return getattr(self, new)

    return property(get, doc=f"The former name of `{new}`.")


def _warn(what: str, new: str) -> None:
    warnings.warn(f"{what} is now called {new!r}; the old name goes with {GONE}", DeprecationWarning, stacklevel=3)
