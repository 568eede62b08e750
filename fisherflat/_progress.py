"""Progress of long work, on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(show: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """A function `(what goes on, steps done, steps in all)` that moves a bar with the time left, on the error stream.

    `None` for steps whose number is not known yet.
    """
    if not show:
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)) as bar:
        shown = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(shown, description=what, completed=done, total=total)
