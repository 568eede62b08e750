"""What carries out the tasks of a study: this process, several of this machine, or a cluster by Ray.

`fisherflat.analyze` and all that measures layer by layer take one as `runner`:
`ff.analyze(model, prompts, runner=ff.runners.ray())`.
"""

from __future__ import annotations

from fisherflat.runners._local import one_process, processes
from fisherflat.runners._protocol import Runner, Task, Work
from fisherflat.runners._ray import Ray, ray

__all__ = ["Ray", "Runner", "Task", "Work", "one_process", "processes", "ray"]
