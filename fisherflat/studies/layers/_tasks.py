"""The work of an analysis: independent tasks with stable keys, and what can carry them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fisherflat.studies._journal import Row


@dataclass(frozen=True)
class Task:
    """Everything about one part of one layer on one prompt: all readings, positions and points.

    **Attributes:** `layer`, from 0; `part`, such as `attention`, or `heads` for all of them; `prompt`, its index.
    """

    layer: int
    part: str
    prompt: int

    @property
    def key(self) -> str:
        """A name of this task that stays the same from run to run."""
        return f"layer {self.layer}/{self.part}/prompt {self.prompt}"


class Work(Protocol):
    """What knows how to do tasks; it can be pickled, and does them the same anywhere."""

    def measure(self, task: Task) -> list[Row]:
        """The rows of a task; what fails in it is a row with an error."""


#: Carries out tasks: `(work, tasks) -> (task, its rows) ...`, in any order and anywhere, for they do not depend on each
#: other. A runner for a cluster is a function of this kind.
Runner = Callable[[Work, Sequence[Task]], Iterator[tuple[Task, list[Row]]]]
