"""How many threads of torch a command takes."""

from __future__ import annotations

import os


def leave_busy_cores() -> None:
    """Threads of torch for the cores that are idle now; on busy ones two can be many times slower than one.

    `OMP_NUM_THREADS` has its way.
    """
    if "OMP_NUM_THREADS" not in os.environ and hasattr(os, "getloadavg"):
        import torch  # not while the shell's help is shown

        idle = (os.cpu_count() or 1) - round(os.getloadavg()[0])
        torch.set_num_threads(max(1, min(torch.get_num_threads(), idle)))
