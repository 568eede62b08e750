"""Options that several commands share: they are spelled the same, mean the same, and take ranges."""

from __future__ import annotations

import inspect
import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from cases.tiny_models import save_tiny, save_word_tokenizer
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat.cli import _options as options
from fisherflat.cli import app
from fisherflat.cli._threads import leave_busy_cores
from fisherflat.errors import InputError
from fisherflat.report import analyze


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["0-3,-1"], [0, 1, 2, 3, -1]),
        (["0", "2 , 4"], [0, 2, 4]),
        (["-3--1"], [-3, -2, -1]),
        (["1-1", "1"], [1]),
        (["all"], "all"),
    ],
)
def test_indices(given: list[str], found: Any) -> None:
    assert options.indices(given, "--layer", instead=["all"]) == found


@pytest.mark.parametrize("given", ["3-1", "-1--3", "0--1", "a", "1;2", "all,1", "1.5", "0-"])
def test_what_is_no_index_is_wrong_usage(given: str) -> None:
    with pytest.raises(typer.BadParameter):
        options.indices([given], "--layer", instead=["all"])


def test_an_option_means_the_same_everywhere() -> None:
    """Commands that share an option share its spellings, its kind and whether it may be repeated."""
    found: dict[str, set[tuple[Any, ...]]] = {}
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                spelled = tuple(name for name in parameter.opts if name != "--frozen")
                found.setdefault(spelled[0], set()).add((spelled, parameter.multiple, parameter.is_flag))
    assert {"--layer", "--part", "--reading", "--position", "--prompt", "--moves", "--device"} <= set(found)
    assert not {name: kinds for name, kinds in found.items() if len(kinds) > 1}


def test_defaults_are_those_of_python() -> None:
    command = typer.main.get_command(app).commands["analyze"]  # type: ignore[attr-defined]
    python = {name: p.default for name, p in inspect.signature(analyze).parameters.items()}
    for parameter in command.params:
        if parameter.name in python and parameter.name not in ("model", "prompt", "folder", "dtype"):
            alone = parameter.multiple and isinstance(python[parameter.name], str)  # of several that may be given
            assert parameter.default == ([python[parameter.name]] if alone else python[parameter.name]), parameter.name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = save_tiny(tmp_path_factory.mktemp("tiny") / "model", "bert")
    save_word_tokenizer(made)
    return made


def test_certificates_of_several_layers_readings_and_prompts_are_all_written(folder: Path, tmp_path: Path) -> None:
    run = CliRunner()
    arguments = [
        "certify",
        str(folder),
        "--layer",
        "0-1,-1",
        "--reading",
        "frozen pattern,live",
        "--prompt",
        "the cat sat",
    ]
    arguments += ["--prompt", "a mat on", "--out", str(tmp_path / "proof.json")]
    done = run.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = {path.name: ff.Certificate.load(path) for path in tmp_path.glob("*.json")}
    assert set(found) == {
        f"proof-{layer}-{reading}-prompt-{prompt}.json"
        for layer in (0, 1)
        for reading in ("frozen-pattern", "live")
        for prompt in (0, 1)
    }
    for name, certificate in found.items():
        assert certificate.subject["layer"] == int(name.split("-")[1])
        assert certificate.verdict == ("flat" if "frozen" in name else "curved")
    held = run.invoke(app, ["verify", str(tmp_path / "proof-1-live-prompt-1.json"), str(folder)])
    assert held.exit_code == 0, held.output


def test_a_single_certificate_has_the_name_that_was_asked_for(folder: Path, tmp_path: Path) -> None:
    arguments = ["certify", str(folder), "--layer", "-1", "--frozen", "pattern", "--prompt", "the cat sat"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "proof.json")])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["proof.json", "report.html"]
    assert ff.Certificate.load(tmp_path / "proof.json").subject["layer"] == 1
    outside = CliRunner().invoke(app, [*arguments, "--layer", "2", "--out", str(tmp_path / "other.json")])
    assert outside.exit_code == 1 and "indices run from 0 to 1" in str(outside.exception)


def test_depth_of_several_prompts_and_positions_has_a_folder_each(folder: Path, tmp_path: Path) -> None:
    arguments = ["depth", str(folder), "--prompt", "the cat sat", "--prompt", "a mat on", "--position", "1-2"]
    arguments += ["--points", "1", "--budget-points", "0", "--resolution", "0", "--reading", "live"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    tokens = {path.name: ff.DepthStudy.load(path).token for path in tmp_path.iterdir()}
    assert tokens == {
        "prompt-0-position-1": "the",
        "prompt-0-position-2": "cat",
        "prompt-1-position-1": "a",
        "prompt-1-position-2": "mat",
    }


def given(texts: list[str] | None = None, files: list[str] | None = None, ids: list[str] | None = None) -> list[Any]:
    return options.Prompts(texts, files, ids).given()


def test_token_ids_are_prompts() -> None:
    """They stand in the place of the default text, and beside texts that were given, also that one."""
    assert given() == options.PROMPT
    assert given(ids=["5,17, 3", "[8 9]"]) == [[5, 17, 3], [8, 9]]
    assert given(["a word"], ids=["5"]) == ["a word", [5]]
    assert given(list(options.PROMPT), ids=["5"]) == [*options.PROMPT, [5]]
    for wrong in ("", "a", "1.5", "5,-1", "5;6", "٥", "9" * 4400):
        with pytest.raises(typer.BadParameter, match="no list of token ids"):
            given(ids=[wrong])


def test_prompts_come_from_files_a_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffthe cat\r\n\r\n    sat on, \u2028a mat\nend".encode())
    assert given(files=[str(file)]) == ["the cat", "    sat on, \u2028a mat", "end"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))
    assert given(["zero"], files=["-"], ids=["7"]) == ["zero", "one", "two", [7]]


def test_files_that_are_no_prompts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is: no file, a folder, a pipe, a device that never ends, nothing, no text, too much."""
    monkeypatch.setattr(options, "MAX_PROMPTS", 100)
    contents = {"empty": b"", "blank": b" \n\t\n", "latin": "café".encode("latin-1"), "long": b"a" * 101}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    for name in (*contents, "pipe", "nowhere", ".", "a\0b"):
        with pytest.raises(InputError):
            given(files=[str(tmp_path / name)])
    with pytest.raises(InputError):
        given(files=["/dev/zero"])
    for content in contents.values():
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        with pytest.raises(InputError, match="--prompt-file -"):
            given(files=["-"])


def test_ids_run_where_there_is_no_tokenizer(tmp_path: Path) -> None:
    import torch

    folder = save_tiny(tmp_path / "plain", "llama", torch.float32)
    arguments = ["--ids", "5,6,7,8", "--layer", "0", "--part", "mlp", "--position", "1", "--points", "1"]
    done = CliRunner().invoke(app, ["analyze", str(folder), *arguments, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    found = analyze(folder, [5, 6, 7, 8], layers=[0], parts=["mlp"], positions=[1], points=1, progress=False).table
    written = ff.Analysis.load(tmp_path / "out").table
    assert list(written["scalar_curvature"]) == pytest.approx(list(found["scalar_curvature"]))


@pytest.mark.parametrize(("load", "threads"), [(0.2, 4), (1.0, 4), (2.6, 3), (5.4, 1), (30.0, 1)])
def test_a_command_takes_threads_for_idle_cores(monkeypatch, load, threads):
    taken = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    CliRunner().invoke(app, ["verify", "nothing.json", "nothing"])  # as any other: all are made alike
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    leave_busy_cores()
    assert taken == [threads]
