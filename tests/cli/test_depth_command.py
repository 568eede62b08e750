"""A model's depth in one go: what a study holds, says and saves, in a notebook and from the shell."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from cases.tiny_models import save_word_tokenizer, tiny_model
from rich.console import Console
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat.cli import app
from fisherflat.errors import CheckpointError, InputError
from fisherflat.models import Model
from fisherflat.report import DepthStudy, study_depth

IDS = [5, 6, 7, 8, 9, 11]
SMALL: dict[str, Any] = {"points": 3, "budget_points": 2, "resolution": 3, "progress": False}
GATED = ["frozen gate+mlp gate", "frozen pattern+gate+mlp gate"]
THREE = {"num_hidden_layers": 3, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
FILES = {
    "report.html",
    "depth.json",
    "depth.safetensors",
    "profile.csv",
    "profile_calibrated.png",
    "profile_fixed.png",
    *(f"budget_{by}.{kind}" for by in ("role", "layer", "layer-role") for kind in ("csv", "png")),
    *(f"budget_{by}_error.csv" for by in ("role", "layer", "layer-role")),
    "budget_by_layer.png",
    "transport.csv",
    "transport.png",
    "estimates.csv",
    "attributed.csv",
    "maps.csv",
    "maps.png",
}


@pytest.fixture(scope="module")
def gated() -> DepthStudy:
    """Three layers with gates in the attention and in the MLP."""
    return study_depth(Model(tiny_model("afmoe", **THREE)), IDS, **SMALL)


@pytest.fixture(scope="module")
def ungated() -> DepthStudy:
    return study_depth(Model(tiny_model("bert")), IDS, **SMALL)


def test_profiles_are_those_of_the_whole_model(gated: DepthStudy) -> None:
    """The last depth against the other engine on the composed blocks, at the token's own state."""
    assert gated.complete and list(gated.profiles) == ["live", "frozen pattern", *GATED]
    blocks = Model(tiny_model("afmoe", **THREE)).blocks(IDS)
    chart = ff.charts.principal(blocks[0].hidden_states, len(IDS) - 1, 2)

    def composed(x: torch.Tensor) -> torch.Tensor:
        for block in blocks:
            x = block(x)
        return x

    variance = composed(chart.point).var(0).mean().item()
    other = ff.StatisticalManifold(composed, chart, ff.Gaussian(variance), engine="autodiff")
    found = gated.profiles["live"].scalar_curvature[-1, 0].item()
    assert found == pytest.approx(other.scalar_curvature(torch.zeros(2)).item(), rel=1e-5)  # float32 norms inside


def test_words_move_between_the_real_states_of_the_replaced_prompts() -> None:
    """The study's first point is the first word's prompt; against the composed blocks on a simplex made by hand."""
    model = Model(tiny_model("bert"))
    found = study_depth(model, IDS, moves="words:12,7,30", points=1, budget_points=0, resolution=0, progress=False)
    assert found.sentences()[0] == f"Token '7' of '{IDS}' moves between the words 12, 7, 30."
    runs = [model.blocks([*IDS[:2], word, *IDS[3:]]) for word in (12, 7, 30)]
    first, second, third = (run[0].hidden_states for run in runs)
    chart = ff.charts.simplex(torch.stack([second, third, first]))

    def composed(x: torch.Tensor) -> torch.Tensor:
        for block in runs[0]:
            x = block(x)
        return x

    variance = composed(first).var(0).mean().item()
    other = ff.StatisticalManifold(composed, chart, ff.Gaussian(variance), engine="autodiff")
    at_the_end = found.profiles["live"].scalar_curvature[-1, 0].item()
    assert at_the_end == pytest.approx(other.scalar_curvature(torch.zeros(2)).item(), rel=1e-9)


def test_budgets_sum_to_the_profile_at_the_last_depth(gated: DepthStudy) -> None:
    assert gated.gates == ("attention_gate", "mlp_gate")
    for budget in gated.budgets.values():
        expected = gated.profiles["live"].scalar_curvature[-1, :2]
        torch.testing.assert_close(budget.scalar_curvature, expected, rtol=1e-8, atol=1e-12)


def test_the_fixed_covariance_is_that_of_what_entered(gated: DepthStudy) -> None:
    fixed, calibrated = gated.fixed_profiles["live"], gated.profiles["live"]
    states = Model(tiny_model("afmoe", **THREE)).blocks(IDS)[0].hidden_states
    torch.testing.assert_close(fixed.covariance, states.var(0).mean().expand(7))
    torch.testing.assert_close(
        fixed.scalar_curvature / fixed.covariance[:, None],
        calibrated.scalar_curvature / calibrated.covariance[:, None],
    )


