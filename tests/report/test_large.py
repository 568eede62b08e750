"""Analyses that outgrow a table."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet as parquet
import pytest

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.report import LargeAnalysis, load
from fisherflat.studies.comparison import Pairing, Pairs
from fisherflat.studies.layers import _run as run

SMALL: dict[str, Any] = {"layers": [2, 0], "points": 2, "parts": ["attention", "mlp"], "progress": False}
PROMPTS = [[1, 2, 3], [5, 6, 7, 8]]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[ff.Analysis, LargeAnalysis, Path]:
    folder = tmp_path_factory.mktemp("large")
    whole = ff.analyze("python-llama", PROMPTS, **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "MANY", 10)
        large = ff.analyze("python-llama", PROMPTS, folder=folder, **SMALL)
    assert isinstance(large, LargeAnalysis)
    large.save(folder)
    return whole, large, folder


def test_its_parts_hold_the_same_table(both: Any) -> None:
    whole, large, _ = both
    found = pd.concat(large.scan(), ignore_index=True)
    assert large.count == len(whole.rows) == len(found) and list(found) == large.columns == list(whole.table)
    for name in found:
        expected, here = whole.table[name].tolist(), found[name].tolist()
        assert all(
            ((a is None or a != a or a is pd.NA) and (b is None or b != b))
            or (list(a) == list(b) if name == "u" else a == b)
            for a, b in zip(expected, here, strict=True)
        ), name


def test_estimates_are_those_of_the_whole_table(both: Any) -> None:
    whole, large, folder = both
    columns = list(whole.estimates)
    pd.testing.assert_frame_equal(large.estimates[columns], whole.estimates, check_dtype=False)
    pd.testing.assert_frame_equal(large.gaps, whole.gaps, check_dtype=False)
    assert large.opening() == whole.opening() and large.scale() == whole.scale()
    written = pd.read_csv(folder / "estimates.csv")
    assert written["mean"].tolist() == pytest.approx(whole.estimates["mean"].tolist(), rel=1e-12)


def test_some_rows_are_an_analysis(both: Any) -> None:
    whole, large, _ = both
    part = large.where(layer=[0], part="mlp")
    rows = whole.table[(whole.table.layer == 0) & (whole.table.part == "mlp")].reset_index(drop=True)
    pd.testing.assert_frame_equal(part.table, rows, check_dtype=False)
    assert (
        part.estimates["mean"].tolist()
        == whole.estimates[(whole.estimates.layer == 0) & (whole.estimates.part == "mlp")]["mean"].tolist()
    )
    assert sum(map(len, large.scan(["verdict"], prompt=1))) == (whole.table.prompt == 1).sum()


def test_it_is_opened_without_its_rows(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, large, folder = both
    monkeypatch.setattr(LargeAnalysis, "scan", None)  # nothing is read
    for found in (ff.Analysis.load(folder), load(folder)):
        assert isinstance(found, LargeAnalysis) and found.count == large.count and found.complete
        assert repr(found).startswith("LargeAnalysis('python-llama', ")


def test_it_is_saved_elsewhere_and_has_a_page(both: Any, tmp_path: Path) -> None:
    _, large, _ = both
    large.save(tmp_path / "other")
    again = ff.Analysis.load(tmp_path / "other")
    pd.testing.assert_frame_equal(again.estimates, large.estimates)
    assert "Layer by layer" in (tmp_path / "other" / "report.html").read_text()


def test_what_would_need_all_rows_says_so(both: Any) -> None:
    _, large, _ = both
    with pytest.raises(InputError, match=r"too many for one table; take some of them \(\.where"):
        large.table  # noqa: B018
    with pytest.raises(InputError, match="too many for one table"):
        large.rows  # noqa: B018
    with pytest.raises(InputError, match="there is no column 'depth'"):
        list(large.scan(["depth"]))
    with pytest.raises(InputError, match="no row has layer 7"):
        large.where(layer=7)


def test_resumed_it_is_the_same(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, large, folder = both
    monkeypatch.setattr(run, "MANY", 10)
    again = ff.analyze("python-llama", PROMPTS, folder=folder, resume=True, **SMALL)
    assert isinstance(again, LargeAnalysis) and again.count == large.count


def test_without_a_folder_they_lie_in_a_temporary_one(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _, _ = both
    monkeypatch.setattr(run, "MANY", 10)
    found = ff.analyze("python-llama", PROMPTS, **SMALL)
    assert isinstance(found, LargeAnalysis)
    pd.testing.assert_frame_equal(found.where().table, whole.table, check_dtype=False)
    place = found.parts
    assert place.is_dir()
    del found
    gc.collect()
    assert not place.exists()


def test_several_moves_of_many_rows_are_estimated_by_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    few: dict[str, Any] = {"layers": [0], "points": 2, "parts": ["mlp"], "moves": ["principal", "random:0"]}
    whole = ff.analyze("python-llama", [[1, 2, 3]], progress=False, **few)
    monkeypatch.setattr(run, "MANY", 1)
    found = ff.analyze("python-llama", [[1, 2, 3]], progress=False, **few)
    assert isinstance(found, LargeAnalysis) and found.moves == whole.moves and found.count == len(whole.rows)
    pd.testing.assert_frame_equal(found.estimates, whole.estimates, check_dtype=False)
    random = whole.along("random:0")
    pd.testing.assert_frame_equal(found.where(moves="random:0").table, random.table, check_dtype=False)
    assert found.notes[-1] == whole.notes[-1]


def test_it_keeps_its_studies_of_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "MANY", 1)
    few: dict[str, Any] = {"layers": [0], "points": 2, "parts": ["mlp"], "progress": False}
    found = ff.analyze("python-llama", [[1, 2, 3]], folder=tmp_path, depth=True, **few)
    found.save(tmp_path)
    for one in (found, ff.Analysis.load(tmp_path)):
        assert isinstance(one, LargeAnalysis) and len(one.studies) == 1
        assert any(section.title.startswith("Through the depth") for section in one.sections())
        (said,) = one.depth.values()
        assert said and set(said) <= set(one.sentences())


def test_it_says_as_much_as_the_whole_of_how_it_was_made_and_shows_a_card(both: Any) -> None:
    whole, large, _ = both
    assert large.methods() == whole.methods() and "prompts" in str(large.methods())
    assert large._repr_html_() == whole._repr_html_().replace(">Analysis<", ">LargeAnalysis<")


def test_where_nothing_was_measured_it_says_so(both: Any, tmp_path: Path) -> None:
    rows = [{"layer": 0, "part": "mlp", "reading": "live", "prompt": 0, "text": "a", "error": "no"}]
    about: dict[str, Any] = {"model": "m", "settings": {}, "complete": True, "versions": {"fisherflat": "0"}}
    large = LargeAnalysis.written(rows, tmp_path, **about)
    assert not large.measured and large.opening() == ["Nothing could be measured: each row of the table says why."]
    assert list(large.estimates) == list(both[1].estimates)
    large.save(tmp_path)
    assert ff.Analysis.load(tmp_path).estimates.empty and "m" in large._repr_html_()


def test_heads_with_negligible_images_are_told_as_of_the_whole_table(tmp_path: Path) -> None:
    """Of one head some points count, of another none; a third has no such points."""
    rows = [
        {"layer": 0, "part": f"head {head}", "reading": "live", "roles": "", "prompt": 0, "text": "a", "position": 1,
         "point": point, "u": [0.0, 0.0], "scalar_curvature": 1.0 + 8.0 * small, "scalar_curvature_error": 0.0,
         "verdict": "curved", "negligible_image": small}
        for head, tiny in enumerate([(False, True, False), (True, True, True), (False, False, False)])
        for point, small in enumerate(tiny)
    ]  # fmt: skip
    about: dict[str, Any] = {"model": "m", "settings": {}, "complete": True, "versions": {"fisherflat": "0"}}
    whole, large = ff.Analysis(rows, **about), LargeAnalysis.written(rows, tmp_path, **about)
    pd.testing.assert_frame_equal(large.estimates, whole.estimates, check_dtype=False)
    assert whole.estimates["negligible"].tolist() == [1, 3, 0]
    others = whole.estimates["mean_of_others"]
    assert others[0] == others[2] == 1.0 and others.isna().tolist() == [False, True, False]
    shown = [str(section) for found in (whole, large) for section in found.sections() if section.title == "Heads"]
    assert len(shown) == 2 and shown[0] == shown[1]
    assert "+1 without negligible images" in shown[0] and "negligible image'" in shown[0]


def test_either_class_opens_what_either_saved(both: Any, tmp_path: Path) -> None:
    whole, _, folder = both
    whole.save(tmp_path)
    assert isinstance(LargeAnalysis.load(folder), LargeAnalysis)
    assert not isinstance(LargeAnalysis.load(tmp_path), LargeAnalysis)


@pytest.mark.parametrize("lost", ["part", "end of a part"])
def test_parts_that_are_not_whole_are_not_opened(both: Any, tmp_path: Path, lost: str) -> None:
    _, large, _ = both
    large.save(tmp_path)
    found = ff.Analysis.load(tmp_path)
    assert isinstance(found, LargeAnalysis)
    (part,) = tmp_path.glob("table/*")
    if lost == "part":
        part.unlink()
        with pytest.raises(InputError, match="are there no more"):
            next(found.scan())
    else:
        part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(InputError, match="saved analysis"):
        ff.Analysis.load(tmp_path)


def test_saved_where_it_lies_its_parts_are_not_written_again(both: Any) -> None:
    _, large, folder = both
    before = {path: path.stat().st_ino for path in folder.glob("table/*")}
    written = large.save(folder)
    assert before and before == {path: path.stat().st_ino for path in folder.glob("table/*")}
    assert not set(before) & set(written) and folder / "estimates.csv" in written


def test_models_of_many_rows_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few: dict[str, Any] = {"layers": [0, 1], "points": 2, "parts": ["mlp", "block"], "progress": False}
    few["readings"] = ["live", "frozen mlp gate"]
    models, prompts = ["python-llama", "python-qwen3-next"], [[1, 2, 3], [4, 5, 6, 7], [1, 2, 3]]
    expected = ff.compare(models, prompts, **few)
    assert len(expected.gates) and len(expected.pairs.table)
    monkeypatch.setattr(run, "MANY", 1)
    monkeypatch.setattr("fisherflat.report._large.AT_A_TIME", 7)
    found = ff.compare(models, prompts, folder=tmp_path, **few)
    found.save(tmp_path)
    for one in (found, ff.Comparison.load(tmp_path)):
        assert all(isinstance(each, LargeAnalysis) for each in one.analyses)
        pd.testing.assert_frame_equal(one.table, expected.table, check_dtype=False)
        pd.testing.assert_frame_equal(one.gates, expected.gates, check_dtype=False)
        for name in ("overall", "agreement"):
            pd.testing.assert_frame_equal(getattr(one, name), getattr(expected, name), check_dtype=False)
        assert isinstance(one.pairs, Pairing) and isinstance(expected.pairs, Pairs)
        pairs = pd.concat(one.pairs.pieces(), ignore_index=True)
        columns = list(pairs.columns)
        pd.testing.assert_frame_equal(
            *(table.sort_values(columns[:8], ignore_index=True) for table in (pairs, expected.pairs.table)),
            check_dtype=False,
        )
        assert one.opening() == expected.opening()


def test_groups_of_rows_without_what_is_asked_for_are_not_read(
    both: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, *_ = both
    monkeypatch.setattr("fisherflat.report._large.AT_A_TIME", 7)
    large = LargeAnalysis.written(whole.rows, tmp_path, model="m", settings=whole.settings, complete=True)
    read = parquet.ParquetFile.read_row_group
    groups = list[int]()

    def counted(self: Any, group: int, **options: Any) -> Any:
        groups.append(group)
        return read(self, group, **options)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", counted)
    every = len(list(large.scan(["layer"])))
    groups.clear()
    table = whole.table
    for layer in table["layer"].unique():
        for part in table["part"].unique():
            found = sum(len(piece) for piece in large.scan(["point"], layer=int(layer), part=part))
            assert found == ((table["layer"] == layer) & (table["part"] == part)).sum()
    assert len(groups) < every * table[["layer", "part"]].drop_duplicates().shape[0]
    assert not list(large.scan(["point"], layer=99)) and not list(large.scan(["point"], part="nothing"))


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many layers take no more of it while rows are written and gone through."""
    monkeypatch.setattr("fisherflat.report._large.AT_A_TIME", 500)

    def peak(layers: int) -> int:
        rows, before = Made(layers), pyarrow.total_allocated_bytes()
        about: dict[str, Any] = {"model": "m", "settings": {}, "complete": True, "versions": {"fisherflat": "0"}}
        tracemalloc.start()
        large = LargeAnalysis.written(rows, tmp_path / str(layers), **about)
        read = 0
        for piece in large.scan(["layer"]):
            read, rows.held = read + len(piece), max(rows.held, pyarrow.total_allocated_bytes())
        assert read == len(rows)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found + rows.held - before  # what Python holds, and what Arrow does

    peak(2)  # what is loaded once
    assert peak(16) < 1.3 * peak(4)


class Made(Sequence[dict[str, Any]]):
    """Rows that are made as they are asked for, a thousand a layer; and how much Arrow held at most meanwhile."""

    def __init__(self, layers: int) -> None:
        self.layers, self.held = layers, 0

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self):
            raise IndexError(index)
        self.held = max(self.held, pyarrow.total_allocated_bytes())
        return {"layer": index // 1000, "part": "mlp", "reading": "live", "prompt": 0, "point": index % 1000}

    def __len__(self) -> int:
        return 1000 * self.layers
