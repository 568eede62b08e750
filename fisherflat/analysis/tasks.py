"""The work of an analysis: independent tasks with stable keys, and the runner that executes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One layer, part, reading, prompt and token position, at all points of its chart.

    **Attributes:** `layer`, from 0; `part` and `reading`, as in the table; `prompt`, its index; `position`, the index
    of the token that moves.
    """

    layer: int
    part: str
    reading: str
    prompt: int
    position: int

    @property
    def key(self) -> str:
        """A name of this task that stays the same from run to run."""
        return f"layer {self.layer}/{self.part}/{self.reading}/prompt {self.prompt}/position {self.position}"


def run(tasks: Sequence[Task], execute: Callable[[Task], list[Row]]) -> Iterator[tuple[Task, list[Row]]]:
    """Execute tasks one after the other in this process; rows come as they are done.

    Tasks do not depend on each other, so that another runner may execute them in any order and anywhere.
    """
    for task in tasks:
        yield task, execute(task)
