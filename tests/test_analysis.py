"""Analyses: which rows there are, what their numbers are, and what happens when something fails or is interrupted."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console
from tiny_models import save_tiny, save_word_tokenizer, tiny_model
from torch import Tensor, nn
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat.analysis import Analysis
from fisherflat.analysis.measure import Study, _verdicts, sample_points
from fisherflat.analysis.tasks import Task
from fisherflat.checkpoints import Model
from fisherflat.cli import app
from fisherflat.errors import CheckpointError, InputError

IDS = [5, 6, 7, 8, 9, 11]
OTHER = [12, 4, 8, 30]


def quiet(model: Model, prompts: Any, dim: int = 2, **options: Any) -> Analysis:
    return ff.analyze(model, prompts, dim, progress=False, **options)


@pytest.fixture(scope="module")
def llama() -> Model:
    return Model(tiny_model("llama"), name="llama")


def reference(inputs: list[Tensor], part: Any, prompt: int, position: int, dim: int = 2) -> float:
    """Scalar curvature at the prompt's own point, from the definition, with the other engine."""
    states = torch.cat(inputs)
    centred = states - states.mean(0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    basis = directions[:dim] * singular[:dim, None] / math.sqrt(len(states) - 1)
    chart = ff.charts.token(inputs[prompt], position, basis)
    variance = torch.cat([part(prompt)(rows) for prompt, rows in enumerate(inputs)]).var(0).mean().item()
    manifold = ff.StatisticalManifold(part(prompt), chart, ff.Gaussian(variance), engine="autodiff")
    return manifold.scalar_curvature(torch.zeros(dim, dtype=torch.float64)).item()


def test_rows_are_the_curvature_of_the_parts(llama: Model) -> None:
    """One basis and one covariance over both prompts; LLaMA's float32 norms are why the tolerance is no tighter."""
    prompts = [IDS, OTHER]
    table = quiet(llama, prompts).table
    blocks = [llama.blocks(prompt)[1] for prompt in prompts]
    assert len(table) == 2 * 4 * 2
    live = table.query("layer == 1 and reading == 'live' and prompt == 1").set_index("part").scalar_curvature
    attention = reference([b.attention_input for b in blocks], lambda i: blocks[i].attention, 1, len(OTHER) - 1)
    assert live["attention"] == pytest.approx(attention, rel=1e-5)
    mlp = reference([b.mlp_input for b in blocks], lambda i: blocks[i].mlp, 1, len(OTHER) - 1)
    assert live["mlp"] == pytest.approx(mlp, rel=1e-5)


def test_frozen_pattern_is_flat_without_a_gate_and_curved_with_one(llama: Model) -> None:
    table = quiet(llama, [IDS]).table
    frozen = table[table.reading == "frozen pattern"]
    assert list(frozen.part) == ["attention", "attention"]
    assert set(frozen.verdict) == {"flat to rounding"}
    assert set(table[(table.part == "attention") & (table.reading == "live")].verdict) <= {"positive", "negative"}

    analysis = quiet(Model(tiny_model("afmoe")), [IDS], parts=["attention"])
    assert set(analysis.table.verdict) <= {"positive", "negative"}
    assert any("something else bends the attention in layers 0, 1" in said for said in analysis.sentences())


def test_layers_without_a_pattern_are_said_so() -> None:
    """Layer 0 of this model is linear attention, layer 1 is gated softmax attention."""
    analysis = quiet(Model(tiny_model("qwen3_next")), [IDS], parts=["attention"])
    table = analysis.table
    assert list(zip(table.layer, table.reading, strict=True)) == [(0, "live"), (1, "live"), (1, "frozen pattern")]
    assert "flat to rounding" not in set(table.verdict)
    said = "No softmax mixes the tokens in layer 0 (Qwen3NextGatedDeltaNet), so there is no pattern to freeze."
    assert said in analysis.sentences()


def test_calibration_takes_out_the_scale_of_a_part() -> None:
    """Curvature and verdict do not change when a part's outputs are scaled, by however much."""
    tables = []
    for scale in (1.0, 1e-9, 1e9):
        module: Any = tiny_model("bert")
        for layer in module.encoder.layer:
            layer.attention.output.dense.weight.mul_(scale)
            layer.attention.output.dense.bias.mul_(scale)
        tables.append(quiet(Model(module), [IDS], parts=["attention"]).table.query("layer == 0"))
    for table in tables[1:]:
        assert list(table.verdict) == list(tables[0].verdict)
        assert table.scalar_curvature.tolist() == pytest.approx(tables[0].scalar_curvature.tolist(), rel=1e-9)


def test_engines_agree(llama: Model) -> None:
    options: dict[str, Any] = {"points": 2, "layers": [1]}
    taylor, autodiff = quiet(llama, IDS, **options), quiet(llama, IDS, engine="autodiff", **options)
    for column in ("scalar_curvature", "second_fundamental_form", "mean_curvature", "volume_density"):
        pd.testing.assert_series_equal(taylor.table[column], autodiff.table[column], rtol=1e-9, atol=1e-12)
    assert list(taylor.table.verdict) == list(autodiff.table.verdict)


def test_three_directions(llama: Model) -> None:
    table = quiet(llama, IDS, dim=3, layers=[0]).table
    assert table.u.tolist() == [[0.0, 0.0, 0.0]] * 4
    assert table.scalar_curvature.notna().all()


def test_points_lie_within_one_standard_deviation_and_repeat(llama: Model) -> None:
    points = sample_points(200, 3, seed=4)
    assert torch.equal(points, sample_points(200, 3, seed=4))
    assert not torch.equal(points[1:], sample_points(200, 3, seed=5)[1:])
    assert torch.equal(points[0], torch.zeros(3, dtype=torch.float64))
    radius = points[1:].norm(dim=1)
    assert radius.max() <= 1
    assert (radius**3).mean().item() == pytest.approx(0.5, abs=0.07)  # uniform in the ball
    table = quiet(llama, IDS, points=3, layers=[0], parts=["mlp"]).table
    assert list(table.point) == [0, 1, 2]
    assert table.u.tolist() == sample_points(3, 2, seed=0).tolist()


def test_positions(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_word_tokenizer(tmp_path)
    model = Model(tiny_model("bert"), AutoTokenizer.from_pretrained(tmp_path))

    def positions(prompts: Any, choice: Any) -> list[tuple[int, int, str]]:
        table = quiet(model, prompts, positions=choice, layers=[0], parts=["mlp"]).table
        return list(zip(table.prompt, table.position, table.token, strict=True))

    prompts = ["the cat sat", "a dogs run on"]  # [CLS] the cat sat [SEP]
    assert positions(prompts, "last") == [(0, 3, "sat"), (1, 4, "on")]
    assert positions("the cat sat", "all") == [(0, 1, "the"), (0, 2, "cat"), (0, 3, "sat")]
    assert positions(prompts, [-2, 0]) == [(0, 3, "sat"), (0, 0, "[CLS]"), (1, 4, "on"), (1, 0, "[CLS]")]
    # a word that the tokenizer does not know is a word all the same
    assert positions("the cat whistled", "last") == [(0, 3, "[UNK]")]
    with pytest.raises(InputError, match="only special tokens"):
        positions("[SEP] [CLS]", "last")
    with pytest.raises(InputError, match="position 5 is outside the prompt 'the cat sat' of 5 tokens"):
        positions(prompts, [5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "there are no prompts"),
        ({"prompts": 5}, "prompts are a text, token ids"),
        ({"prompts": [IDS, []]}, "prompt is empty"),
        ({"prompts": [IDS, [70]]}, "token id 70"),
        ({"dim": 1}, "dim must be at least 2"),
        ({"points": 0}, "points must be at least 1"),
        ({"parts": ["head"]}, "parts must be a list out of"),
        ({"parts": "mlp"}, "parts must be a list out of"),
        ({"readings": ["frozen"]}, "readings must be a list out of"),
        ({"positions": "first"}, 'positions must be "last"'),
        ({"positions": []}, "no positions are given"),
        ({"layers": [2]}, "indices of the 2 layers"),
        ({"layers": []}, "indices of the 2 layers"),
    ],
)
def test_bad_arguments(llama: Model, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ff.analyze(llama, **{"prompts": [IDS], "progress": False, **change})


def test_text_needs_a_tokenizer(llama: Model) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer"):
        quiet(llama, ["the cat"])


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_part_that_is_missing_is_a_row_with_its_error(tmp_path: Path) -> None:
    analysis = quiet(Model(tiny_model("fnet")), [IDS])
    rows = analysis.table
    missing = rows[rows.part == "attention"]
    assert len(missing) == 2 and missing.error.str.contains("no attention part was found").all()
    assert missing.scalar_curvature.isna().all() and missing.verdict.isna().all()
    assert rows[rows.part == "mlp"].scalar_curvature.notna().all()
    assert any("rows have no result; the first is layer 0, attention, live" in said for said in analysis.sentences())
    assert [path.name for path in analysis.save(tmp_path)] == ["table.csv", "analysis.json", "layers.png"]


def test_too_short_a_prompt_is_an_error_in_every_row(llama: Model, tmp_path: Path) -> None:
    analysis = quiet(llama, [[5, 6]], layers=[0])
    assert analysis.table.error.str.contains("principal directions").all()
    assert [path.name for path in analysis.save(tmp_path)] == ["table.csv", "analysis.json"]  # nothing to draw
    Console(file=open(tmp_path / "out", "w")).print(analysis.summary())  # noqa: SIM115


def test_degenerate_points_are_rows_with_an_error() -> None:
    """An output projection of rank one squeezes every chart onto a line."""
    module: Any = tiny_model("bert")
    weight = module.encoder.layer[0].attention.output.dense.weight
    weight.copy_(torch.outer(weight[:, 0], torch.ones(32, dtype=torch.float64)))
    first = module.encoder.layer[0].attention.self.value
    first.weight.copy_(torch.outer(first.weight[:, 0], torch.ones(32, dtype=torch.float64)))
    table = quiet(Model(module), IDS, parts=["attention"], readings=["frozen pattern"], points=2).table
    assert table.query("layer == 0").error.str.contains("metric is degenerate here").all()
    assert table.query("layer == 0").scalar_curvature.isna().all()
    assert table.query("layer == 1").scalar_curvature.notna().all()


def test_a_failing_layer_does_not_end_the_run(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Study._rows

    def fail(self: Study, task: Task) -> list[dict[str, Any]]:
        if task.layer == 0:
            raise RuntimeError("out of luck")
        return measure(self, task)

    monkeypatch.setattr(Study, "_rows", fail)
    analysis = quiet(llama, IDS, parts=["mlp"])
    assert analysis.complete
    assert [row["error"] for row in analysis.rows] == ["RuntimeError: out of luck", None]


def test_an_interrupt_keeps_the_rows_that_are_done(
    llama: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measure, calls = Study.measure, []

    def stop(self: Study, task: Task) -> list[dict[str, Any]]:
        calls.append(task.key)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measure(self, task)

    monkeypatch.setattr(Study, "measure", stop)
    analysis = quiet(llama, IDS)
    assert not analysis.complete and len(analysis.table) == 3
    assert analysis.sentences()[-1] == "Interrupted: 3 of 8 tasks were done."
    analysis.save(tmp_path)
    assert json.loads((tmp_path / "analysis.json").read_text())["complete"] is False
    assert len(set(calls)) == 4
    assert calls[0] == "layer 0/attention/live/prompt 0/position 5"


def test_an_interrupt_at_the_start(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(self: Model, prompt: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Model, "blocks", stop)
    analysis = quiet(llama, IDS)
    assert not analysis.complete and analysis.table.empty
    assert analysis.sentences() == ["Interrupted at the start."]


# -- results -----------------------------------------------------------------------------------------------------------


def test_saved_files_hold_the_table(llama: Model, tmp_path: Path) -> None:
    analysis = quiet(llama, [IDS, OTHER], points=2)
    files = analysis.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == sorted(p.name for p in files)
    read = pd.read_csv(files[0])
    assert list(read.columns) == list(analysis.table.columns)
    assert read.scalar_curvature.tolist() == analysis.table.scalar_curvature.tolist()
    content = json.loads(files[1].read_text())
    assert content["complete"] is True and content["settings"]["dim"] == 2
    assert [row["scalar_curvature"] for row in content["rows"]] == analysis.table.scalar_curvature.tolist()
    assert files[2].read_bytes().startswith(b"\x89PNG")


def test_nothing_half_written_stays(llama: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Analysis, path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    analysis = quiet(llama, IDS, layers=[0])
    monkeypatch.setattr(Analysis, "_write_json", fail)
    with pytest.raises(InputError, match=r"cannot be written.*disk full"):
        analysis.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    with pytest.raises(InputError, match="cannot be written"):
        analysis.save(tmp_path / "table.csv")


def test_summary_in_words(llama: Model) -> None:
    analysis = quiet(llama, IDS)
    said = analysis.sentences()
    assert said[0] == "Attention with its pattern frozen: flat to rounding in all 2 layers."
    assert any(s == "So, where it was measured, the softmax pattern alone bends this attention." for s in said)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(analysis.summary())
    text = console.export_text()
    assert "frozen pattern" in text and "flat" in text


class Cylinder(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return torch.stack([torch.cos(u[0]), torch.sin(u[0]), u[1]])


def graph(a: float, b: float) -> Any:
    """`(u, v) -> (u, v, a u^2 + b v^2)`, of curvature `8 a b` at the origin."""
    return lambda u: torch.stack([u[0], u[1], a * u[0] ** 2 + b * u[1] ** 2])


@pytest.mark.parametrize(
    ("surface", "verdict"),
    [
        (graph(0.0, 0.0), "flat to rounding"),
        (graph(1.0, 0.0), "flat to rounding"),  # bent, yet flat
        (Cylinder(), "flat to rounding"),
        (graph(1.0, 1.0), "positive"),
        (graph(1.0, -1.0), "negative"),
        # no absolute tolerance: these are nearly flat and yet curved
        (graph(1e-9, 1e-9), "positive"),
        (graph(1e-9, -1e-9), "negative"),
        (graph(1e6, -1e-3), "negative"),
    ],
)
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_verdicts(surface: Any, verdict: str, scale: float) -> None:
    chart = ff.charts.identity(2)
    u = torch.tensor([[0.0, 0.0], [0.1, -0.2]], dtype=torch.float64)
    geometry = ff.StatisticalManifold(surface, chart, ff.Gaussian(scale**2), engine="autodiff").at(u)
    assert _verdicts(geometry) == [verdict, verdict]


# -- the command line --------------------------------------------------------------------------------------------------


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
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Attention with its pattern frozen: flat to rounding in all 6 layers." in done.stdout
    assert sorted(path.name for path in out.iterdir()) == ["analysis.json", "layers.png", "table.csv"]
    table = pd.read_csv(out / "table.csv")
    assert len(table) == 6 * 4 and table.error.isna().all()
    frozen, live = (table.query("part == 'attention' and reading == @r") for r in ("frozen pattern", "live"))
    assert set(frozen.verdict) == {"flat to rounding"} and (frozen.scalar_curvature == 0).all()
    assert "flat to rounding" not in set(live.verdict)
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
    options = ["--prompt", "a mat", "--layers", "-1", "--positions", "1,-2", "--points", "2", "--dim", "3"]
    done = command(tiny_folder, tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "out" / "table.csv")
    assert set(table.layer) == {1} and set(table.point) == {0, 1}
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

    def stop(self: Study, task: Task) -> list[dict[str, Any]]:
        keys.append(task.key)
        if len(keys) == 4:
            signal.raise_signal(signal.SIGINT)
        return measure(self, task)

    monkeypatch.setattr(Study, "measure", stop)
    done = command(tiny_folder, tmp_path / "out")
    assert done.exit_code == 130
    assert "Interrupted: 3 of 8 tasks were done." in done.output
    assert len(pd.read_csv(tmp_path / "out" / "table.csv")) == 3


def test_commands_that_cannot_be_carried_out(tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert command(tiny_folder, out, "--positions", "first").exit_code == 2
    assert isinstance(command(tiny_folder, out, "--positions", "9").exception, InputError)
    assert isinstance(command(tmp_path / "nowhere", out).exception, CheckpointError)
    assert isinstance(command(tiny_folder, out, "--prompt", "").exception, InputError)
    assert not out.exists()
    # each row fails: one token's states span no plane
    assert command(tiny_folder, out, "--dim", "40").exit_code == 1
    assert not (out / "layers.png").exists()
    assert command(tiny_folder, out / "table.csv").exit_code == 2
