"""Section after section: what is done is kept, what is left is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fisherflat._files import LOCK, claimed, made, write_all
from fisherflat._progress import progress as shown
from fisherflat.errors import InputError
from fisherflat.lab.reproduce._page import Reproduction
from fisherflat.lab.reproduce._section import Section, versions
from fisherflat.lab.reproduce._sections import SECTIONS
from fisherflat.runners import Runner, one_process


def reproduce(
    out: str | Path,
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    runner: Runner | None = None,
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
    - `runner`, one of `fisherflat.runners`: what measures the sections (default: this process).
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
        return _reproduced(folder, chosen, only or list(SECTIONS), runner or one_process, progress)


def _reproduced(folder: Path, chosen: Mapping[str, Any], asked: Sequence[str], runner: Runner, progress: bool) -> bool:
    found = {name: Section.load(folder / name, asdict(chosen[name])) for name in SECTIONS}
    left = [_Task(name) for name in asked if not found[name]]
    with shown(progress) as moved:
        try:
            _write(found, folder)
            moved(", ".join(task.key for task in left[:1]), len(asked) - len(left), len(asked))
            for count, (task, measured) in enumerate(runner(_Sections(chosen), left), len(asked) - len(left) + 1):
                found[task.key] = measured.kept(folder / task.key)
                _write(found, folder)
                moved(task.key, count, len(asked))
        except KeyboardInterrupt:
            return False
        moved("done", len(asked), len(asked))
    return True


@dataclass(frozen=True)
class _Task:
    """A section, by its name."""

    key: str


@dataclass(frozen=True)
class _Measured:
    """A section that was measured, and what it wrote: paths within its folder, and what is in them."""

    section: Section
    files: Mapping[str, bytes]

    def kept(self, folder: Path) -> Section:
        """The section in its folder, whose section.json comes last."""
        (made(folder) / "section.json").unlink(missing_ok=True)
        writing = {name: partial(_put, content) for name, content in self.files.items()}
        write_all(folder, writing)
        self.section.save(folder)
        return self.section


@dataclass(frozen=True)
class _Sections:
    """Measures sections anywhere: what they write comes back with them."""

    settings: Mapping[str, Any]

    def measure(self, task: _Task) -> _Measured:
        settings = self.settings[task.key]
        start = time.perf_counter()
        with TemporaryDirectory() as name:
            folder = Path(name)
            section: Section = SECTIONS[task.key].measure(settings, folder)
            files = {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.is_file() and path.name != LOCK
            }
        section.settings, section.versions = asdict(settings), versions()
        section.seconds = round(time.perf_counter() - start, 1)
        return _Measured(section, files)


def _put(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _write(found: Mapping[str, Section | None], folder: Path) -> None:
    there = {name: section for name, section in found.items() if section}
    if there:
        Reproduction(there, folder).save(folder)
