"""The symmetries of all MLPs of a checkpoint, on disk and from the command line."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import mpmath
import pandas as pd
import pytest
import torch
from cases.tiny_models import save_tiny, save_word_tokenizer, tiny_model
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat.cli import app
from fisherflat.models import Model
from fisherflat.studies.symmetry import _study


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
    names = {"units.csv", "symmetries.csv", "notes.txt", "symmetry.json", "report.html"}
    names |= {"strength.png", "forms.png", "certificates"}
    assert {file.name for file in (tmp_path / "out").iterdir()} == names
    table = pd.read_csv(tmp_path / "out" / "symmetries.csv")
    assert set(table[~table.preserved].symmetry) == {"inverse scaling", "exchange", "factor sign"}


def test_each_mlp_has_a_certificate_that_the_command_verifies(tmp_path: Path) -> None:
    runner = CliRunner()
    save_tiny(tmp_path / "mixtral", "mixtral")
    files = ff.symmetry.study(ff.load(tmp_path / "mixtral"), [5, 6, 7]).save(tmp_path / "out")
    proofs = [file for file in files if file.parent.name == "certificates"]
    assert [file.stem for file in proofs] == [f"layer-00{i}-expert-00{e}" for i in range(2) for e in range(4)]
    held = runner.invoke(app, ["verify", str(proofs[6]), str(tmp_path / "mixtral")])
    assert held.exit_code == 0 and "holds" in held.output, held.output
    proofs[6].write_text(proofs[6].read_text().replace('"expert": 2', '"expert": 3'))
    edited = runner.invoke(app, ["verify", str(proofs[6]), str(tmp_path / "mixtral")])
    assert isinstance(edited.exception, ff.errors.CertificateError)
    certificate = ff.Certificate.load(proofs[5])
    replace(certificate, subject=certificate.subject | {"expert": 3}).save(proofs[5])
    refused = runner.invoke(app, ["verify", str(proofs[5]), str(tmp_path / "mixtral")])
    assert refused.exit_code == 3 and "refused: weights" in refused.output


def test_experts_are_those_of_the_mixture() -> None:
    block = Model(tiny_model("mixtral")).blocks([5, 6, 7, 8, 9])[1]
    found, calls = ff.symmetry.experts(block.mlp), []
    block.mlp.root.experts.register_forward_hook(lambda module, args, output: calls.append((*args, output)))
    with torch.no_grad():
        block.mlp(block.mlp_input)
        x, chosen, weights, expected = calls[0]
        mixed = torch.zeros_like(x)
        for token in range(len(x)):
            for expert, weight in zip(chosen[token].tolist(), weights[token], strict=True):
                assert (found[expert].routed == x[token]).all(1).any()
                mixed[token] += weight * ff.symmetry.gated_units(found[expert])(x[token])
    torch.testing.assert_close(mixed, expected, rtol=1e-12, atol=1e-12 * expected.abs().max().item())
    assert sum(len(expert.routed) for expert in found) == chosen.numel()
    dense = Model(tiny_model("llama")).blocks([5, 6, 7])[0]
    assert ff.symmetry.experts(dense.mlp) == []


def test_a_mixture_is_studied_expert_by_expert_on_the_tokens_that_it_gets() -> None:
    found = ff.symmetry.study(Model(tiny_model("mixtral")), [5, 6, 7])
    assert len(found.table) == 2 * 4 * 48 and set(found.table.expert) == set(range(4))
    assert len(found.notes) == len(found.certificates) == 8
    idle = {(layer, expert) for layer, expert, strength in found.layers[["layer", "expert", "strength_median"]].values
            if strength != strength}  # fmt: skip
    assert {f"layer {i:g}, expert {e:g}" for i, e in idle} == {
        note.partition(":")[0] for note in found.notes if "no token" in note
    }


def test_what_is_not_of_the_form_is_said_with_the_reason() -> None:
    norms = ff.symmetry.study(Model(tiny_model("bitnet")), [5, 6, 7])
    assert all("a norm (" in note and "between its product and its output" in note for note in norms.notes)
    assert norms.table.empty and norms.overview() == [] and len(norms.notes) == 2
    clamps = ff.symmetry.study(Model(tiny_model("gpt_oss")), [5, 6, 7])
    assert all("aten.clamp" in note and "between its input and a factor" in note for note in clamps.notes)


def test_an_interrupted_study_keeps_the_layers_that_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, calls = _study._study_layer, []

    def stop(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measured(*arguments)

    monkeypatch.setattr(_study, "_study_layer", stop)
    found = ff.symmetry.study(Model(tiny_model("llama")), [5, 6, 7], progress=False)
    assert not found.complete and set(found.table.layer) == {0} and len(found.certificates) == 1
    assert all(file.is_file() for file in found.save(tmp_path))


def test_the_command_says_that_minilm_is_not_gated(minilm_path: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["symmetry", str(minilm_path), "--out", str(tmp_path), "--verbose"])
    assert done.exit_code == 0 and done.output.count("not gated") == 6
    names = {"units.csv", "symmetries.csv", "notes.txt", "symmetry.json", "report.html"}
    assert {file.name for file in tmp_path.iterdir()} == names


def test_a_certificate_on_hidden_states_names_them_and_no_token_ids(tmp_path: Path) -> None:
    """Nobody gave any: what it is about are the states."""
    model = ff.load("python-llama")
    states = model.blocks([5, 6, 7])[0].hidden_states
    found = ff.symmetry.study(model, states, progress=False)
    found.save(tmp_path)
    certificate = ff.Certificate.load(tmp_path / "certificates" / "layer-001.json")
    assert certificate.subject is not None and "token_ids" not in certificate.subject
    with pytest.raises(ff.errors.CertificateError, match=r"hidden states, .* give them: .*prompt="):
        ff.verify_layer(certificate, model)
    assert ff.verify_layer(certificate, model, prompt=states).ok
    assert ff.verify_layer(certificate, model, prompt=states.tolist()).ok
    other = ff.verify_layer(certificate, model, prompt=states.flip(0))
    assert not other.ok and "not the one" in other.reasons[0]
    assert ff.verify(certificate, model.blocks([1, 2])[1].mlp).ok  # the weights are what is proved about


def test_errors_of_units_cover_where_terms_cancel() -> None:
    """The charge of a unit whose up weights are nearly its gate weights, against rational arithmetic."""
    model = tiny_model("llama")
    for layer in model.layers:
        with torch.no_grad():
            layer.mlp.up_proj.weight.copy_(layer.mlp.gate_proj.weight * (1 + 2.0**-20))
    table = ff.symmetry.study(Model(model), [5, 6, 7]).table
    covered = []
    for row in table.itertuples():
        mlp = model.layers[row.layer].mlp
        g, u = (
            [Fraction(x) for x in weight[row.unit].tolist()] for weight in (mlp.gate_proj.weight, mlp.up_proj.weight)
        )
        gg, uu, gu = (sum(a * b for a, b in zip(*both, strict=True)) for both in ((g, g), (u, u), (g, u)))
        with mpmath.workdps(40):
            root = mpmath.sqrt(mpmath.mpf((gg * uu).numerator) / (gg * uu).denominator)
            dot = mpmath.mpf(gu.numerator) / gu.denominator
            covered.append(abs(row.positive - (dot + root) / 2) <= row.positive_error)
            covered.append(abs(row.negative - (dot - root) / 2) <= row.negative_error)
        covered.append(abs(Fraction(row.inverse_charge) - (gg - uu)) <= Fraction(row.inverse_charge_error))
    assert len(covered) == 3 * len(table) and sum(map(bool, covered)) >= 0.97 * len(covered)
    assert (table.negative_error > table.negative.abs()).mean() > 0.5  # parallel factors: all its digits are gone
