"""One protocol for all results: what is saved is read again, and nothing of it is lost."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import pytest
import torch
from cases.tiny_models import tiny_model

import fisherflat as ff
from fisherflat.errors import FisherflatError, InputError
from fisherflat.models import Model
from fisherflat.report import DepthStudy, Result, SymmetryStudy

matplotlib.use("agg")

#: attributes that are made when they are asked for
MADE = ("shown", "table", "gaps", "estimates")
IDS = [5, 6, 7, 8, 9, 11]
KINDS: dict[str, tuple[type[Result], Callable[[], Any]]] = {
    "analysis": (
        ff.Analysis,
        lambda: ff.analyze(
            Model(tiny_model("afmoe")), IDS, layers=[1], positions="together", points=2, heads=[0], progress=False
        ),
    ),
    "depth": (
        DepthStudy,
        lambda: ff.study_depth(
            Model(tiny_model("afmoe")), IDS, points=3, budget_points=2, resolution=2, progress=False
        ),
    ),
    "symmetry": (SymmetryStudy, lambda: ff.symmetry.study(Model(tiny_model("mixtral")), IDS, progress=False)),
    "no gated MLP": (SymmetryStudy, lambda: ff.symmetry.study(Model(tiny_model("bert")), IDS, progress=False)),
}


@pytest.fixture(scope="module", params=KINDS)
def found(request: pytest.FixtureRequest) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return KINDS[request.param][1]()


def same(one: Any, other: Any) -> None:
    """Equal to the last bit, NaN where NaN is."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    elif isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other, check_dtype=bool(len(one)))
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, (list, tuple)) and not hasattr(one, "_fields"):
        assert len(one) == len(other)
        for item, its in zip(one, other, strict=True):
            same(item, its)
    elif hasattr(one, "__dataclass_fields__"):
        same(vars(one), vars(other))
    else:
        assert one == other or (one != one and other != other)


def test_what_is_saved_is_read_again(found: Result, tmp_path: Path) -> None:
    files = found.save(tmp_path / "new")
    assert sorted(files) == sorted(path for path in (tmp_path / "new").rglob("*") if path.is_file())
    again = type(found).load(tmp_path / "new")
    assert again.sentences() == found.sentences() and again.complete is found.complete is True
    same(*({name: value for name, value in vars(one).items() if name not in MADE} for one in (found, again)))
    same(found.tables, again.tables)
    second = {path.name: path.read_bytes() for path in again.save(tmp_path / "second")}
    assert second == {path.name: path.read_bytes() for path in files}


def test_tables_and_figures_go_by_the_names_of_their_files(found: Result, tmp_path: Path) -> None:
    names = {path.name for path in found.save(tmp_path)}
    assert {f"{name}.csv" for name in found.tables} | {f"{name}.png" for name in found.figures} <= names
    for name, table in found.tables.items():
        assert list(pd.read_csv(tmp_path / f"{name}.csv").columns) == [
            column or "Unnamed: 0" for column in table.columns
        ]
    assert all(figure.draw().axes for figure in found.figures.values())


