"""Results from their folders, whatever they are of."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fisherflat.errors import InputError
from fisherflat.report._page import PAGE, proofs_in
from fisherflat.report._proofs import Proofs
from fisherflat.report._result import Result

#: how the pages begin that this program writes
_OURS = b'<meta name="generator" content="fisherflat'


def load(folder: str | Path) -> Result:
    """The result that lies in a folder, of any kind that has been imported: what `Result.save` wrote.

    **Args:** `folder`, of an analysis, a study of depth or of symmetries, certificates, a demonstration, or a
    reproduction.

    **Returns:** the result; `.report(path)` writes its page again.

    **Raises:** `InputError` where there is none, or it is not whole.

    >>> import tempfile, fisherflat as ff
    >>> from fisherflat.report import load
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = ff.symmetry.study("python-llama", [1, 2, 3], progress=False).save(folder)
    ...     load(folder)
    SymmetryStudy('python-llama', 1152 units in 4 MLPs)
    """
    place, kinds = Path(folder), list(_kinds(Result))
    for kind in kinds:
        if os.path.lexists(place / kind.document):
            return kind.load(place)
    if place.is_dir() and (found := proofs_in(place)):
        return Proofs(found)
    said = (
        f"{folder} holds no result: there is none of {', '.join(kind.document for kind in kinds)}, and no certificate"
    )
    beneath = sorted(sub.name for kind in kinds for sub in _folders(place) if (sub / kind.document).is_file())
    raise InputError(f"{said}; there are results in {', '.join(beneath[:5])}" if beneath else said)


def renew(folder: str | Path) -> list[Path]:
    """Write the page of a folder anew after something was added to it; a file of that name that is not ours stays.

    **Returns:** the page, or nothing. **Raises:** as `load`.
    """
    page = Path(folder) / PAGE
    if os.path.lexists(page):
        if not page.is_file():
            return []
        with page.open("rb") as file:
            if _OURS not in file.read(2**16):
                return []
    return [load(folder).report(page)]


def each(folder: str | Path) -> dict[Path, Result]:
    """All results that lie in a folder or up to two folders below it, by where they lie.

    **Raises:** `InputError` where there is none, or one is not whole.
    """
    place = Path(folder)
    below = sorted(path for pattern in ("*", "*/*") for path in place.glob(pattern) if path.is_dir())
    found = {}
    for here in (place, *below):
        for kind in _kinds(Result):
            if (here / kind.document).is_file():
                found[here] = kind.load(here)
                break
    return found or {place: load(place)}


def _kinds(kind: type) -> Iterator[Any]:
    """Those that name a document."""
    each: Any
    for each in kind.__subclasses__():
        if each.__dict__.get("document"):
            yield each
        yield from _kinds(each)


def _folders(place: Path) -> list[Path]:
    return [sub for sub in place.iterdir() if sub.is_dir()] if place.is_dir() else []
