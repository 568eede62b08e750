"""What a command prints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from fisherflat._files import visible

if TYPE_CHECKING:
    from fisherflat.report import Result


Command = TypeVar("Command", bound=Callable[..., None])

#: the exit code after Ctrl-C or SIGTERM
INTERRUPTED = 130


def interruptible(then: str) -> Callable[[Command], Command]:
    """A command that says after an interrupt what to do `then`, and ends with the exit code of one."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def run(*args: Any, **kwargs: Any) -> None:
            try:
                command(*args, **kwargs)
            except KeyboardInterrupt:
                typer.echo(f"fisherflat: interrupted; {then}", err=True)
                raise typer.Exit(INTERRUPTED) from None

        return run  # type: ignore[return-value]

    return decorate


def ended(found: Result) -> None:
    """**Raises:** `KeyboardInterrupt` where a result is of an interrupted study, which keeps that to itself."""
    if not found.complete:
        raise KeyboardInterrupt


def say(text: str) -> None:
    """A line of text, in which nothing steers the terminal."""
    typer.echo(visible(text))


def written(files: Sequence[Path]) -> None:
    """Name the files that were written."""
    for file in files:
        say(f"written: {file}")


def report(found: Result, out: Path) -> list[Path]:
    """Write a result, and print what it says; the files."""
    from rich import print

    files = found.save(out)
    print(found.summary())
    return files
