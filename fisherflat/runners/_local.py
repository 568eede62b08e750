"""Tasks in this process, or in several of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pickle import PicklingError
from typing import Any, SupportsIndex

import torch

from fisherflat._arrays import integer
from fisherflat.errors import OutOfMemoryError
from fisherflat.runners._packed import cannot_be_sent
from fisherflat.runners._protocol import Runner, Task, Work


def one_process(work: Work, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
    """Tasks one after the other, here: the runner where none is given.

    >>> import fisherflat as ff
    >>> small = {"layers": [0], "parts": ["mlp"], "points": 1, "progress": False}
    >>> len(ff.analyze("python-llama", [1, 2, 3], runner=ff.runners.one_process, **small).rows)
    4
    """
    for task in tasks:
        yield task, work.measure(task)


def processes(jobs: SupportsIndex) -> Runner:
    """Tasks in `jobs` processes at a time, each with one thread of torch.

    Threads that wait for each other on busy cores are many times slower than one, and processes do not wait.

    Each process is started anew and unpickles the work, so a script that calls this must guard its main part
    (`if __name__ == "__main__"`), as for all of Python's multiprocessing.

    **Raises:** `InputError` for fewer than one, and, when run, for work that cannot be pickled, such as a module with
    functions defined on the spot; `OutOfMemoryError` when a process was killed.

    >>> import fisherflat as ff
    >>> small = {"layers": [0], "parts": ["mlp"], "points": 1, "progress": False}
    >>> if __name__ == "__main__":
    ...     found = ff.analyze("python-llama", [1, 2, 3], runner=ff.runners.processes(2), **small)
    """
    count = integer(jobs, "jobs", 1)

    def run(work: Work, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        others = set(multiprocessing.active_children())
        executor = ProcessPoolExecutor(
            min(count, len(tasks) or 1),
            # a forked copy of a process with running threads may hang, and cannot use a GPU
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=(work,),
        )
        try:
            futures = {}
            for task in tasks:
                try:
                    futures[executor.submit(_measure, task)] = task
                except (PicklingError, AttributeError, TypeError) as error:  # processes start with the first tasks
                    raise cannot_be_sent(error, "use jobs=1, and leave out runner") from error
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise OutOfMemoryError(
                "a process that measured was killed, most often because memory ran out; what was done is kept: go on "
                "with resume and fewer jobs"
            ) from error
        finally:  # also when nobody asks for more, as after Ctrl-C
            executor.shutdown(wait=False, cancel_futures=True)
            for child in set(multiprocessing.active_children()) - others:
                child.kill()

    return run


_work: Work | None = None


def _start(work: Work) -> None:
    """What each process begins with; signals are for the process that started it, with which it ends, too."""
    global _work
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _work = work


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _measure(task: Task) -> Any:
    assert _work is not None
    return _work.measure(task)
