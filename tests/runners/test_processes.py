"""Processes of this machine: what each begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import fisherflat as ff


@dataclass(frozen=True)
class Asking:
    key: str


class Counting:
    """Work that says how many threads torch has where it is done."""

    def measure(self, task: Any) -> int:
        return torch.get_num_threads()


def test_each_process_has_one_thread_whatever_this_one_has():
    before, tasks = torch.get_num_threads(), [Asking(key) for key in "abc"]
    torch.set_num_threads(4)
    try:
        found = dict(ff.runners.processes(2)(Counting(), tasks))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert found == dict.fromkeys(tasks, 1)
