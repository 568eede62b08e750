"""Tasks on a cluster, or on this machine, by Ray (https://docs.ray.io)."""

from __future__ import annotations

import math
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, SupportsFloat

import torch

from fisherflat._arrays import number
from fisherflat._display import displayed
from fisherflat._versions import versions
from fisherflat.errors import ClusterError, InputError, OutOfMemoryError
from fisherflat.runners._packed import Packed, cannot_be_sent, packed, unpacked
from fisherflat.runners._protocol import Task, Work

#: seconds within which a cluster has to answer
PATIENCE = 90.0
#: how often a task is begun before it is taken for one that no worker survives
_TRIES = 3
#: tasks that are sent for each that can run, so that no worker waits for the next
_AHEAD = 2
#: seconds after which it is looked what has become of the cluster
_LOOK = 2.0


def ray(address: str | None = None, cpus: SupportsFloat = 1, gpus: SupportsFloat = 0) -> Ray:
    """Tasks on a cluster by Ray, or without an address on this machine.

    The work goes to each machine once: tensors that are in memory here are shared by all workers of a machine, and a
    model that was read from a folder is read from the same folder there, block by block where it is large. What is done
    comes back as it is done. A worker that is lost costs the task that it was at, which is begun again elsewhere.

    **Args:**

    - `address`, of a cluster: `"host:6379"`, `"ray://host:10001"`, or `"auto"` for the one that runs on this machine.
      Without it that of the environment (`RAY_ADDRESS`), a connection that the process has, or else an instance of its
      own, which ends with the runner.
    - `cpus`, `gpus`: what a task takes of a machine; a share of a GPU is one that several tasks use. `cpus` is also how
      many threads torch has.

    **Returns:** a runner, for `fisherflat.analyze` and all that takes its options. When it runs, it is a `ClusterError`
    where nothing answers at the address within a minute and a half, no machine has what a task takes, versions differ
    there, or the model cannot be read there; and an `OutOfMemoryError` where the model does not fit into Ray's object
    store, or a task is lost with its worker three times. What was done is kept in the `folder` of the analysis.

    **Raises:** `InputError` for an address or numbers that are none, and where Ray is not installed.

    >>> import fisherflat as ff
    >>> small = {"layers": [0], "parts": ["mlp"], "points": 1, "progress": False}
    >>> runner = ff.runners.ray(cpus=1)
    >>> found = ff.analyze("python-llama", [1, 2, 3], runner=runner, **small)
    >>> runner.close()
    """
    return Ray(address, cpus, gpus)


