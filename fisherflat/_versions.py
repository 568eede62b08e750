"""What results were made with."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib import metadata

from fisherflat._version import __version__


def versions(*packages: str) -> dict[str, str]:
    """Of this package, of Python, and of those of the `packages` that are installed."""
    found = {"fisherflat": __version__, "python": platform.python_version()}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
