"""Tasks on a Ray cluster of two nodes on one machine, one of which is killed in the middle."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
import torch
from torch import nn
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat import cli
from fisherflat.errors import ClusterError, InputError, OutOfMemoryError
from fisherflat.runners import Ray, _ray, one_process
from fisherflat.runners._packed import packed, unpacked

#: bytes of the object store of each node: Ray takes no less than 75 MiB
STORE = 80 * 2**20
#: one cluster for all of them, whatever spreads the tests over processes; in this order: most share one connection
pytestmark = pytest.mark.xdist_group("ray")


@dataclass(frozen=True)
class Number:
    number: int

    @property
    def key(self) -> str:
        return f"number {self.number}"


@dataclass
class Squares:
    """Says on which node it squared; of some numbers it ends the process. Each beginning is a line of a log."""

    log: Path
    seconds: float = 0.0
    fatal: frozenset[int] = frozenset()
    ballast: Any = field(default=None, repr=False)

    def measure(self, task: Number) -> tuple[int, str]:
        with self.log.open("a") as file:
            file.write(f"{task.key}\n")
        if task.number in self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return task.number**2, ray.get_runtime_context().get_node_id()


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """Nothing is reported to anybody, and what these tests define goes along by value."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield


@pytest.fixture(scope="module")
def cluster(alone: None) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    # what does not fit into the store must not go to disk instead, and workers need not yield to other processes
    config = {"local_fs_capacity_threshold": 0.0001, "automatic_object_spilling_enabled": False, "worker_niceness": 0}
    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False, "_system_config": config}
    found = Cluster(initialize_head=True, head_node_args=head)
    found.add_node(num_cpus=1, object_store_memory=STORE)
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def runner(cluster: Any) -> Iterator[Ray]:
    found = ff.runners.ray(cluster.address)
    yield found
    found.close()


def numbers(count: int) -> list[Number]:
    return list(map(Number, range(count)))


def begun(log: Path) -> list[str]:
    return log.read_text().splitlines()


# -- what is wrong with a cluster --------------------------------------------------------------------------------------


def test_an_address_at_which_nothing_listens() -> None:
    started = time.monotonic()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"nothing answers at {address}"):
        list(ff.runners.ray(address)(Squares(Path()), numbers(1)))
    assert time.monotonic() - started < 10


def test_an_address_at_which_something_else_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ray, "PATIENCE", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterError, match="did not answer as a Ray cluster does within 4 s"):
            list(ff.runners.ray(address)(Squares(Path()), numbers(1)))


def test_what_is_no_address() -> None:
    for address in ("nowhere.invalid:6379", "not an address"):
        with pytest.raises(ClusterError):
            list(ff.runners.ray(address)(Squares(Path()), numbers(1)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"address": ""}, "an address is a text"),
        ({"cpus": 0}, "cpus is how many"),
        ({"cpus": True}, "cpus must be a number"),
        ({"cpus": float("inf")}, "cpus must be finite"),
        ({"gpus": -1}, "gpus is how many"),
        ({"gpus": float("nan")}, "gpus is how many"),
    ],
)
def test_arguments_that_are_none(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ff.runners.ray(**arguments)


def test_arguments_are_numbers_of_any_kind() -> None:
    assert repr(ff.runners.ray(cpus=np.int64(2), gpus=torch.tensor(0.5))) == "Ray(cpus=2, gpus=0.5)"


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r'pip install "fisherflat\[ray\]"'):
        ff.runners.ray()


# -- the process -------------------------------------------------------------------------------------------------------


def test_signals_and_environment_stay_as_they_are(cluster: Any, tmp_path: Path) -> None:
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}, dict(os.environ)
    runner = ff.runners.ray(cluster.address)
    list(runner(Squares(tmp_path / "log"), numbers(1)))
    after = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}, dict(os.environ)
    assert before == after and ray.is_initialized()
    del runner  # nobody holds it
    assert not ray.is_initialized()