@displayed
class Ray:
    """Carries out tasks by Ray; `fisherflat.runners.ray` makes one and says what its arguments are.

    It connects when it is first used, and for as long as somebody holds it or until it is closed.

    **Raises:** as `fisherflat.runners.ray`.

    >>> import fisherflat as ff
    >>> ff.runners.ray("gpu-head:6379", cpus=4, gpus=1)
    Ray('gpu-head:6379', cpus=4, gpus=1)
    """

    def __init__(self, address: str | None = None, cpus: SupportsFloat = 1, gpus: SupportsFloat = 0) -> None:
        if address is not None and (not isinstance(address, str) or not address.strip()):
            raise InputError(f"an address is a text such as 'host:6379', got {address!r}")
        self.address, self.cpus, self.gpus = address, number(cpus, "cpus"), number(gpus, "gpus")
        if not self.cpus > 0:
            raise InputError(f"cpus is how many a task takes, a number above 0; got {cpus!r}")
        if not self.gpus >= 0:
            raise InputError(f"gpus is how many a task takes, a number from 0 on; got {gpus!r}")
        _engine()
        self._end: Any = None

    def __call__(self, work: Work, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any]]:
        """The tasks, as they are done, in any order."""
        engine = self._connected()
        self._check_room(engine, -math.inf)
        versions, threads, key = _versions(), max(1, int(self.cpus)), uuid.uuid4().hex
        held = [_put(engine, work)]  # in a list it is fetched by the task itself, once its versions were compared
        begin = engine.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0)(_measured).remote
        lost: Counter[str] = Counter()
        waiting, running = deque(tasks), dict[Any, Task]()
        room, looked, moved = 0, -math.inf, time.monotonic()
        try:
            while waiting or running:
                if time.monotonic() - looked > _LOOK:
                    room, looked = _AHEAD * self._check_room(engine, moved), time.monotonic()
                while waiting and len(running) < room:
                    task = waiting.popleft()
                    running[begin(held, key, task, versions, threads)] = task
                if not running:  # no machine has room
                    time.sleep(_LOOK)
                    continue
                ready, _ = engine.wait(list(running), timeout=_LOOK)
                for one in ready:
                    task, moved = running.pop(one), time.monotonic()
                    try:
                        problem, found = engine.get(one)
                    except engine.exceptions.RayTaskError as error:
                        raise _own(error) from None
                    except engine.exceptions.RayError as error:
                        lost[task.key] += 1
                        if lost[task.key] < _TRIES:
                            waiting.appendleft(task)
                        else:
                            reason = error
                        continue
                    if problem is not None:
                        raise ClusterError(problem)
                    yield task, found
        except (engine.exceptions.RayError, ConnectionError) as error:
            raise ClusterError(f"the cluster does not answer any more ({_first(error)}); {_KEPT}") from error
        finally:  # also when nobody asks for more, as after Ctrl-C
            for one in running:
                engine.cancel(one, force=True)
        if given_up := [name for name, times in lost.items() if times >= _TRIES]:
            raise OutOfMemoryError(
                f"{len(given_up)} of {len(tasks)} tasks, the first {given_up[0]!r}, were lost with their worker "
                f"{_TRIES} times, most often because memory ran out ({_first(reason)}); give each more (cpus="
                f"{2 * self.cpus:g} lets half as many run on a machine); {_KEPT}"
            )

    def close(self) -> None:
        """End the connection, and the instance of Ray if it is the runner's own."""
        if self._end is not None:
            self._end()
            self._end = None

    def _connected(self) -> Any:
        """Ray, connected to the cluster."""
        engine = _engine()
        if engine.is_initialized():
            here = engine.get_runtime_context().gcs_address
            if self._end is None and self.address not in (None, "auto", here):
                raise ClusterError(
                    f"this process is connected to the Ray cluster at {here}, not to {self.address}; leave out the "
                    "address, or call ray.shutdown() before"
                )
            return engine
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"
        own: dict[str, Any] = {}
        if address == "local":
            # of the priority of this process, as local ones are, where Ray's would yield to all others
            own = {"include_dashboard": False, "_system_config": {"worker_niceness": 0}}
        else:
            _check_answers(address)
        with _left_alone():
            try:
                engine.init(address, configure_logging=False, log_to_driver=False, **own)
            except Exception as error:
                raise ClusterError(f"Ray cannot be started or reached at {address} ({_first(error)})") from error
        self._end = weakref.finalize(self, engine.shutdown)
        return engine

    def _check_room(self, engine: Any, moved: float) -> int:
        """How many tasks can run at a time. **Raises:** `ClusterError` where none can, and none came back for long."""
        alive = [node["Resources"] for node in engine.nodes() if node["Alive"]]
        room = sum(
            int(min(of.get("CPU", 0) / self.cpus, of.get("GPU", 0) / self.gpus if self.gpus else math.inf))
            for of in alive
        )
        if not room and time.monotonic() - moved > PATIENCE:
            there = "; ".join(f"{of.get('CPU', 0):g} CPUs and {of.get('GPU', 0):g} GPUs" for of in alive[:4])
            raise ClusterError(
                f"no machine of the cluster has what a task takes, {self.cpus:g} CPUs and {self.gpus:g} GPUs; there "
                f"are {len(alive)} of {there or 'nothing'}. Ask for less, or add machines; {_KEPT}"
            )
        return room

    def __repr__(self) -> str:
        named = "" if self.address is None else f"{self.address!r}, "
        return f"Ray({named}cpus={self.cpus:g}, gpus={self.gpus:g})"


