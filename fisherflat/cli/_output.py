"""What a command says, and where: results on the standard output, all else on the error stream."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fisherflat._files import as_json, noted, visible

if TYPE_CHECKING:
    from fisherflat.report import Result

#: the exit code after Ctrl-C or SIGTERM
INTERRUPTED = 130


@dataclass(frozen=True)
class Voice:
    """How much a command says."""

    json: Annotated[
        bool, typer.Option("--json", help="Print results as JSON, one line each; all else goes to the error stream.")
    ] = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but errors and warnings.")] = False
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Print all tables and sentences, not only the most important.")
    ] = False


@dataclass(frozen=True)
class _Command:
    """A command that runs: its voice, where its results go, and the files that it has written until now."""

    voice: Voice
    results: Any
    files: Mapping[Path, None]


_running: ContextVar[_Command] = ContextVar("running")


@contextmanager
def speaking(voice: Voice) -> Iterator[None]:
    """Within it, what is said is said so, whoever says it."""
    results = sys.stdout
    others = sys.stderr if voice.json else results
    with noted() as files, redirect_stdout(io.StringIO() if voice.quiet else others):
        before = _running.set(_Command(voice, results, files))
        try:
            yield
        finally:
            _running.reset(before)


def progress() -> bool:
    """Whether to show what goes on."""
    return not _running.get().voice.quiet


def ended(found: Result) -> None:
    """**Raises:** `KeyboardInterrupt` where a result is of an interrupted study, which keeps that to itself."""
    if not found.complete:
        raise KeyboardInterrupt


def say(text: str) -> None:
    """A line of text, in which nothing steers the terminal."""
    typer.echo(visible(text))


def show(thing: Any) -> None:
    """What rich can print."""
    from rich.console import Console

    Console().print(thing)


def answer(document: Mapping[str, Any]) -> None:
    """A result for programs: a line of JSON, where that was asked for."""
    if _running.get().voice.json:
        typer.echo(as_json(document, indent=None), file=_running.get().results, nl=False)


def files_written() -> list[Path]:
    """What the command has written until now, and what is still there."""
    return [file for file in _running.get().files if file.exists()]


def written(files: Iterable[Path]) -> None:
    """Name the files that were written."""
    for file in files:
        say(f"written: {file}")


def report(found: Result, out: Path, formats: Sequence[str] = ("png",)) -> None:
    """Write a result, print what it says, and name the files that were written for it."""
    found.save(out, formats=formats)
    voice = _running.get().voice
    show(found.summary(verbose=voice.verbose))
    files = [path for path in files_written() if path.is_relative_to(out)]
    written(files)
    if voice.json:  # to put all tables into words takes time
        answer({**found.content(), "files": [str(file) for file in files]})
