"""The processor as devices of XLA: on each computes the thread that calls, and no other.

XLA's own device hands even small steps to threads of its own, where a step waits longer than it takes, and takes all
cores that the process may use, whatever torch is told. So the threads are ours, a piece of the points each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from jaxlib import xla_client


@cache
def caller(worker: int) -> Any:
    """The device of one of the threads that call; where two share one, some steps of theirs wait for each other."""
    with _of_one_thread():
        client: Any = xla_client.make_cpu_client(asynchronous=False)
    return client.devices()[0]


@contextmanager
def _of_one_thread() -> Iterator[None]:
    """Where a client of XLA that is made has but one thread, of which it asks the environment alone."""
    before = os.environ.get("PJRT_NPROC")
    os.environ["PJRT_NPROC"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PJRT_NPROC"]
        else:
            os.environ["PJRT_NPROC"] = before
