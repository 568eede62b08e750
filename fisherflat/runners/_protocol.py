"""Independent tasks with stable keys, what knows how to do them, and what carries them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Task(Protocol):
    """A piece of work that depends on no other, such as `analyze` makes; it can be pickled and hashed."""

    @property
    def key(self) -> str:
        """A name of it that stays the same from run to run."""


@runtime_checkable
class Work(Protocol):
    """What knows how to do tasks, such as `analyze` makes; it can be pickled, and does them the same anywhere."""

    def measure(self, task: Any) -> Any:
        """What a task gives: of a study of layers its rows, in which what fails is a row with an error."""


#: Carries out tasks: `(work, tasks) -> (task, what it gives) ...`, in any order and anywhere, for they do not depend on
#: each other. What is done is kept as it comes; so a runner that fails raises only when nothing more will come.
Runner = Callable[[Any, Sequence[Any]], Iterator[tuple[Any, Any]]]
