"""The study of layers: its rows, and what goes wrong in some of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cases.tiny_models import save_word_tokenizer, tiny_model
from rich.console import Console
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import CheckpointError, InputError
from fisherflat.models import Model
from fisherflat.models.moves import ordinary
from fisherflat.report import Analysis
from fisherflat.studies.layers._study import Study
from fisherflat.studies.layers._tasks import Task

IDS = [5, 6, 7, 8, 9, 11]
OTHER = [12, 4, 8, 30]
FILES = ["table.csv", "table.parquet", "report.html", "analysis.json"]


def quiet(model: Model, prompts: Any, dim: int = 2, **options: Any) -> Analysis:
    return ff.analyze(model, prompts, dim=dim, progress=False, **{"positions": "last", "points": 1, **options})


@pytest.fixture(scope="module")
def llama() -> Model:
    return Model(tiny_model("llama"), name="llama")


def reference(inputs: list[Tensor], part: Any, prompt: int, position: int, dim: int = 2) -> float:
    """Scalar curvature at the prompt's own point, from the definition, with the other engine."""
    states = torch.cat(inputs)
    states = states[ordinary(states)]
    centred = states - states.mean(0)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    basis = directions[:dim] * singular[:dim, None] / math.sqrt(len(states) - 1)
    chart = ff.charts.token(inputs[prompt], position, basis)
    outputs = torch.cat([part(prompt)(rows) for prompt, rows in enumerate(inputs)])
    family = ff.Gaussian(outputs[ordinary(outputs)].var(0).mean().item())
    manifold = ff.StatisticalManifold(part(prompt), chart, family, engine="autodiff")
    return manifold.scalar_curvature(torch.zeros(dim, dtype=torch.float64)).item()


def test_rows_are_the_curvature_of_the_parts(llama: Model) -> None:
    """One basis and one covariance over both prompts; LLaMA's float32 norms are why the tolerance is no tighter."""
    prompts = [IDS, OTHER]
    table = quiet(llama, prompts).table
    blocks = [llama.blocks(prompt)[1] for prompt in prompts]
    assert len(table) == 2 * (2 + 2 + 5) * 2  # layers, readings of attention, MLP and block, prompts
    live = table.query("layer == 1 and reading == 'live' and prompt == 1").set_index("part").scalar_curvature
    attention = reference([b.attention_input for b in blocks], lambda i: blocks[i].attention, 1, len(OTHER) - 1)
    assert live["attention"] == pytest.approx(attention, rel=1e-5)
    mlp = reference([b.mlp_input for b in blocks], lambda i: blocks[i].mlp, 1, len(OTHER) - 1)
    assert live["mlp"] == pytest.approx(mlp, rel=1e-5)


def test_frozen_pattern_is_flat_without_a_gate_and_curved_with_one(llama: Model) -> None:
    table = quiet(llama, [IDS]).table
    frozen = table[(table.reading == "frozen pattern") & (table.part == "attention")]
    assert list(frozen.part) == ["attention", "attention"]
    assert set(frozen.verdict) == {"flat (proved)"}
    assert set(table[(table.part == "attention") & (table.reading == "live")].verdict) == {"curved"}

    # this one has norms on queries and keys, which hold their part of the pattern, and a gate
    analysis = quiet(Model(tiny_model("afmoe")), [IDS], parts=["attention"])
    verdicts = analysis.table.groupby("reading").verdict.agg(set)
    assert verdicts["frozen pattern+gate"] == {"flat (proved)"}
    assert verdicts["frozen pattern"] == {"curved"}
    assert "With the pattern held, the gate alone bends the attention in layers 0, 1." in analysis.sentences()


def test_layers_without_a_pattern_are_said_so() -> None:
    """Layer 0 of this model is linear attention, layer 1 is gated softmax attention."""
    analysis = quiet(Model(tiny_model("qwen3_next")), [IDS], parts=["attention"])
    table = analysis.table
    assert set(table[table.layer == 1].reading) == {"live", "frozen pattern", "frozen gate", "frozen pattern+gate"}
    assert not any("pattern" in reading for reading in table[table.layer == 0].reading)
    said = "No softmax mixes the tokens in layer 0, so there is no pattern to freeze."
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
    for column in ("scalar_curvature", "second_fundamental_form_norm", "mean_curvature_norm", "volume_density"):
        pd.testing.assert_series_equal(taylor.table[column], autodiff.table[column], rtol=1e-9, atol=1e-12)
    assert list(taylor.table.verdict) == list(autodiff.table.verdict)


def test_three_directions(llama: Model) -> None:
    table = quiet(llama, IDS, dim=3, layers=[0]).table
    assert table.u.tolist() == [[0.0, 0.0, 0.0]] * 9
    assert table.scalar_curvature.notna().all()


