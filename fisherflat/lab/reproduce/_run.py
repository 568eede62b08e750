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
    - `quick`: fewer seeds and coarser grids, some minutes instead of an hour and a half.
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
    work = _Sections(chosen)
    parts = {name: work.left(name, folder / name) for name in asked if not found[name]}
    left = [task for tasks in parts.values() for task in tasks]
    done = sum(not parts.get(name) for name in asked)  # where all parts are there, they are but to be joined
    total = done + len(left)
    with shown(progress) as moved:
        try:
            _write(found, folder)
            moved(", ".join(task.key for task in left[:1]), done, total)
            for name, tasks in parts.items():
                if not tasks:  # all its parts are there
                    found[name] = work.joined(name, folder / name)
                    _write(found, folder)
            for count, (task, measured) in enumerate(runner(work, left), done + 1):
                parts[task.section].remove(task)
                section = measured.kept(folder / task.section)
                if section is None and not parts[task.section]:
                    section = work.joined(task.section, folder / task.section)
                if section is not None:
                    found[task.section] = section
                    _write(found, folder)
                moved(task.key, count, total)
        except KeyboardInterrupt:
            return False
        moved("done", total, total)
    return True


@dataclass(frozen=True)
class _Task:
    """A section, by its name, or a part of one."""

    section: str
    part: str | None = None

    @property
    def key(self) -> str:
        return self.section if self.part is None else f"{self.section}: {self.part}"


@dataclass(frozen=True)
class _Measured:
    """A section that was measured, or `None` for a part of one, and what it wrote: paths in its folder, contents."""

    section: Section | None
    files: Mapping[str, bytes]

    def kept(self, folder: Path) -> Section | None:
        """The section in its folder, whose section.json comes last."""
        (made(folder) / "section.json").unlink(missing_ok=True)
        writing = {name: partial(_put, content) for name, content in self.files.items()}
        write_all(folder, writing)
        if self.section is not None:
            self.section.save(folder)
        return self.section


@dataclass(frozen=True)
class _Sections:
    """Measures sections anywhere: what they write comes back with them."""

    settings: Mapping[str, Any]

    def left(self, name: str, folder: Path) -> list[_Task]:
        """What is to be measured of a section: itself, or its parts."""
        module = SECTIONS[name]
        if not hasattr(module, "left"):
            return [_Task(name)]
        return [_Task(name, part) for part in module.left(self.settings[name], folder)]

    def measure(self, task: _Task) -> _Measured:
        module, settings = SECTIONS[task.section], self.settings[task.section]
        with TemporaryDirectory() as name:
            folder, section = Path(name), None
            if task.part is None:
                section = self.joined(task.section, folder, save=False)
            else:
                module.part(settings, folder, task.part)
            files = {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.is_file() and path.name != LOCK
            }
        return _Measured(section, files)

    def joined(self, name: str, folder: Path, save: bool = True) -> Section:
        """A section that is measured at once, or all of whose parts are there."""
        start = time.perf_counter()
        section: Section = SECTIONS[name].measure(self.settings[name], folder)
        section.settings, section.versions = asdict(self.settings[name]), versions()
        section.seconds = round(time.perf_counter() - start, 1)
        if save:
            section.save(folder)
        return section


def _put(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _write(found: Mapping[str, Section | None], folder: Path) -> None:
    there = {name: section for name, section in found.items() if section}
    if there:
        Reproduction(there, folder).save(folder)