@pytest.mark.parametrize("kind", [ff.Analysis, DepthStudy, SymmetryStudy])
def test_a_folder_without_a_result_is_refused(kind: type[Result], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not hold the files of a saved"):
        kind.load(tmp_path)


def test_damaged_files_are_refused(found: Result, tmp_path: Path) -> None:
    """Whichever file `load` needs is cut in two."""
    read = {".json", ".parquet", ".safetensors"}
    for path in (path for path in found.save(tmp_path) if path.suffix in read):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(FisherflatError):
            type(found).load(tmp_path)
        path.write_bytes(whole)
    assert type(found).load(tmp_path).sentences() == found.sentences()


def test_tables_of_before_are_read(tmp_path: Path) -> None:
    """Norms had other names in version 0.1.0."""
    analysis = KINDS["analysis"][1]()
    analysis.save(tmp_path)
    table = pd.read_parquet(tmp_path / "table.parquet")
    former = {f"{name}_norm": name for name in ("second_fundamental_form", "mean_curvature")}
    table.rename(columns=former).to_parquet(tmp_path / "table.parquet", index=False)
    pd.testing.assert_frame_equal(ff.Analysis.load(tmp_path).table, analysis.table)


def test_prompts_cannot_run_in_a_spreadsheet_or_a_terminal(tmp_path: Path) -> None:
    starts = ['=HYPERLINK("x")', "+1", "@sum(a)", " -2", "\x1b[31mred", "\u202eback", "\x9b1m", "a\r=b"]
    model, first = ff.load("python-llama"), f"{starts[0]} and so on"
    analysis = ff.analyze(model, first, layers=[0], parts=["mlp"], readings=["live"], positions="last", points=1,
                          progress=False)  # fmt: skip
    depth = ff.study_depth(model, first, points=1, budget_points=0, resolution=0, readings=["live"], progress=False)
    assert analysis.rows[0]["text"] == depth.text == first
    for number, start in enumerate(starts):
        text = f"{start} and so on"
        folder = tmp_path / str(number)
        rows = [row | {"text": text} for row in analysis.rows]
        found = ff.Analysis(rows, model=analysis.model, settings=analysis.settings, complete=True)
        found.save(folder)
        cell = pd.read_csv(folder / "table.csv").text[0]
        assert cell.startswith("'") == (text.strip()[0] in "=+@-")
        assert not set(cell) & set("\x1b\x9b\u202e\r")
        assert ff.Analysis.load(folder).table.text[0] == text == json.loads(json.dumps(found.rows[0]["text"]))
        from rich.console import Console

        console = Console(file=open(tmp_path / "out", "w", encoding="utf-8"), width=80)  # noqa: SIM115
        console.print(DepthStudy(**vars(depth) | {"text": text}).summary())
        console.file.close()
        assert not set((tmp_path / "out").read_text(encoding="utf-8")) & set("\x1b\x9b\u202e\r")


def test_a_smaller_result_leaves_nothing_of_a_larger_one_and_all_that_is_not_of_it(tmp_path: Path) -> None:
    """In one folder after the other; what a document says that its result wrote is believed of its own folder alone."""
    model, out, theirs = Model(tiny_model("afmoe")), tmp_path / "out", tmp_path / "theirs.txt"
    small: dict[str, Any] = {"layers": [1], "positions": "last", "points": 1, "progress": False, "folder": out}
    large = ff.analyze(model, [IDS, IDS[:4]], parts=["attention"], heads=[0], depth=True, **small)
    before = set(large.save(out))
    assert {path.name for path in before} > {"heads.png", "gaps.csv", "gaps.png"}
    assert (out / "depth" / "prompt-1" / "depth.json").exists()
    own = [theirs, out / "mine.csv", out / "depth" / "prompt-1" / "mine.csv", out / "depth" / "prompt-0" / "mine.txt"]
    for path in own:
        path.write_text("mine")
    about = json.loads((out / "analysis.json").read_text())
    about["files"] += ["../theirs.txt", str(theirs), "", ".", "depth/../mine.csv", 3]
    about["folders"] += ["", ".", "..", "/", None]
    (out / "analysis.json").write_text(json.dumps(about))
    found = ff.analyze(model, IDS, parts=["mlp"], readings=["live"], overwrite=True, **small)
    files = found.save(out)
    left = {path for path in out.rglob("*") if path.is_file() and path not in own}
    assert left == {*files, out / "journal.jsonl"} and len(files) < len(before)
    assert all(path.read_text() == "mine" for path in own)
    assert not (out / "depth" / "prompt-1" / "depth.json").exists()
    assert json.loads((out / "analysis.json").read_text())["files"] == sorted(path.name for path in files)

    folder = tmp_path / "symmetry"
    proofs = {path for path in KINDS["symmetry"][1]().save(folder) if path.parent.name == "certificates"}
    files = KINDS["no gated MLP"][1]().save(folder)
    assert proofs and sorted(folder.rglob("*")) == sorted(files)