def test_tensors_that_share_memory_still_do() -> None:
    whole = torch.arange(12.0, dtype=torch.float64).reshape(3, 4)
    work = {"whole": whole, "row": whole[1], "turned": whole.mT, "half": torch.ones(3, dtype=torch.bfloat16)}
    rest, arrays = packed(work)
    assert sum(array.nbytes for array in arrays) == 12 * 8 + 3 * 2 and len(rest) < 2000
    for array in arrays:
        array.flags.writeable = False  # as they are in an object store
    found = unpacked(rest, arrays)
    assert all(torch.equal(found[name], work[name]) for name in work)
    assert found["row"].data_ptr() == found["whole"][1].data_ptr() == arrays[0].ctypes.data + 4 * 8
    assert found["turned"].stride() == (1, 4)


# -- what comes back ---------------------------------------------------------------------------------------------------


def test_an_analysis_is_that_of_one_process_bit_for_bit(runner: Ray, tmp_path: Path) -> None:
    small: dict[str, Any] = {"layers": [0], "parts": ["attention", "mlp"], "points": 2, "positions": "last"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as many as a task takes
    here = ff.analyze("python-llama", [[1, 2, 3], [4, 5, 6, 7]], progress=False, **small)
    torch.set_num_threads(threads)
    there = ff.analyze(
        "python-llama", [[1, 2, 3], [4, 5, 6, 7]], runner=runner, folder=tmp_path, progress=False, **small
    )
    pd.testing.assert_frame_equal(there.table, here.table, check_exact=True)
    # all of it is in the journal: nothing is left to do, and no cluster is asked
    again = ff.analyze("python-llama", [[1, 2, 3], [4, 5, 6, 7]], folder=tmp_path, resume=True, progress=False, **small)
    pd.testing.assert_frame_equal(again.table, here.table, check_exact=True)


class Mixing(nn.Module):
    """A module that no worker can import."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 36, dtype=torch.float64).sin().reshape(6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + (x @ self.weight + x.mean(0)).tanh()


def test_a_module_of_ones_own_in_all_directions(runner: Ray) -> None:
    model = nn.ModuleDict({"layers": nn.ModuleList([Mixing(), Mixing()])})
    model.forward = lambda x: model["layers"][1](model["layers"][0](x))  # type: ignore[method-assign]
    states = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    full: dict[str, Any] = {"dim": "full", "parts": ["block"], "positions": [1], "progress": False}
    here, there = (ff.analyze(model, states, runner=one, **full) for one in (one_process, runner))
    assert set(here.table["verdict"]) == {"curved"}
    pd.testing.assert_frame_equal(there.table, here.table, check_exact=True)


def test_a_node_that_is_killed_costs_the_task_that_it_was_at(cluster: Any, runner: Ray, tmp_path: Path) -> None:
    log, found, nodes = tmp_path / "log", {}, set()
    extra = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    killed = False
    for task, (square, node) in runner(Squares(log, 0.3), numbers(24)):
        found[task.number] = square
        nodes.add(node)
        if not killed and extra.node_id in nodes:
            cluster.remove_node(extra, allow_graceful=False)
            killed = True
    assert killed and found == {number: number**2 for number in range(24)}
    # a worker has one task at a time, so that one was lost, or two where the next had begun
    assert 24 <= len(begun(log)) <= 26
    cluster.wait_for_nodes()  # until all know that it is gone


def test_tasks_that_no_worker_survives_are_named_after_all_others(runner: Ray, tmp_path: Path) -> None:
    log, found = tmp_path / "log", {}
    with pytest.raises(OutOfMemoryError, match=r"1 of 6 tasks, the first 'number 1', were lost with their worker 3 "):
        for task, (square, _) in runner(Squares(log, fatal=frozenset({1})), numbers(6)):
            found[task.number] = square
    assert found == {number: number**2 for number in (0, 2, 3, 4, 5)} and begun(log).count("number 1") == 3


def test_nobody_asks_for_more(runner: Ray, tmp_path: Path) -> None:
    log = tmp_path / "log"
    results = runner(Squares(log, 0.3), numbers(50))
    next(results)
    results.close()
    time.sleep(1.5)
    assert len(begun(log)) < 10


def raises(task: Number) -> Any:
    raise InputError("on purpose")


@dataclass
class Failing:
    measure: Callable[[Number], Any]


def test_what_is_raised_there_is_raised_here(runner: Ray) -> None:
    with pytest.raises(InputError, match=r"^on purpose$"):
        list(runner(Failing(raises), numbers(2)))


# -- and with its workers ----------------------------------------------------------------------------------------------


def test_workers_of_another_version(runner: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = _ray._versions()
    monkeypatch.setattr(_ray, "_versions", lambda: own | {"torch": "2.0.0"})
    with pytest.raises(ClusterError, match=rf"has torch {own['torch'].replace('+', '.')} and not 2\.0\.0; install"):
        list(runner(Squares(tmp_path / "log"), numbers(2)))
    assert not (tmp_path / "log").exists()


def test_a_model_that_is_not_there(runner: Ray, tmp_path: Path) -> None:
    class Elsewhere:
        def __reduce__(self) -> Any:
            return ff.load, (str(tmp_path / "nothing"),)

    with pytest.raises(ClusterError, match=r"cannot read the model \(CheckpointError: .*must be there on all machines"):
        list(runner(Elsewhere(), numbers(1)))


def test_no_machine_has_a_gpu(runner: Ray, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ray, "PATIENCE", 1.0)
    with pytest.raises(ClusterError, match=r"1 CPUs and 1 GPUs; there are 2 of 1 CPUs and 0 GPUs"):
        list(ff.runners.ray(cluster.address, gpus=1)(Squares(Path()), numbers(1)))


def test_soon_after_the_machine_has_started(runner: Ray, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock counts from there on; what no machine has is refused at once all the same."""
    start = time.monotonic()
    monkeypatch.setattr(_ray, "time", SimpleNamespace(monotonic=lambda: time.monotonic() - start, sleep=time.sleep))
    with pytest.raises(ClusterError, match="no machine of the cluster has what a task takes"):
        list(ff.runners.ray(cluster.address, gpus=1)(Squares(Path()), numbers(1)))
    assert time.monotonic() - start < 45


def test_it_waits_for_room_without_work_of_its_own(
    runner: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All machines go away before the first task begins, and one comes back."""
    rooms, looks = iter([1, 0, 0]), [0]

    def monotonic() -> float:
        looks[0] += 1
        return time.monotonic()

    monkeypatch.setattr(_ray, "time", SimpleNamespace(monotonic=monotonic, sleep=time.sleep))
    monkeypatch.setattr(_ray, "_LOOK", 0.5)
    monkeypatch.setattr(runner, "_check_room", lambda engine, moved: next(rooms, 1))
    assert len(list(runner(Squares(tmp_path / "log"), numbers(2)))) == 2
    assert looks[0] < 50


def test_what_cannot_be_sent_says_what_to_do(runner: Ray) -> None:
    with pytest.raises(InputError, match=r"cannot be sent to other processes \(.*\); leave out runner"):
        list(runner(threading.Lock(), numbers(1)))


def test_an_object_store_that_is_full(runner: Ray, tmp_path: Path) -> None:
    ballast = torch.zeros(2 * STORE // 8, dtype=torch.float64)
    with pytest.raises(OutOfMemoryError, match=r"the model takes 0\.16 GiB, for which Ray's object store has no room"):
        list(runner(Squares(tmp_path / "log", ballast=ballast), numbers(1)))
    assert dict(runner(Squares(tmp_path / "log"), numbers(1)))[Number(0)][0] == 0  # the cluster is as it was


def test_a_connection_to_another_cluster_is_not_taken_for_this_one(runner: Ray, tmp_path: Path) -> None:
    list(runner(Squares(tmp_path / "log"), numbers(1)))
    with pytest.raises(ClusterError, match=r"connected to the Ray cluster at .*, not to 127\.0\.0\.1:1"):
        list(ff.runners.ray("127.0.0.1:1")(Squares(tmp_path / "log"), numbers(1)))


def test_the_shell_takes_a_cluster(cluster: Any, tmp_path: Path) -> None:
    small = ["--ids", "1,2,3", "--layer", "0", "--part", "mlp", "--points", "1"]
    both: Sequence[Sequence[str]] = ([], ["--runner", "ray", "--ray-address", cluster.address])
    for name, options in zip("ab", both, strict=True):
        out = str(tmp_path / name)
        done = CliRunner().invoke(cli.app, ["analyze", "python-llama", *small, *options, "--out", out])
        assert done.exit_code == 0, done.output
    tables = [(tmp_path / name / "table.csv").read_bytes() for name in "ab"]
    assert tables[0] == tables[1]
