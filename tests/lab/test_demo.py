"""The demonstration from end to end, and how the command line fails."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat import cli
from fisherflat._files import whole
from fisherflat.errors import InputError
from fisherflat.lab.demo import Demo, demo
from fisherflat.lab.experiments.ring import ring_data
from fisherflat.zoo import ring_pair, ring_provenance

RESOLUTION = 21
FILES = ["curvature_maps.csv", "curvature_maps.json", "curvature_maps.npz", "curvature_maps.png", "report.html"]


@pytest.fixture(scope="module")
def found() -> Demo:
    return demo(RESOLUTION)


@pytest.fixture(scope="module")
def folder(found: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    assert sorted(path.name for path in found.save(out)) == FILES
    return out


def test_only_the_ungated_model_with_its_pattern_held_is_flat(found: Demo) -> None:
    flat = {key for key, field in found.fields.items() if field.is_flat}
    assert flat == {("ungated", "frozen pattern")}
    assert set(found.fields) == {
        ("ungated", "live"),
        ("ungated", "frozen pattern"),
        ("gated", "live"),
        ("gated", "frozen pattern"),
        ("gated", "frozen gate"),
    }


def test_what_was_saved_is_loaded(found: Demo, folder: Path) -> None:
    loaded = Demo.load(folder)
    assert loaded.accuracy == found.accuracy and set(loaded.fields) == set(found.fields)
    for key, field in found.fields.items():
        again = loaded.fields[key]
        assert again.extent == field.extent and again.verdict == field.verdict
        for name in ("u", "scalar_curvature", "metric", "scalar_curvature_error", "verdicts"):
            torch.testing.assert_close(getattr(again, name), getattr(field, name), rtol=0, atol=0, equal_nan=True)


def test_a_folder_without_a_demonstration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not hold the files of a demonstration"):
        Demo.load(tmp_path)


def test_accuracy_is_that_of_the_provenance_and_the_mean_over_its_regions(found: Demo) -> None:
    record = ring_provenance()
    points, labels = ring_data(record["recipe"]["test_points"], record["task"]["test_seed"])
    hole, ring = (points.norm(dim=1) < 1) & (labels == 0), labels == 1
    shares = {"in the hole": hole, "in the ring": ring, "outside": ~hole & ~ring}
    for name, right in found.accuracy.items():
        said = record["shipped"][name]["test_accuracy"]
        assert right["all"] == pytest.approx(said, abs=2 / len(points))  # points on the boundary to rounding
        mean = sum(chosen.double().mean().item() * right[region] for region, chosen in shares.items())
        assert mean == pytest.approx(right["all"])


def test_files_are_whole_and_nothing_else_is_left(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES
    png = (folder / "curvature_maps.png").read_bytes()
    assert png.startswith(b"\x89PNG") and png.rstrip().endswith(b"IEND\xaeB`\x82")


def test_csv_holds_the_curvature_of_every_grid_point(folder: Path) -> None:
    with (folder / "curvature_maps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * RESOLUTION**2
    model = ring_pair()["gated"]
    family = ff.Gaussian.calibrated(model.representation(ring_data(1000, 0)[0]))
    M = ff.StatisticalManifold(model.representation, ff.charts.identity(2), family, engine="autodiff")
    for row in [row for row in rows if (row["model"], row["reading"]) == ("gated", "live")][:: RESOLUTION + 3]:
        u = torch.tensor([float(row["u1"]), float(row["u2"])], dtype=torch.float64)
        assert float(row["scalar_curvature"]) == pytest.approx(M.scalar_curvature(u).item(), rel=1e-5)
        assert float(row["volume_density"]) == pytest.approx(M.volume_density(u).item(), rel=1e-3)
        assert float(row["logit"]) == pytest.approx(model(u).item(), rel=1e-3)


def test_json_sums_up(folder: Path, found: Demo) -> None:
    numbers = json.loads((folder / "curvature_maps.json").read_text())
    assert numbers["models"]["gated"]["parameters"] - numbers["models"]["ungated"]["parameters"] == 16 * 16
    for name, model in numbers["models"].items():
        assert model["test_accuracy"] == found.accuracy[name]
        for reading, summary in model["readings"].items():
            assert (summary["verdict"] == "flat (proved)") == ((name, reading) == ("ungated", "frozen pattern"))
            assert summary["low"] <= summary["median"] <= summary["high"]


def test_summary_says_what_is_seen(found: Demo) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(found.summary())
    text = console.export_text()
    assert "flat (proved)" in text and "curved by softmax and gate" in text
    for name, right in found.accuracy.items():
        assert f"The {name} model is right on {right['all']:.1%} of new points" in text


def test_figure_has_a_map_for_each_model_and_shown_reading(found: Demo) -> None:
    figure = found.figure()
    maps = [ax for ax in figure.axes if ax.get_xlim() == (-2, 2)]
    assert len(maps) == 4
    assert {ax.get_title().split(":")[0] for ax in maps} == {"ungated", "gated", ""}


def test_too_coarse_a_grid_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 points"):
        demo(1)


# -- writing ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_nothing_behind(found: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Figure, path: Path, **_: Any) -> None:
        path.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(InputError, match=r"curvature_maps.png cannot be written \(No space left on device\)"):
        found.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole(path) as part:
        part.write_text("ne")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["file"] and path.read_text() == "old"


# -- the command line ------------------------------------------------------------------------------------------------


def test_command_writes_and_names_its_files(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path / "x"), "--resolution", "9"])
    assert result.exit_code == 0, result.output
    models = {name: ff.Analysis.load(tmp_path / "x" / name) for name in ("python-llama", "python-qwen3-next")}
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == sorted([*FILES, *models])
    for name in FILES:
        assert f"written: {tmp_path / 'x' / name}" in result.output
    for name, analysis in models.items():
        held = analysis.table[analysis.table.reading == "frozen pattern"]
        assert (held.verdict == "flat (proved)").all() == (name == "python-llama") and held.layer.nunique() >= 3


def test_our_errors_are_one_message_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(
        sys, "argv", ["fisherflat", "demo", "--resolution", "3", "--out", str(tmp_path / "file" / "below")]
    )
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    assert exit_info.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("fisherflat: the folder") and error.count("\n") == 1


def test_wrong_usage_is_exit_code_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["demo", "--resolution", "-1"], ["demo", "--resolution", "many"], ["draw"], []):
        monkeypatch.setattr(sys, "argv", ["fisherflat", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            cli.main()
        assert exit_info.value.code == 2
        assert "Traceback" not in capsys.readouterr().err
