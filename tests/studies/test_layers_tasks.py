"""How tasks are carried out: results as they come, resumption, several processes, runners of other people."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cases.tiny_models import save_tiny, save_word_tokenizer, tiny_model
from cases.training import undisturbed
from torch import nn
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat import cli
from fisherflat.errors import InputError
from fisherflat.models import Model
from fisherflat.runners import Work, one_process
from fisherflat.studies._journal import FILE, Journal, Row
from fisherflat.studies.layers._study import Study
from fisherflat.studies.layers._tasks import Task

IDS = [5, 6, 7, 8, 9, 11]
OTHER = [12, 4, 8, 30]
SMALL: dict[str, Any] = {"positions": "last", "points": 2, "parts": ["attention", "mlp"], "progress": False}


@pytest.fixture(scope="module")
def llama() -> Model:
    return Model(tiny_model("llama"), name="llama")


def interrupt_at(monkeypatch: pytest.MonkeyPatch, count: int) -> list[str]:
    """Ctrl-C when so many tasks have begun; the keys of those that did."""
    measure, keys = Study.measure, []

    def stop(self: Study, task: Task) -> list[Row]:
        keys.append(task.key)
        if len(keys) == count:
            raise KeyboardInterrupt
        return measure(self, task)

    monkeypatch.setattr(Study, "measure", stop)
    return keys


def test_an_interrupt_keeps_what_is_done_and_resume_measures_the_rest(
    llama: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = ff.analyze(llama, [IDS, OTHER], **SMALL)
    keys = interrupt_at(monkeypatch, 4)
    first = ff.analyze(llama, [IDS, OTHER], folder=tmp_path, **SMALL)
    assert not first.complete and first.sentences()[-1] == "Interrupted: 3 of 8 tasks are done."
    assert keys[0] == "layer 0/attention/prompt 0"
    with pytest.raises(InputError, match="was not finished; resume it"):
        ff.analyze(llama, [IDS, OTHER], folder=tmp_path, **SMALL)
    del keys[:]
    keys += [""] * 100  # no more interrupts
    second = ff.analyze(llama, [IDS, OTHER], folder=tmp_path, resume=True, **SMALL)
    assert len(set(keys[100:])) == len(keys[100:]) == 5 and "layer 0/attention/prompt 0" not in keys
    assert second.complete
    pd.testing.assert_frame_equal(second.table, whole.table)
    # finished: nothing is left to do, and nothing is begun anew unless that is asked for
    del keys[100:]
    pd.testing.assert_frame_equal(
        ff.analyze(llama, [IDS, OTHER], folder=tmp_path, resume=True, **SMALL).table, whole.table
    )
    assert len(keys) == 100
    with pytest.raises(InputError, match="finished analysis; resume it"):
        ff.analyze(llama, [IDS, OTHER], folder=tmp_path, **SMALL)
    assert len(keys) == 100
    ff.analyze(llama, [IDS, OTHER], folder=tmp_path, overwrite=True, **SMALL)
    assert len(keys) == 108


def test_resume_refuses_what_would_not_fit(llama: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = interrupt_at(monkeypatch, 3)
    ff.analyze(llama, IDS, folder=tmp_path, **SMALL)
    del keys[:]
    keys += [""] * 100
    for change, said in (
        ({"points": 3}, "points was 2, is 3"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"moves": "random"}, "moves was"),
        ({"readings": ["live"]}, "readings was null"),
        ({"positions": [1]}, "positions was"),
    ):
        with pytest.raises(InputError, match=said):
            ff.analyze(llama, IDS, folder=tmp_path, resume=True, **{**SMALL, **change})
    with pytest.raises(InputError, match="prompts was"):
        ff.analyze(llama, OTHER, folder=tmp_path, resume=True, **SMALL)
    with pytest.raises(InputError, match="weights was"):
        ff.analyze(Model(tiny_model("llama", seed=1)), IDS, folder=tmp_path, resume=True, **SMALL)
    assert len(keys) == 100
    # other layers and parts are other tasks, and those that are done still hold
    more = ff.analyze(llama, IDS, folder=tmp_path, resume=True, **{**SMALL, "layers": [0], "parts": ["block", "mlp"]})
    assert keys[100:] == ["layer 0/block/prompt 0"]
    assert set(more.table.part) == {"block", "mlp"}


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {"seed": 0})
    journal.write("a", [{"x": 1.5}, {"x": float("nan")}])
    journal.write("b", [{"x": 2.0}])
    journal.close(finished=False)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-7])
    journal = Journal(tmp_path, {"seed": 0}, resume=True)
    assert journal.done == {"a": [{"x": 1.5}, {"x": None}]}
    journal.write("c", [])
    journal.close(finished=True)
    assert [json.loads(line).get("task") for line in path.read_text().splitlines()] == [None, "a", "c", None]
    path.write_text('{"identity": 3}\n')
    with pytest.raises(InputError, match="is damaged"):
        Journal(tmp_path, {"seed": 0}, resume=True)


def test_another_runner_needs_no_change_elsewhere(llama: Model, tmp_path: Path) -> None:
    """One that carries out tasks in another order; the table is the same."""

    def backwards(work: Work, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Row]]]:
        yield from one_process(work, tasks[::-1])

    first, second = (ff.analyze(llama, [IDS, OTHER], runner=runner, **SMALL) for runner in (None, backwards))
    pd.testing.assert_frame_equal(first.table, second.table)


def threads(work: Work, tasks: Sequence[Task]) -> Iterator[tuple[Task, list[Row]]]:
    """Carries out tasks in four threads at a time, as `concurrent.futures` gives them to anyone."""
    with ThreadPoolExecutor(4) as pool:
        futures = {pool.submit(work.measure, task): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()


@pytest.mark.parametrize(("engine", "kind"), [("taylor", "on disk"), ("autodiff", "a module")])
def test_threads_make_the_table_of_one_and_disturb_no_training(tmp_path: Path, kind: str, engine: str) -> None:
    """No row is lost, and an unrelated training loop in yet another thread comes out bit for bit as alone."""
    on_disk = kind == "on disk"
    model = ff.load(save_tiny(tmp_path / "model", "llama"), lazy=True) if on_disk else Model(tiny_model("llama"))
    options = {**SMALL, "engine": engine, "points": 1 if engine == "autodiff" else 2}
    options |= {"parts": ["mlp"]} if engine == "autodiff" else {}
    one = ff.analyze(model, [IDS, OTHER], **options)
    assert one.complete and one.table["error"].isna().all() and one.table["scalar_curvature"].notna().all()
    for many in undisturbed(lambda: ff.analyze(model, [IDS, OTHER], runner=threads, **options), rounds=2):
        assert many.complete and len(many.table) == len(one.table)
        pd.testing.assert_frame_equal(one.table, many.table, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["on disk", "a module"])
def test_two_processes_make_the_table_of_one(tmp_path: Path, kind: str) -> None:
    """The weights are read again by each process, or sent to it."""
    if kind == "on disk":
        model = ff.load(save_tiny(tmp_path / "model", "llama"), lazy=True)
    else:
        model = Model(tiny_model("llama"))
    one, two = (ff.analyze(model, [IDS, OTHER], jobs=jobs, layers=[1], **SMALL) for jobs in (1, 2))
    assert one.complete and len(one.table) == 2 * 2 * (2 + 2)
    pd.testing.assert_frame_equal(one.table, two.table)


def test_what_cannot_be_sent_to_other_processes_is_an_error_of_ours() -> None:
    class Local(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, input_ids: Any) -> Any:
            return self.module(input_ids)

    with pytest.raises(InputError, match="cannot be sent to other processes"):
        ff.analyze(Model(Local(tiny_model("llama"))), IDS, jobs=2, **SMALL)


def test_resume_after_kill(tmp_path: Path) -> None:
    """From the shell: killed with work half done, the same command goes on and repeats none of it."""
    folder, out = save_tiny(tmp_path / "model", "bert"), tmp_path / "out"
    save_word_tokenizer(folder)
    words = ["analyze", str(folder), "--out", str(out), "--prompt", "the cat sat on a mat", "--prompt", "a dogs run"]
    words += ["--points", "60", "--positions", "all"]
    command = [sys.executable, "-m", "fisherflat.cli", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = out / FILE
    while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = journal.read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    kept = [json.loads(line)["task"] for line in whole.splitlines()[1:]]
    assert 2 <= len(kept) < 12 and not (out / "table.csv").exists()
    done = CliRunner().invoke(cli.app, [*words, "--resume"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    after = journal.read_bytes()
    assert after.startswith(whole)  # nothing was measured again
    tasks = [json.loads(line).get("task") for line in after.splitlines()]
    assert len(set(tasks[1:-1])) == len(tasks) - 2 == 12
    table = pd.read_parquet(out / "table.parquet")
    assert len(table) == sum(len(json.loads(line)["rows"]) for line in after.splitlines()[1:-1])
