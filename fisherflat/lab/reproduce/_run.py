"""Section after section: what is done is kept, what is left is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fisherflat._files import claimed, made
from fisherflat._progress import progress as shown
from fisherflat.errors import InputError
from fisherflat.lab.reproduce._page import Reproduction
from fisherflat.lab.reproduce._section import Section, versions
from fisherflat.lab.reproduce._sections import SECTIONS


def reproduce(
    out: str | Path,
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> bool:
    """Measure again what the project says about gates, curvature and symmetry, and compare it with the papers.

    Writes a folder for each section, with its tables, figures and section.json, and over all of them results.json,
    report.md and report.html, which are written again after each section. A section that is there already, with the
    same settings and versions, is not measured again.

    **Args:**

    - `out`, a folder; `only`, names of sections (default: all).
    - `quick`: fewer seeds and coarser grids, a minute or two instead of a quarter of an hour.
    - `settings`, name -> settings of a section instead of those.
    - `progress`: whether to show what goes on, on the error stream.

    **Returns:** whether all chosen sections are there: false after an interrupt (Ctrl-C), which keeps what is done.

    **Raises:** `InputError` for a section that does not exist, or a folder that cannot be written.
    """
    if unknown := sorted(set(only) - set(SECTIONS)):
        raise InputError(f"there is no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    chosen = {
        name: (settings or {}).get(name) or (module.QUICK if quick else module.Settings())
        for name, module in SECTIONS.items()
    }
    with claimed(out) as folder:
        return _reproduced(folder, chosen, only or list(SECTIONS), progress)


def _reproduced(folder: Path, chosen: Mapping[str, Any], asked: Sequence[str], progress: bool) -> bool:
    found = {name: Section.load(folder / name, asdict(chosen[name])) for name in SECTIONS}
    with shown(progress) as moved:
        try:
            for done, name in enumerate(asked):
                moved(name, done, len(asked))
                if not found[name]:
                    found[name] = _measured(SECTIONS[name], chosen[name], folder / name)
                _write({name: section for name, section in found.items() if section}, folder)
        except KeyboardInterrupt:
            return False
        moved("done", len(asked), len(asked))
    return True


def _measured(module: Any, settings: Any, folder: Path) -> Section:
    (made(folder) / "section.json").unlink(missing_ok=True)
    start = time.perf_counter()
    section: Section = module.measure(settings, folder)
    section.settings, section.versions = asdict(settings), versions()
    section.seconds = round(time.perf_counter() - start, 1)
    section.save(folder)
    return section


def _write(found: dict[str, Section], folder: Path) -> None:
    Reproduction(found, folder).save(folder)
