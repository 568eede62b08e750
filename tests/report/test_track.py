"""Training runs, followed: simulated runs, the same numbers by the long way, resuming, hostile and damaged folders."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cases.tiny_models import save_word_tokenizer, tiny_model
from report.test_comparison import simulated
from rich.console import Console
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat.cli import app
from fisherflat.errors import CheckpointError, InputError
from fisherflat.models import checkpoints
from fisherflat.report import LargeAnalysis, Stage
from fisherflat.studies.layers._study import Study

TEXTS = ["the cat sat on", "a mat dogs run"]
SMALL: dict[str, Any] = {"parts": ["mlp"], "readings": ["live"], "points": 1, "positions": "last", "progress": False}
OPTIONS = ["--part", "mlp", "--reading", "live", "--points", "1", "--position", "last"]
OPTIONS += [word for text in TEXTS for word in ("--prompt", text)]


def saved(folder: Path, kind: str = "llama", seed: int = 0) -> Path:
    tiny_model(kind, seed=seed).float().save_pretrained(folder)
    save_word_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three checkpoints, which do not come in the order of their names."""
    made = tmp_path_factory.mktemp("runs") / "run"
    for seed, name in enumerate(("checkpoint-100", "checkpoint-20", "checkpoint-1000")):
        saved(made / name, seed=seed)
    return made


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("checkpoint-100", 100),
        ("step_000200", 200),
        ("epoch3", 3),
        ("epoch=1-step=300.ckpt", 300),
        ("global_step40", 40),
        ("model-7b_ckpt.12", 12),
        ("Steps 5", 5),
        ("0400", 400),
        ("checkpoint-1\x1b[2J\n", 1),
        ("-checkpoint-3", 3),
        ("checkpoint-" + "9" * 18, int("9" * 18)),
        ("final", None),
        ("checkpoint-" + "9" * 200, None),
        ("checkpoint-٣", None),
    ],
)
def test_steps_are_read_from_names(name: str, step: int | None, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text("{}")
    if step is None:
        (tmp_path / name / "config.json").unlink()
        with pytest.raises(InputError, match="holds no checkpoints"):
            checkpoints(tmp_path)
    else:
        assert [found.step for found in checkpoints(tmp_path)] == [step]


def test_numbers_in_the_names_of_models_are_no_steps(tmp_path: Path) -> None:
    for name in ("qwen3-base", "llama-3-8b", "v2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        assert [found.step for found in checkpoints(tmp_path / name)] == [0]
    with pytest.raises(InputError, match="holds no checkpoints"):
        checkpoints(tmp_path)


def test_what_is_no_checkpoint_is_none(tmp_path: Path) -> None:
    (tmp_path / "logs-2024").mkdir()
    (tmp_path / "checkpoint-3.txt").write_text("")
    with pytest.raises(InputError, match="holds no checkpoints"):
        checkpoints(tmp_path)
    for wrong in (tmp_path / "nowhere", tmp_path / "checkpoint-3.txt", "a\0b", "/dev/null"):
        with pytest.raises(InputError, match="cannot be read"):
            checkpoints(wrong)


def test_a_model_by_itself_is_a_run_of_one(run: Path) -> None:
    assert checkpoints(run / "checkpoint-20") == [(20, run / "checkpoint-20")]
    for name in ("python-llama", "python-qwen3-next"):  # the 3 is no step
        assert [found.step for found in checkpoints(name)] == [0]
    assert ff.track(run / "checkpoint-20", TEXTS, **SMALL).headline()


@pytest.mark.parametrize(
    ("names", "match"),
    [(("checkpoint-5", "step_0005"), "both of step 5"), (("epoch-1", "step-20"), "count differently")],
)
def test_steps_without_an_order_are_refused(names: tuple[str, str], match: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(InputError, match=match):
        checkpoints(tmp_path)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_trajectories_are_the_estimates_of_each_checkpoint(run: Path) -> None:
    """By the long way, one analysis after the other."""
    found = ff.track(run, TEXTS, **SMALL)
    assert found.complete and found.runs == ["run"]
    assert list(dict.fromkeys(found.table["step"])) == [20, 100, 1000]
    for step in (20, 100, 1000):
        alone = ff.analyze(run / f"checkpoint-{step}", TEXTS, **SMALL).estimates
        rows = found.table[found.table["step"] == step]
        assert rows["mean"].tolist() == pytest.approx(alone["mean"].tolist(), rel=1e-8)
        assert rows["low"].tolist() == pytest.approx(alone["low"].tolist(), rel=1e-8)


def test_checkpoints_of_many_rows_are_tracked(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ff.track(run, TEXTS, **SMALL)
    monkeypatch.setattr("fisherflat.studies.layers._run.MANY", 1)
    found = ff.track(run, TEXTS, **SMALL)
    assert all(isinstance(stage.analysis, LargeAnalysis) for stage in found.measured)
    pd.testing.assert_frame_equal(found.table, expected.table, check_dtype=False)
    pd.testing.assert_frame_equal(found.changes, expected.changes, check_dtype=False)


def test_a_trend_is_found_and_none_where_there_is_none() -> None:
    """From the first to the last step, pair by pair: what prompts have of their own cancels."""
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 2, 12)
    stages = [
        Stage("run", step, Path("x"), analysis=simulated(rng, shared=shared, effect=(0.0, step / 100, -step / 100)))
        for step in (0, 10, 20, 40)
    ]
    changes = ff.Track(stages).changes.set_index("layer")
    assert list(changes["word"])[1:] == ["larger", "smaller"] and changes.loc[0, "word"] in ("uncertain", "larger")
    assert changes["mean"].tolist() == pytest.approx([0, 0.4, -0.4], abs=0.15)
    assert set(changes["from"]) == {0} and set(changes["to"]) == {40}


# -- keeping -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    measure, keys = Study.measure, []

    def count(self: Study, task: Any) -> Any:
        keys.append(f"{self.model.name}/{task.key}")
        return measure(self, task)

    monkeypatch.setattr(Study, "measure", count)
    return keys


def shell(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["track", *map(str, arguments), *OPTIONS])


def test_only_new_checkpoints_are_measured(run: Path, tmp_path: Path, counted: list[str]) -> None:
    own = shutil.copytree(run, tmp_path / "own")
    late = shutil.move(own / "checkpoint-1000", tmp_path / "late")
    out = tmp_path / "out"
    first = shell(own, "--out", out)
    assert first.exit_code == 0, first.output
    assert len(counted) == 2 * 2 * 2
    assert isinstance(shell(own, "--out", out).exception, InputError)  # a finished result is kept
    shutil.move(late, own / "checkpoint-1000")
    loaded = {path: path.stat().st_mtime_ns for path in (out / "own").rglob("table.csv")}
    again = shell(own, "--out", out, "--resume")
    assert again.exit_code == 0, again.output
    assert len(counted) == 3 * 2 * 2 and {key.partition("/")[0] for key in counted[8:]} == {"checkpoint-1000"}
    assert all(path.stat().st_mtime_ns == time for path, time in loaded.items())
    found = ff.Track.load(out)
    assert found.table["mean"].tolist() == pytest.approx(ff.track(own, TEXTS, **SMALL).table["mean"].tolist(), rel=1e-8)
    assert (out / "track_live.png").is_file() and len(pd.read_csv(out / "track.csv")) == 6


def test_an_interrupt_keeps_what_is_done(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, keys = Study.measure, []

    def stop(self: Study, task: Any) -> Any:
        keys.append(task.key)
        if len(keys) == 6:
            raise KeyboardInterrupt
        return measure(self, task)

    monkeypatch.setattr(Study, "measure", stop)
    out = tmp_path / "out"
    done = shell(run, "--out", out)
    assert done.exit_code == 130 and "--resume goes on" in done.stderr
    assert "Interrupted: 1 of 3 checkpoints are done." in done.stdout
    assert not ff.Track.load(out).complete
    again = shell(run, "--out", out, "--resume")
    assert again.exit_code == 0, again.output
    assert len(keys) == 6 + 12 - 5  # also within a checkpoint
    assert ff.Track.load(out).complete


def test_other_prompts_and_changed_checkpoints_are_not_taken_for_the_same(run: Path, tmp_path: Path) -> None:
    own, out = shutil.copytree(run, tmp_path / "own"), tmp_path / "out"
    ff.track(own, TEXTS, folder=out, **SMALL).save(out)
    with pytest.raises(InputError, match="prompts was"):
        ff.track(own, TEXTS[:1], folder=out, resume=True, **SMALL)
    saved(own / "checkpoint-20", seed=9)
    with pytest.raises(InputError, match="weights was"):
        ff.track(own, TEXTS, folder=out, resume=True, **SMALL)
    again = ff.track(own, TEXTS, folder=out, overwrite=True, **SMALL)
    assert again.table["mean"].tolist() == pytest.approx(ff.track(own, TEXTS, **SMALL).table["mean"].tolist(), rel=1e-8)


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_damaged_and_other_checkpoints_are_said_and_the_rest_is_kept(run: Path, tmp_path: Path) -> None:
    own = shutil.copytree(run, tmp_path / "own")
    saved(own / "checkpoint-50", kind="bert")
    for step, damage in ((300, "truncated"), (400, "no config"), (500, "empty"), (600, "pipe")):
        folder = shutil.copytree(run / "checkpoint-100", own / f"checkpoint-{step}")
        weights = folder / "model.safetensors"
        if damage == "truncated":
            weights.write_bytes(weights.read_bytes()[:-7])
        elif damage == "no config":
            (folder / "config.json").unlink()
        elif damage == "empty":
            shutil.rmtree(folder)
            folder.mkdir()
        else:
            weights.unlink()
            os.mkfifo(weights)
    found = ff.track(own, TEXTS, **SMALL)
    assert sorted(set(found.table["step"])) == [20, 100, 1000] and found.complete
    left = found.checkpoints.set_index("step")["left_out"].dropna()
    assert sorted(left.index) == [50, 300, 400, 500, 600]
    assert "another architecture ('bert')" in left[50] or "another architecture (bert)" in left[50]
    for step in left.index:
        assert any(f"Step {step} of own is left out" in sentence for sentence in found.sentences())


def test_where_no_checkpoint_can_be_read_the_first_reason_is_said(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoint-1").mkdir(parents=True)
    with pytest.raises((InputError, CheckpointError), match=r"config\.json"):
        ff.track(tmp_path / "run", TEXTS, **SMALL)


def test_runs_side_by_side_with_hostile_names(run: Path, tmp_path: Path) -> None:
    names = ["[red]a $x\x1b[2J", "../.. =b"]
    runs = []
    for seed, name in enumerate(names):
        folder = tmp_path / "runs" / name.replace("/", "∕")
        saved(folder / "_checkpoint-1 \x1b[31m", kind=("llama", "afmoe")[seed])
        saved(folder / "epoch 2, checkpoint-2", kind=("llama", "afmoe")[seed], seed=1)
        runs.append(folder)
    out = tmp_path / "deep" / "out"
    found = ff.track(runs, TEXTS, folder=out, **SMALL)
    files = found.save(out)
    assert len(found.runs) == 2 and all(out.resolve() in file.resolve().parents for file in files)
    assert not [file for file in out.rglob("*") if not file.name.isascii() or " " in file.name]
    with (tmp_path / "said").open("w") as file:
        Console(file=file, width=100).print(found.summary(), found.summary(verbose=False))
    assert "\x1b" not in (tmp_path / "said").read_text() + (out / "checkpoints.csv").read_text()
    assert ff.Track.load(out).sentences() == found.sentences()


@pytest.mark.parametrize(
    ("runs", "change"),
    [
        ([], {}),
        (3, {}),
        ([3], {}),
        ("run", {"names": ["a", "b"]}),
        ("run", {"names": "a"}),
        ("run", {"resume": True}),
        ("run", {"depth": True}),
        ("run", {"colour": "red"}),
        ("run", {"dim": 1}),
    ],
)
def test_wrong_input(runs: Any, change: dict[str, Any], run: Path) -> None:
    with pytest.raises(InputError):
        ff.track(run if runs == "run" else runs, TEXTS, **SMALL | change)


def test_places_that_one_of_several_runs_does_not_have_are_refused_early(run: Path, tmp_path: Path) -> None:
    tiny_model("llama", num_hidden_layers=1).float().save_pretrained(tmp_path / "low" / "checkpoint-1")
    save_word_tokenizer(tmp_path / "low" / "checkpoint-1")
    with pytest.raises(InputError, match="indices of the 1 layers, from 0; 1 is none"):
        ff.track([run, tmp_path / "low"], TEXTS, layers=[1], folder=tmp_path / "out", **SMALL)
    assert not list((tmp_path / "out").rglob("*.jsonl"))  # nothing was measured


def test_a_track_that_was_tampered_with_is_refused(run: Path, tmp_path: Path) -> None:
    ff.track(run, TEXTS, folder=tmp_path / "out", **SMALL).save(tmp_path / "out")
    document = tmp_path / "out" / "track.json"
    document.write_text(document.read_text().replace('"run/step-000000020"', '"../../elsewhere"'))
    with pytest.raises(InputError, match="saved track"):
        ff.Track.load(tmp_path / "out")
