"""What a command prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fisherflat._files import visible

if TYPE_CHECKING:
    from fisherflat.report import Result


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
