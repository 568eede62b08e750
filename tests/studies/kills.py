"""How often an analysis that is killed is the same in the end: `python tests/studies/kills.py --count 100`.

An analysis of a small model is begun from the shell's command, killed at a random moment (while it loads, measures,
writes its journal or its tables), and resumed, again and again. In the end its tables are compared with those of an
analysis that was left alone, byte for byte, and no task that was in the journal may have been measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from cases.tiny_models import save_tiny, save_word_tokenizer

import fisherflat as ff

TABLES = ("table.csv", "table.parquet", "estimates.csv", "readings.csv", "analysis.json")
PROMPTS = ("the cat sat on a mat", "a dogs run", "the mat", "dogs sat on the cat")


def command(model: Path, out: Path, *options: str) -> list[str]:
    prompts = [word for prompt in PROMPTS for word in ("--prompt", prompt)]
    return ["fisherflat", "analyze", str(model), "--out", str(out), *prompts, "--points", "2", *options]


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
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
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


def kills(count: int, seed: int, folder: Path) -> dict[str, int]:
    """Kill and resume, so many times. **Raises:** `AssertionError` where something was lost or done again."""
    model = save_tiny(folder / "model", "bert")
    save_word_tokenizer(model)
    # everything is imported once, here
    ff.analyze(ff.load(model), list(PROMPTS), points=1, layers=[0], progress=False).save(folder / "warm")
    started = time.perf_counter()
    assert ended(forked(lambda: run(command(model, folder / "alone"), folder / "log"))) == 0
    whole = time.perf_counter() - started
    expected = {name: (folder / "alone" / name).read_bytes() for name in TABLES}
    every = tasks(folder / "alone" / "journal.jsonl")
    rng, found = (
        random.Random(seed),
        {"kills": 0, "analyses": 0, "while measuring": 0, "while writing tables": 0, "measured again": 0},
    )
    while found["kills"] < count:
        found["analyses"] += 1
        out, log = folder / f"out-{found['analyses']}", folder / f"log-{found['analyses']}"
        while True:
            before, begun = tasks(out / "journal.jsonl"), len(log.read_text().splitlines()) if log.exists() else 0
            resumed = ["--resume"] if (out / "journal.jsonl").exists() else []
            child = forked(lambda out=out, log=log, resumed=resumed: run(command(model, out, *resumed), log))
            if found["kills"] < count:
                time.sleep(rng.uniform(0, whole / 2 if rng.random() < 0.7 else whole))
                os.kill(child, signal.SIGKILL)
            code = ended(child)
            again = log.read_text().splitlines()[begun:] if log.exists() else []
            found["measured again"] += len(set(again) & set(before))
            assert tasks(out / "journal.jsonl")[: len(before)] == before, "lines were lost"
            if code == 0:
                break
            assert code == -signal.SIGKILL, f"exit code {code}"
            found["kills"] += 1
            done = len(tasks(out / "journal.jsonl"))
            found["while measuring"] += len(again) > 0 and done < len(every)
            found["while writing tables"] += done == len(every)
        assert sorted(tasks(out / "journal.jsonl")) == sorted(every), "tasks are missing or there twice"
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
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(kills(chosen.count, chosen.seed, Path(temporary)), indent=1))
