"""The symmetries of all MLPs of a checkpoint, on disk and from the command line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from test_symmetry import layer, normal
from tiny_models import save_tiny, save_word_tokenizer, tiny_model
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat.checkpoints import Model
from fisherflat.cli import app
from fisherflat.errors import InputError


def test_every_unit_of_every_layer_has_a_row() -> None:
    model = tiny_model("llama")
    found = ff.symmetry.study(Model(model), [5, 6, 7])
    assert len(found.table) == 2 * 48 and set(found.table.layer) == {0, 1}
    mlp = model.layers[1].mlp
    form = torch.outer(mlp.gate_proj.weight[7], mlp.up_proj.weight[7])
    spectrum = torch.linalg.eigvalsh((form + form.T) / 2)
    row = found.table[(found.table.layer == 1) & (found.table.unit == 7)].iloc[0]
    assert row.positive == pytest.approx(spectrum[-1].item()) and row.negative == pytest.approx(spectrum[0].item())
    assert found.table.strength.between(0, 2**0.5).all() and not found.table.isna().any().any()
    assert len(found.notes) == 2 and all("48 gated units" in note for note in found.notes)
    assert all(float(note.rpartition(" ")[2]) < 1e-12 for note in found.notes)


def test_the_command_writes_tables_and_figures(tmp_path: Path) -> None:
    save_tiny(tmp_path / "model", "llama")
    save_word_tokenizer(tmp_path / "model")
    done = CliRunner().invoke(app, ["symmetry", str(tmp_path / "model"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    names = {"units.csv", "symmetries.csv", "notes.txt", "strength.png", "forms.png"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names
    table = pd.read_csv(tmp_path / "out" / "symmetries.csv")
    assert set(table[~table.preserved].symmetry) == {"inverse scaling", "exchange", "factor sign"}


def test_the_command_says_that_minilm_is_not_gated(minilm_path: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["symmetry", str(minilm_path), "--out", str(tmp_path)])
    assert done.exit_code == 0 and done.output.count("not gated") == 6
    assert {file.name for file in tmp_path.iterdir()} == {"units.csv", "symmetries.csv", "notes.txt"}


def test_the_null_spectrum_is_drawn_with_the_prediction() -> None:
    axes = ff.plot.null_spectrum(ff.symmetry.null_directions(layer("relu"), normal(60, 5)))
    assert "predicted: 8" in axes.get_legend_handles_labels()[1]
    with pytest.raises(InputError, match="gated MLPs"):
        ff.plot.unit_forms(pd.DataFrame())