def test_points_repeat(llama: Model) -> None:
    tables = [quiet(llama, IDS, points=3, layers=[0], parts=["mlp"], seed=seed).table for seed in (4, 4, 5)]
    assert list(tables[0].point) == [0, 1, 2] * 2
    first, again, other = (np.array(table.u.tolist()) for table in tables)
    assert again == pytest.approx(first, rel=1e-12) and other != pytest.approx(first)
    assert tables[0].u[0] == [0.0, 0.0]


def test_positions(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_word_tokenizer(tmp_path)
    model = Model(tiny_model("bert"), AutoTokenizer.from_pretrained(tmp_path))

    def positions(prompts: Any, choice: Any) -> list[tuple[int, int, str]]:
        table = quiet(model, prompts, positions=choice, layers=[0], parts=["mlp"], readings=["live"]).table
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
        ({"parts": []}, "parts must be a list out of"),
        ({"readings": ["frozen"]}, "is no reading"),
        ({"readings": "live"}, "readings must be a list that is not empty"),
        ({"heads": "some"}, 'heads must be "all" or a list'),
        ({"engine": "magic"}, "engine must be one of"),
        ({"dtype": torch.float16}, "dtype must be"),
        ({"moves": "sideways"}, "does not say what moves"),
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"resume": True}, "resume needs a folder"),
        ({"positions": "first"}, 'positions must be "spread"'),
        ({"positions": []}, "positions must be a list that is not empty"),
        ({"layers": [2]}, "indices of the 2 layers"),
        ({"layers": {0: 1}}, "layers must be a list of integers"),
        ({"heads": [0, 4]}, "indices of the 4 heads, from 0; 4 is none"),
        ({"heads": [-5], "parts": [], "layers": [1]}, "indices of the 4 heads, from 0; -5 is none"),
        ({"heads": [9], "moves": ["random:0", "random:1"]}, "indices of the 4 heads, from 0; 9 is none"),
        ({"heads": {0: 1}}, "heads must be a list of integers"),
        ({"layers": []}, "layers must be a list that is not empty"),
    ],
)
def test_bad_arguments(llama: Model, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ff.analyze(llama, **{"prompts": [IDS], "progress": False, **change})


def test_text_needs_a_tokenizer(llama: Model) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer"):
        quiet(llama, ["the cat"])


def test_heads_have_the_geometry_of_their_own_maps() -> None:
    """All heads come from one pass; the reference takes each head's map alone, with the other engine."""
    model = Model(tiny_model("llama"))
    table = quiet(model, [IDS, OTHER], parts=[], heads=[1, -1], layers=[0]).table
    assert list(dict.fromkeys(table.part)) == ["head 1", "head 3"]
    blocks = [model.blocks(prompt)[0] for prompt in (IDS, OTHER)]
    inputs = [block.attention_input for block in blocks]
    found = table.query("part == 'head 3' and reading == 'live' and prompt == 1").scalar_curvature.item()
    assert found == pytest.approx(reference(inputs, lambda i: blocks[i].heads[3], 1, len(OTHER) - 1), rel=1e-5)
    assert set(table[table.reading == "frozen pattern"].verdict) == {"flat (proved)"}


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_part_that_is_missing_is_a_row_with_its_error(tmp_path: Path) -> None:
    analysis = quiet(Model(tiny_model("fnet")), [IDS])
    rows = analysis.table
    missing = rows[rows.part == "attention"]
    assert len(missing) == 2 and missing.error.str.contains("no attention part was found").all()
    assert missing.scalar_curvature.isna().all() and missing.verdict.isna().all()
    there = rows[rows.part == "mlp"]
    where = ["layer", "position", "token", "raw_token", "token_class"]
    pd.testing.assert_frame_equal(
        missing[where].drop_duplicates().reset_index(drop=True), there[where].drop_duplicates().reset_index(drop=True)
    )
    assert rows[rows.part == "mlp"].scalar_curvature.notna().all()
    assert any("rows have no result; the first is layer 0, attention: " in said for said in analysis.sentences())
    assert {path.name for path in analysis.save(tmp_path)} == {
        *FILES,
        "readings.csv",
        "estimates.csv",
        "layers.png",
        "gaps.csv",
    }


def test_too_short_a_prompt_is_an_error_in_every_row(llama: Model, tmp_path: Path) -> None:
    analysis = quiet(llama, [[5, 6]], layers=[0])
    assert analysis.table.error.str.contains("principal directions").all()
    assert [path.name for path in analysis.save(tmp_path)] == FILES  # nothing to draw
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
    assert [row["error"] for row in analysis.rows] == ["RuntimeError: out of luck", None, None]


def test_a_point_of_any_size_is_measured() -> None:
    """A point's jets with its errors take some 130 MiB here: more than is taken at a time, and than caches hold."""
    prompt, what = (
        "def mean(values): return sum(values) " * 5,
        {"parts": ["block"], "readings": ["live"], "layers": [0]},
    )
    analysis = ff.analyze(
        "python-llama", prompt, dim=8, points=1, positions="last", moves="random", progress=False, **what
    )
    (row,) = analysis.rows
    assert row["error"] is None and math.isfinite(row["scalar_curvature"])
