"""How commands end: exit codes, interrupts, folders that another run holds or that hold a finished result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cases.tiny_models import save_tiny, save_word_tokenizer, tiny_model
from conftest import ROOT
from typer.testing import CliRunner

from fisherflat import cli
from fisherflat.errors import InputError
from fisherflat.models import Model
from fisherflat.studies.layers._study import Study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = save_tiny(tmp_path_factory.mktemp("tiny") / "model", "bert")
    save_word_tokenizer(made)
    return made


def started(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fisherflat.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_two_analyses_in_one_folder_and_a_signal_that_ends_one(folder: Path, tmp_path: Path) -> None:
    """The second is refused, whatever it measures; SIGTERM keeps what is done, says how to go on, and it goes on."""
    out, many = tmp_path / "out", ["--points", "300", "--positions", "all"]
    first = started(
        "analyze", folder, "--prompt", "the cat sat on a mat", "--prompt", "a dogs run", "--out", out, *many
    )
    while first.poll() is None and not (out / "journal.jsonl").exists():
        time.sleep(0.01)
    second = started("analyze", folder, "--prompt", "the mat", "--out", out, "--overwrite")
    said = second.communicate()[1]
    assert second.returncode == 1 and f"another run, process {first.pid}, works in {out}" in said
    assert first.poll() is None, "too quick for this test"
    first.send_signal(signal.SIGTERM)
    said = first.communicate()[1]
    assert first.returncode == 130 and "the same command with --resume goes on" in said, said
    assert json.loads((out / "analysis.json").read_text())["complete"] is False
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def ends(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[Any, str]:
    """The exit code, and what was said on the error stream."""
    monkeypatch.setattr(sys, "argv", ["fisherflat", *map(str, arguments)])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli.warnings, "showwarning", cli.warnings.showwarning)
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, capsys.readouterr().err


def test_exit_codes_tell_what_happened(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def code(*arguments: object) -> Any:
        return ends(monkeypatch, capsys, *arguments)[0]

    proof, pipe = tmp_path / "proof.json", tmp_path / "pipe.json"
    certify = ["certify", folder, "--layer", "0", "--frozen", "pattern", "--prompt", "the cat sat"]
    assert code(*certify, "--out", proof) == 0 and code("verify", proof, folder) == 0
    other = tmp_path / "other"
    tiny_model("bert", seed=1).float().save_pretrained(other)
    save_word_tokenizer(other)
    assert code("verify", proof, other) == 3  # refuted
    os.mkfifo(pipe)
    for unreadable in (pipe, tmp_path / "nowhere.json", tmp_path, Path("/dev/zero")):
        assert code("verify", unreadable, folder) == 4
    proof.write_text(proof.read_text().replace("flat", "bent", 1))
    assert code("verify", proof, folder) == 4  # damaged: it says nothing
    assert code("verify", proof) == 2
    assert code(*certify[:-1], "", "--out", tmp_path / "new.json") == 1
    assert code("inspect", tmp_path / "nowhere") == 4
    assert code("inspect", tmp_path) == 4


def test_where_results_go_is_tried_before_a_model_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: Any) -> Any:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(cli._options, "load_model", loaded)
    (tmp_path / "file").touch()
    beyond, missing = tmp_path / "file" / "out", tmp_path / "missing" / "c.json"
    prompt = ["--prompt", "a mat"]
    for arguments in (
        ["analyze", folder, *prompt, "--out", beyond],
        ["depth", folder, *prompt, "--out", beyond],
        ["symmetry", folder, "--out", beyond],
        ["certify", folder, "--layer", "0", "--out", missing],
        ["inspect", folder, "--out", beyond / "c.json"],
    ):
        found = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
        assert isinstance(found.exception, InputError), found.exception
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]


SMALL = ["--points", "1", "--prompt", "the cat sat"]
STUDIES = {
    "analyze": ["--layer", "0", "--part", "mlp", *SMALL],
    "depth": ["--budget-points", "0", "--resolution", "0", "--reading", "live", *SMALL],
    "symmetry": [],
}


@pytest.mark.parametrize("study", STUDIES)
def test_a_finished_folder_is_kept(study: str, folder: Path, tmp_path: Path) -> None:
    def run(*more: str) -> Any:
        return CliRunner().invoke(cli.app, [study, str(folder), *STUDIES[study], "--out", str(tmp_path / "out"), *more])

    assert run().exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = run()
    assert isinstance(again.exception, InputError) and "overwrite" in str(again.exception)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert run("--overwrite").exit_code == 0
    assert all(path.stat().st_mtime_ns > changed for path, changed in before.items())


@pytest.mark.parametrize("at", ["loading", "measuring"])
def test_an_interrupt_says_how_to_go_on_whenever_it_comes(
    at: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(*((Model, "encode") if at == "loading" else (Study, "measure")), stop)
    found = CliRunner().invoke(cli.app, ["analyze", str(folder), *SMALL, "--out", str(tmp_path / "out")])
    assert found.exit_code == 130 and "with --resume goes on" in found.output