def test_what_a_study_of_a_gated_model_says(gated: DepthStudy) -> None:
    said = " ".join(gated.sentences())
    for start in (
        "After the last block the mean scalar curvature over 2 points is",
        "Attributed to layers: ",
        "Attributed to parts: ",
        "Transport: ",
    ):
        assert start in said
    assert len(gated.growth()) == 8 and said.count("Growth, ") == 5
    paid = gated.budgets["role"].matrix.sum(-1).mean(0)
    assert paid.abs().sum() > 1.5 * paid.sum().abs() and "This total nearly cancels" in said and "% to" not in said
    amounts = dict(zip(gated.budgets["role"].labels, paid.tolist(), strict=True))
    gates = [
        f"{amounts[role]:+.3g}/σ² to the {name}"
        for role, name in (("attention_gate", "attention gate"), ("mlp_gate", "MLP gate"))
    ]
    assert f"Attributed to gates: {' and '.join(gates)}." in said
    halves = gated.budgets["layer"].matrix.sum(-1).mean(0)
    assert f"{halves[::2].sum():+.3g}/σ² to all attention together" in said
    # the gap of the gates: patterns held in both, gates live or held
    live, held = (gated.profiles[name].scalar_curvature[-1].mean() for name in ("frozen pattern", GATED[1]))
    assert f"as well takes the mean scalar curvature after the last block from {live:.3g} to {held:.3g} /σ²." in said


def test_shares_are_given_of_a_total_that_does_not_cancel(gated: DepthStudy) -> None:
    """Where all contributions have one sign; and with as many points of either sign they are not."""
    finest = gated.budgets["layer-role"]
    finest = replace(finest, traces=finest.matrix.abs(), products=0 * finest.products, again=None, size=None)
    whole = {"role": finest.by("role"), "layer": finest.by("layer"), "layer-role": finest}
    said = " ".join(DepthStudy(**{**vars(gated), "budgets": whole}).sentences())
    paid = whole["role"].matrix.sum(-1).mean(0)
    share = paid[whole["role"].labels.index("mlp_gate")] / paid.sum()
    assert f"{share:.0%} to the MLP gate." in said and "cancels" not in said
    halves = whole["layer"].matrix.sum(-1).mean(0)
    assert f"{halves[::2].sum() / halves.sum():.0%} to all attention together" in said

    signs = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -0.9], dtype=torch.float64)[:, None, None]
    uncertain = {
        name: replace(
            b, traces=signs * b.traces[:1], products=0 * signs * b.products[:1], born=signs * b.born[:1], size=None
        )
        for name, b in whole.items()
    }
    said = " ".join(DepthStudy(**{**vars(gated), "budgets": uncertain}).sentences())
    assert "cancels: its sign is uncertain" in said and "% to" not in said


def test_a_model_without_gates_is_said_to_have_none(ungated: DepthStudy) -> None:
    assert ungated.gates == () and list(ungated.profiles) == ["live", "frozen pattern"]
    said = ungated.sentences()
    assert "Gates: this model has none." in said
    assert "Growth: 2 blocks are too few for a law." in said


def test_tables(gated: DepthStudy) -> None:
    table = gated.table
    assert len(table) == 2 * 4 * 7 * 3
    row = table.query("unit == 'calibrated' and reading == 'live' and depth == 3 and point == 1").iloc[0]
    assert row.scalar_curvature == gated.profiles["live"].scalar_curvature[6, 1].item() and row.after == "2 mlp"
    assert row.largest_sectional_curvature == pytest.approx(row.scalar_curvature / 2)
    transport = gated.transport_table
    assert list(transport.layer) == [f"{layer} {half}" for layer in range(3) for half in ("attention", "mlp")]
    paid = (transport.own + transport.interaction).sum()
    assert paid == pytest.approx(gated.budgets["layer"].scalar_curvature.mean().item())


def test_files_hold_the_numbers(gated: DepthStudy, tmp_path: Path) -> None:
    files = gated.save(tmp_path / "new")
    assert {path.name for path in files} == FILES == {path.name for path in (tmp_path / "new").iterdir()}
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in files if p.suffix == ".png")
    assert pd.read_csv(tmp_path / "new" / "profile.csv").scalar_curvature.tolist() == pytest.approx(
        gated.table.scalar_curvature.tolist()
    )
    matrix = pd.read_csv(tmp_path / "new" / "budget_role.csv", index_col=0)
    assert matrix.to_numpy().sum() == pytest.approx(gated.budgets["role"].scalar_curvature.mean().item())
    content = json.loads((tmp_path / "new" / "depth.json").read_text())
    assert content["complete"] is True and content["summary"] == gated.sentences()


