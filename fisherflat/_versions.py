"""What results were made with."""

from __future__ import annotations

import platform
from contextlib import suppress
from functools import cache
from importlib import metadata

from fisherflat._version import __version__

#: of a package, read once: what is imported does not change, and to read it takes as long as a small proof
installed = cache(metadata.version)


def versions(*packages: str) -> dict[str, str]:
    """Of this package, of Python, and of those of the `packages` that are installed."""
    found = {"fisherflat": __version__, "python": platform.python_version()}
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found[name] = installed(name)
    return found
