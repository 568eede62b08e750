"""`fisherflat analyze`: a trained model from the shell, its options, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cases.tiny_models import save_tiny, save_word_tokenizer
from typer.testing import CliRunner

from fisherflat.cli import app
from fisherflat.errors import CheckpointError, InputError
from fisherflat.studies._journal import Row
from fisherflat.studies.layers._study import Study
from fisherflat.studies.layers._tasks import Task


def test_minilm_end_to_end(minilm_path: Path, tmp_path: Path) -> None:
    """Real weights from the shell: frozen attention is flat, live attention is not."""
    out = tmp_path / "out"
    prompt = "Curvature is what remains when all else is flat."
    command = [
        sys.executable,
        "-m",
        "fisherflat.cli",
        "analyze",
        str(minilm_path),
        "--prompt",
        prompt,
        "--out",
        str(out),
        *("--position", "last", "--points", "1"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Attention with its pattern frozen: flat, by structure alone, in all 6 layers." in done.stdout
    assert {"analysis.json", "layers.png", "table.csv", "table.parquet"} < {path.name for path in out.iterdir()}
    table = pd.read_csv(out / "table.csv")
    assert len(table) == 6 * (2 + 1 + 3) and table.error.isna().all()
    frozen, live = (table.query("part == 'attention' and reading == @r") for r in ("frozen pattern", "live"))
    assert set(frozen.verdict) == {"flat (proved)"} and (frozen.scalar_curvature == 0).all()
    assert set(live.verdict) == {"curved"}
    assert live.scalar_curvature.abs().between(1e-6, 1.0).all()
    assert set(table.token) == {"."}  # the last token before [SEP]


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    folder = save_tiny(tmp_path / "model", "bert")
    save_word_tokenizer(folder)
    return folder


def command(folder: Path, out: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["analyze", str(folder), "--prompt", "the cat sat on", "--out", str(out), *options])


def test_options_of_the_command(tiny_folder: Path, tmp_path: Path) -> None:
    options = ["--prompt", "a mat", "--layers", "-1", "--positions", "1,-2", "--points", "2", "--moves", "random:3"]
    options += ["--dim", "3", "--parts", "attention,mlp", "--heads", "0,2", "--readings", "live, frozen patterns"]
    done = command(tiny_folder, tmp_path / "out", *options, "--dtype", "float32", "--jobs", "1", "--seed", "4")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert set(table.layer) == {1} and set(table.point) == {0, 1}
    assert set(table.part) == {"attention", "mlp", "head 0", "head 2"}
    assert set(table.reading) == {"live", "frozen pattern"}
    assert "Computed in float32" in done.output and (tmp_path / "out" / "heads.png").exists()
    settings = json.loads((tmp_path / "out" / "analysis.json").read_text())["settings"]
    assert settings["moves"] == {"kind": "random", "dim": 3, "seed": 3} and settings["seed"] == 4
    assert set(zip(table.text, table.token, strict=True)) == {
        ("the cat sat on", "the"),
        ("the cat sat on", "on"),
        ("a mat", "a"),
        ("a mat", "mat"),
    }
    assert all(len(json.loads(u)) == 3 for u in table.u)


def test_interrupted_command_saves_what_is_done(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, keys = Study.measure, []

    def stop(self: Study, task: Task) -> list[Row]:
        keys.append(task.key)
        if len(keys) == 4:
            raise KeyboardInterrupt
        return measure(self, task)

    monkeypatch.setattr(Study, "measure", stop)
    done = command(tiny_folder, tmp_path / "out")
    assert done.exit_code == 130
    assert "Interrupted: 3 of 6 tasks are done." in done.output
    kept = pd.read_csv(tmp_path / "out" / "table.csv")
    assert set(zip(kept.layer, kept.part, strict=True)) == {(0, "attention"), (0, "mlp"), (0, "block")}
    again = command(tiny_folder, tmp_path / "out", "--resume")
    assert again.exit_code == 0 and len(keys) == 4 + 3


def test_commands_that_cannot_be_carried_out(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert isinstance(command(tiny_folder, out, "--positions", "first").exception, InputError)
    assert command(tiny_folder, out, "--positions", "1;2").exit_code == 2
    assert isinstance(command(tiny_folder, out, "--positions", "9").exception, InputError)
    assert isinstance(command(tmp_path / "nowhere", out).exception, CheckpointError)
    assert isinstance(command(tiny_folder, out, "--prompt", "").exception, InputError)
    assert command(tiny_folder, out, "--dtype", "float16").exit_code == 2
    assert command(tiny_folder, out, "--device", "toaster").exit_code == 2
    assert command(tiny_folder, out, "--heads", "many").exit_code == 2
    assert isinstance(command(tiny_folder, out, "--parts", "head").exception, InputError)
    assert isinstance(command(tiny_folder, out, "--readings", "frozen").exception, InputError)
    assert not out.exists()
    # each row fails: one token's states span no plane
    assert command(tiny_folder, out, "--dim", "40").exit_code == 1
    assert not (out / "layers.png").exists()
    assert command(tiny_folder, out / "table.csv").exit_code == 2


def test_depth_is_a_section(tiny_folder: Path, tmp_path: Path) -> None:
    """Studied once a prompt; on resume what was written is said again."""
    out = tmp_path / "out"
    options = ["--layers", "0", "--parts", "mlp", "--positions", "last", "--points", "1", "--depth"]
    done = command(tiny_folder, out, *options)
    assert done.exit_code == 0, done.output
    assert (out / "depth" / "prompt-0" / "profile.csv").exists()
    content = json.loads((out / "analysis.json").read_text())
    said = content["depth"]["the cat sat on"]
    assert said == json.loads((out / "depth" / "prompt-0" / "depth.json").read_text())["summary"]
    written = (out / "depth" / "prompt-0" / "profile.csv").stat().st_mtime_ns
    again = command(tiny_folder, out, *options, "--resume")
    assert again.exit_code == 0
    assert json.loads((out / "analysis.json").read_text())["depth"] == content["depth"]
    assert (out / "depth" / "prompt-0" / "profile.csv").stat().st_mtime_ns == written