def test_the_summary_has_a_row_for_each_depth(gated: DepthStudy) -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(gated.summary())
    text = console.export_text()
    assert "frozen gate+mlp" in text and "Attributed to layers: " in text and "2.5" in text


def test_a_study_can_be_cheap() -> None:
    """What `analyze` shows of depth: chosen readings, whole blocks, no budgets and maps."""
    cheap: dict[str, Any] = {
        **SMALL,
        "readings": ["frozen patterns"],
        "halves": False,
        "budget_points": 0,
        "resolution": 0,
    }
    found = study_depth(Model(tiny_model("bert")), IDS, **cheap)
    assert list(found.profiles) == ["frozen pattern"] and found.profiles["frozen pattern"].depth == 2
    assert found.budgets == {} and found.maps == {} and found.complete
    assert not any(said.startswith("Attributed") for said in found.sentences())


def test_weights_that_stay_on_disk_give_the_same_study(folder: Path) -> None:
    small: dict[str, Any] = {**SMALL, "resolution": 0, "budget_points": 1}
    lazy, eager = (study_depth(ff.load(str(folder), lazy=lazy), "the cat sat on", **small) for lazy in (True, False))
    for reading, profile in eager.profiles.items():
        torch.testing.assert_close(lazy.profiles[reading].scalar_curvature, profile.scalar_curvature, rtol=1e-9, atol=0)
    torch.testing.assert_close(lazy.budgets["role"].matrix, eager.budgets["role"].matrix, rtol=1e-9, atol=1e-14)


def test_more_directions_have_no_maps() -> None:
    found = study_depth(Model(tiny_model("bert")), IDS, k=3, **SMALL)
    assert found.maps == {} and found.complete
    profile = found.profiles["live"]
    assert (profile.smallest_sectional_curvature <= profile.mean_sectional_curvature + 1e-12).all()


@pytest.mark.parametrize(
    "change", [{"k": 1}, {"points": 0}, {"resolution": 1}, {"readings": ["frozen head"]}, {"prompt": []}, {"k": 9}]
)
def test_bad_arguments(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        study_depth(Model(tiny_model("bert")), **{"prompt": IDS, **SMALL, **change})


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_model("afmoe").float().save_pretrained(tmp_path / "model")
    save_word_tokenizer(tmp_path / "model")
    return tmp_path / "model"


def command(folder: Path, out: Path) -> Any:
    options = ["--points", "2", "--budget-points", "1", "--resolution", "2"]
    return CliRunner().invoke(app, ["depth", str(folder), "--prompt", "the cat sat on", "--out", str(out), *options])


def test_a_gated_model_from_the_shell(folder: Path, tmp_path: Path) -> None:
    done = command(folder, tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "Attributed to gates: " in done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert json.loads((tmp_path / "out" / "depth.json").read_text())["token"] == "on"


def test_an_interrupt_saves_what_is_done(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["fisherflat.studies.depth._study"], "budget", stop)
    done = command(folder, tmp_path / "out")
    assert done.exit_code == 130
    assert "Interrupted" in done.output
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"depth.json", "depth.safetensors", "profile.csv", "estimates.csv"} | {
        "profile_calibrated.png",
        "profile_fixed.png",
        "report.html",
    }
    assert json.loads((tmp_path / "out" / "depth.json").read_text())["complete"] is False


def test_commands_that_cannot_be_carried_out(folder: Path, tmp_path: Path) -> None:
    assert isinstance(command(tmp_path / "nowhere", tmp_path / "out").exception, CheckpointError)
    assert not (tmp_path / "out").exists()


def test_minilm_end_to_end(minilm_path: Path, tmp_path: Path) -> None:
    """Real weights: curvature is attributed to the pattern, the norms and the activation, and there is no gate."""
    out = tmp_path / "out"
    prompt = "Curvature is what remains when all else is flat."
    options = ["--points", "3", "--budget-points", "1", "--resolution", "2", "--out", str(out)]
    arguments = [sys.executable, "-m", "fisherflat.cli", "depth", str(minilm_path), "--prompt", prompt, *options]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == FILES
    table = pd.read_csv(out / "profile.csv")
    assert len(table) == 2 * 2 * 13 * 3
    assert (table.query("depth == 0").scalar_curvature == 0).all()
    matrix = pd.read_csv(out / "budget_role.csv", index_col=0)
    assert set(matrix.index[matrix.any()]) == {"pattern", "norm", "activation"}
    live = table.query("unit == 'calibrated' and reading == 'live' and depth == 6 and point == 0")
    assert matrix.to_numpy().sum() == pytest.approx(live.scalar_curvature.item(), rel=1e-6)
    content = json.loads((out / "depth.json").read_text())
    assert content["token"] == "."
    assert "Gates: this model has none." in content["summary"]
