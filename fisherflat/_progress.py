"""Progress of long work, on the terminal or in a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

#: what goes on, how many steps are done, and how many there are in all
Step = Callable[[str, int, int | None], None]
#: seconds between two looks of a notebook's bar
_PAUSE = 0.2


@contextmanager
def progress(show: bool) -> Iterator[Step]:
    """A function `(what goes on, steps done, steps in all)` that moves a bar with the time left, on the error stream.

    `None` for steps whose number is not known yet. In a notebook the bar is an output of the cell, which is empty in
    the end.
    """
    if not show:
        yield lambda what, done, total: None
        return
    if (display := _of_notebook()) is not None:
        with _in_notebook(display) as step:
            yield step
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)) as bar:
        shown = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(shown, description=what, completed=done, total=total)


def _of_notebook() -> Any:
    """What displays in the notebook that this runs in; `None` where it runs in none."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    if not hasattr(shell, "kernel"):
        return None
    from IPython.display import display

    return display


@contextmanager
def _in_notebook(display: Any) -> Iterator[Step]:
    handle = display({"text/plain": "…"}, raw=True, display_id=True)
    began, last = time.monotonic(), 0.0

    def step(what: str, done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PAUSE:
            last = now
            handle.update({"text/plain": _in_words(what, done, total, now - began)}, raw=True)

    try:
        yield step
    finally:
        handle.update({}, raw=True)  # an output without content is not shown


def _in_words(what: str, done: int, total: int | None, seconds: float) -> str:
    """Such as `layer 3  ▰▰▰▱▱▱▱▱▱▱  9 of 30, 0:21 left`."""
    if not total:
        return what
    bars = round(20 * min(done / total, 1.0))
    left = f", {_clock(seconds * (total - done) / done)} left" if 0 < done <= total else ""
    return f"{what}  {'▰' * bars}{'▱' * (20 - bars)}  {done} of {total}{left}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