_KEPT = "what was done is kept where the analysis has a folder, go on with resume"


def _engine() -> Any:
    try:
        import ray as engine
    except ImportError as error:
        raise InputError('Ray is not installed; pip install "fisherflat[ray]", or measure with jobs') from error
    return engine


@contextmanager
def _left_alone() -> Iterator[None]:
    """Signals and the environment of this process as they were, whatever Ray sets while it starts; no statistics."""
    main, before = threading.current_thread() is threading.main_thread(), dict(os.environ)
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)} if main else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
        for kind, handler in handlers.items():
            signal.signal(kind, handler)


#: In a process of its own, since Ray waits for minutes for what does not answer, and then ends the process
_PROBE = "import sys, ray; ray.init(sys.argv[1], configure_logging=False, log_to_driver=False)"


def _check_answers(address: str) -> None:
    """**Raises:** `ClusterError` where no cluster answers soon, or one of another version of Ray or Python."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=PATIENCE / 3).close()
        except (OSError, OverflowError) as error:
            raise ClusterError(f"nothing answers at {address} ({error}); is it the address of a Ray cluster?") from None
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, address], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"what is at {address} did not answer as a Ray cluster does within {PATIENCE:.0f} s; is it the address of "
            "its head, such as host:6379, or ray://host:10001 from outside?"
        ) from None
    if done.returncode:
        said = done.stderr.strip().rpartition("Error: ")[2] or f"exit code {done.returncode}"
        raise ClusterError(f"the Ray cluster at {address} cannot be used: {' '.join(said.split())[:400]}")


def _put(engine: Any, work: Work) -> Any:
    """The work in the object store, from which each machine gets it once."""
    try:
        found = packed(work)
    except Exception as error:  # whatever an object's own way to be pickled raises
        raise cannot_be_sent(error, "leave out runner") from error
    try:
        return engine.put(found)
    except (engine.exceptions.RayError, MemoryError) as error:
        size = (len(found[0]) + sum(array.nbytes for array in found[1])) / 2**30
        raise OutOfMemoryError(
            f"the model takes {size:.2f} GiB, for which Ray's object store has no room ({_first(error)}); start Ray "
            f"with a larger --object-store-memory, or load the model from a folder; {_KEPT}"
        ) from error


# -- in the workers ----------------------------------------------------------------------------------------------------

#: the work that was unpacked last, by its key
_kept: tuple[str, Any] = ("", None)


def _measured(
    held: Sequence[Any], key: str, task: Task, versions: dict[str, str], threads: int
) -> tuple[str | None, Any]:
    """What a task gives, or else why this worker cannot do it."""
    global _kept
    own = _versions()
    other = [f"{name} {own[name]} and not {version}" for name, version in versions.items() if own[name] != version]
    if other:
        return f"a worker on {platform.node()} has {', '.join(other)}; install the same on all machines", None
    torch.set_num_threads(threads)
    if _kept[0] != key:
        _kept = ("", None)  # before the next one is there
        rest, arrays = _fetched(held[0])
        try:
            _kept = (key, unpacked(rest, arrays))
        except Exception as error:
            return (
                f"a worker on {platform.node()} cannot read the model ({type(error).__name__}: {error}); its folder "
                "must be there on all machines, and a model on a GPU needs gpus"
            ), None
    return None, _kept[1].measure(task)


def _fetched(reference: Any) -> Packed:
    found: Packed = _engine().get(reference)
    return found


def _versions() -> dict[str, str]:
    """What the numbers may depend on, and what has to understand the work."""
    return versions("torch", "numpy")


def _own(error: Any) -> Exception:
    """What was raised in a worker."""
    cause = error.cause
    return cause if isinstance(cause, Exception) else ClusterError(f"a worker failed: {_first(error)}")


def _first(error: Any) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
