"""How often an analysis that is killed is the same in the end: `python tests/studies/kills.py --count 100`.

An analysis of a small model is begun from the shell's command, killed at a random moment (while it loads, measures,
writes its journal or its tables), and resumed, again and again. In the end its tables are compared with those of an
analysis that was left alone, byte for byte, and no task that was in the journal may have been measured again.

With `--ray` the tasks run on a cluster of two nodes, each with one core, of this machine. All kills come while workers
have tasks, when the journal has so many lines, drawn among those that are left. Half of them are of a worker instead of
the command: it costs its task, and the command goes on. `in the middle` are those by which the journal had some lines.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from cases.tiny_models import save_tiny, save_word_tokenizer

import fisherflat as ff
from fisherflat.runners import _ray

TABLES = ("table.csv", "table.parquet", "estimates.csv", "readings.csv", "analysis.json")
PROMPTS = ("the cat sat on a mat", "a dogs run", "the mat", "dogs sat on the cat")


def command(model: Path, out: Path, points: int, *options: str) -> list[str]:
    prompts = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    return ["fisherflat", "analyze", str(model), "--out", str(out), *prompts, "--points", str(points), *options]


def run(arguments: list[str], log: Path) -> None:
    """The command, as the shell would run it; each task that begins is a line of the log."""
    from fisherflat import cli
    from fisherflat.studies.layers._study import Study

    measure = Study.measure

    def noted(self, task):  # type: ignore[no-untyped-def]
        with log.open("a") as file:
            file.write(f"{task.key}\n")
        return measure(self, task)

    Study.measure = noted  # type: ignore[method-assign]
    sys.argv = arguments
    said = os.open(log.with_suffix(".said"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    cli.main()


def forked(work: Callable[[], None]) -> int:
    """The number of a process that does the work and ends; it starts at once, since all is imported by now."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            os._exit(code)
    return child


def tasks(journal: Path) -> list[str]:
    """Those that the journal holds whole."""
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    return [said["task"] for said in map(json.loads, lines) if "task" in said]


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def runs(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


#: in a process of its own, since one that holds a cluster has threads and cannot fork
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

node = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
config = {"worker_niceness": 0}  # on a machine that others use, workers that yield to all of them get nowhere
cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False, "_system_config": config})
cluster.add_node(**node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


class Nodes(NamedTuple):
    """A cluster: its address, and the process that began it."""

    address: str
    process: int

    def at_work(self) -> list[int]:
        """The numbers of the workers that have a task."""
        parents, busy = {}, []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words, fields = (place / "cmdline").read_bytes(), (place / "stat").read_text().rpartition(")")[2]
            except OSError:  # it has ended
                continue
            parents[int(place.name)] = int(fields.split()[1])
            if words.startswith(f"ray::{_ray._measured.__name__}".encode()):  # not the agents, without whom a node ends
                busy.append(int(place.name))
        return [worker for worker in busy if self.process in list(_above(worker, parents))]


def _above(process: int, parents: dict[int, int]) -> Iterator[int]:
    while process := parents.get(process, 0):
        yield process


@contextmanager
def cluster() -> Iterator[Nodes]:
    """Two nodes with one core each."""
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield Nodes(process.stdout.readline().strip(), process.pid)
        finally:
            process.stdin.close()


def _at_work(nodes: Nodes, child: int, journal: Path, lines: int, rng: random.Random) -> list[int]:
    """The workers that have a task soon after the journal has so many; none where the command ends before."""
    while runs(child) and not (len(tasks(journal)) >= lines and nodes.at_work()):
        time.sleep(0.02)
    time.sleep(rng.uniform(0, 0.3))
    return nodes.at_work() if runs(child) else []


def kills(count: int, seed: int, folder: Path, nodes: Nodes | None = None) -> dict[str, int]:
    """Kill and resume, so many times. **Raises:** `AssertionError` where something was lost or done again."""
    where = [] if nodes is None else ["--runner", "ray", "--ray-address", nodes.address]
    points = 2 if nodes is None else 64  # so that tasks take longer than a look at the workers
    model = save_tiny(folder / "model", "bert")
    save_word_tokenizer(model)
    # everything is imported once, here
    ff.analyze(ff.load(model), list(PROMPTS), points=1, layers=[0], progress=False).save(folder / "warm")
    started = time.perf_counter()
    assert ended(forked(lambda: run(command(model, folder / "alone", points), folder / "log"))) == 0
    whole = time.perf_counter() - started
    expected = {name: (folder / "alone" / name).read_bytes() for name in TABLES}
    every = tasks(folder / "alone" / "journal.jsonl")
    rng, found = (
        random.Random(seed),
        {"kills": 0, "of workers": 0, "analyses": 0, "while measuring": 0, "in the middle": 0,
         "of workers in the middle": 0, "while writing tables": 0, "measured again": 0},
    )  # fmt: skip
    while found["kills"] < count:
        found["analyses"] += 1
        out, log = folder / f"out-{found['analyses']}", folder / f"log-{found['analyses']}"
        journal = out / "journal.jsonl"
        while True:
            before, begun = tasks(journal), len(log.read_text().splitlines()) if log.exists() else 0
            resumed = ["--resume"] if journal.exists() else []
            arguments = command(model, out, points, *where, *resumed)
            child = forked(lambda log=log, arguments=arguments: run(arguments, log))
            workers = []
            if nodes is not None and found["kills"] < count:
                workers = _at_work(nodes, child, journal, rng.randint(len(before), len(every)), rng)
            if workers and rng.random() < 0.5:
                os.kill(rng.choice(workers), signal.SIGKILL)
                found["kills"], found["of workers"] = found["kills"] + 1, found["of workers"] + 1
                found["of workers in the middle"] += 0 < len(tasks(journal)) < len(every)
            elif workers:
                os.kill(child, signal.SIGKILL)
            elif nodes is None and found["kills"] < count:
                time.sleep(rng.uniform(0, whole / 2 if rng.random() < 0.7 else whole))
                os.kill(child, signal.SIGKILL)
            code = ended(child)
            again = log.read_text().splitlines()[begun:] if log.exists() else []
            found["measured again"] += len(set(again) & set(before))
            assert tasks(journal)[: len(before)] == before, "lines were lost"
            if code == 0:
                break
            assert code == -signal.SIGKILL, f"exit code {code}: {log.with_suffix('.said').read_text()[-2000:]}"
            found["kills"] += 1
            done = len(tasks(journal))
            begun_here = len(again) > 0 or done > len(before)  # workers of a cluster keep no log
            found["while measuring"] += begun_here and done < len(every)
            found["in the middle"] += 0 < done < len(every)
            found["while writing tables"] += done == len(every)
        assert sorted(tasks(journal)) == sorted(every), "tasks are missing or there twice"
        different = [name for name in TABLES if (out / name).read_bytes() != expected[name]]
        assert not different, f"{different} differ"
        left = [path.name for path in out.rglob("*") if path.name.endswith(".part") or path.name == ".lock"]
        assert not left, f"{left} were left behind"
    assert found["measured again"] == 0
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ray", action="store_true", help="on a cluster of two nodes, whose workers are killed too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, cluster() if chosen.ray else nullcontext() as nodes:
        print(json.dumps(kills(chosen.count, chosen.seed, Path(temporary), nodes), indent=1))
