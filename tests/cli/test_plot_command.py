"""`fisherflat plot` draws the figures of saved results again, and `--format` says as what."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import pytest
from cases.results import made
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat import cli
from fisherflat.errors import InputError

matplotlib.use("agg")
pytestmark = pytest.mark.xdist_group("results")  # which are made once in a process

STARTS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An analysis, with a study of depth two folders below, and symmetries beside that."""
    place = tmp_path_factory.mktemp("saved")
    made("a single point").save(place)
    made("depth").save(place / "depth" / "prompt-0")
    made("symmetry").save(place / "symmetry")
    return place


def run(*words: str) -> str:
    done = CliRunner().invoke(cli.app, list(words))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def test_all_figures_are_drawn_where_their_results_are(folder: Path) -> None:
    results = {
        folder: made("a single point"),
        folder / "depth/prompt-0": made("depth"),
        folder / "symmetry": made("symmetry"),
    }
    drawn = {place / f"{name}.png" for place, result in results.items() for name in result.figures}
    kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path not in drawn}
    for path in drawn:
        path.unlink()
    said = run("plot", str(folder))
    assert all(path.read_bytes().startswith(STARTS["png"]) for path in drawn)
    assert {line.partition("written: ")[2] for line in said.splitlines()} == {str(path) for path in drawn}
    assert {path: path.read_bytes() for path in kept} == kept


def test_chosen_figures_in_other_formats_and_elsewhere(folder: Path, tmp_path: Path) -> None:
    said = run(
        "plot", str(folder), "--figure", "layers,transport", "--format", "pdf,svg", "--out", str(tmp_path), "--json"
    )
    files = {tmp_path / f"{name}.{kind}" for name in ("layers", "depth/prompt-0/transport") for kind in ("pdf", "svg")}
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == files
    assert {Path(name) for name in json.loads(said)["files"]} == files
    for path in files:
        assert path.read_bytes().startswith(STARTS[path.suffix[1:]])


def test_what_is_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no 'nothing' in .*; there are .*layers"):
        run("plot", str(folder), "--figure", "nothing")
    with pytest.raises(InputError, match="holds no result"):
        run("plot", str(tmp_path))
    done = CliRunner().invoke(cli.app, ["plot", str(folder), "--format", "jpg"])
    assert done.exit_code == 2 and "jpg" in done.output


@pytest.mark.parametrize("command", ["analyze", "depth", "symmetry"])
def test_commands_write_figures_in_the_formats_asked_for(command: str, tmp_path: Path) -> None:
    more = {
        "analyze": ["--layer", "0", "--part", "mlp", "--points", "1"],
        "depth": ["--points", "1", "--budget-points", "0", "--resolution", "0", "--reading", "live"],
        "symmetry": [],
    }[command]
    run(command, "python-llama", "--ids", "5,6,7", "--format", "svg", "--formats", "pdf", "--out", str(tmp_path), *more)
    kinds = {kind: {path.stem for path in tmp_path.glob(f"*.{kind}")} for kind in STARTS}
    assert kinds["svg"] == kinds["pdf"] and kinds["svg"] and not kinds["png"]
    document = next(path for path in tmp_path.glob("*.json"))
    listed = json.loads(document.read_text())["files"]
    assert {name for name in listed if name.endswith((".svg", ".pdf", ".png"))} == {
        f"{name}.{kind}" for kind in ("svg", "pdf") for name in kinds[kind]
    }


def test_other_formats_take_the_place_of_those_of_before(tmp_path: Path) -> None:
    found: ff.Analysis = made("a single point")
    found.save(tmp_path, formats="svg")
    found.save(tmp_path, formats="pdf")
    assert not list(tmp_path.glob("*.svg")) and len(list(tmp_path.glob("*.pdf"))) == len(found.figures)
