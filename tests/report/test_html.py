"""The pages of results: whole, the same from a saved folder, with the numbers of the tables, whatever prompts say."""

from __future__ import annotations

import csv
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from cases.results import made
from cases.tiny_models import tiny_model
from cases.web_pages import Parsed, hostile
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat import cli
from fisherflat.errors import InputError
from fisherflat.geometry import FLAT_WORDS
from fisherflat.models import Model
from fisherflat.pages import LIMIT
from fisherflat.report import PAGE, Result, SymmetryStudy, load

matplotlib.use("agg")
pytestmark = pytest.mark.xdist_group("results")  # which are made once in a process

GATED, PROMPTS = "python-qwen3-next", ["def mean(values): return sum(values)", "if x is None: pass"]


KINDS: dict[str, Callable[[Path], Any]] = {
    "analysis": lambda folder: ff.analyze(GATED, PROMPTS, layers=[0, 1], heads=[0], points=2, positions="last",
                                          folder=folder, progress=False),
    "analysis with its depth": lambda folder: ff.analyze("python-llama", "def f(): return 1", layers=[0],
                                                         parts=["mlp"], readings=["live"], points=2, positions="last",
                                                         folder=folder, depth=True, progress=False),
    "next tokens": lambda folder: ff.analyze(GATED, PROMPTS[:1], layers=[1], parts=["block"], points=2,
                                             positions="last", family="next-token", progress=False),
    "depth": lambda folder: made("many parts"),
    "depth without budgets": lambda folder: ff.study_depth(GATED, PROMPTS[0], points=1, budget_points=0, resolution=0,
                                                           progress=False),
    "symmetry": lambda folder: ff.symmetry.study(GATED, PROMPTS[0], progress=False),
    "no gated MLP": lambda folder: ff.symmetry.study(Model(tiny_model("bert")), [5, 6, 7], progress=False),
}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    folder = tmp_path_factory.mktemp("result")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = KINDS[request.param](folder)
        found.save(folder)
    return found, folder


def test_a_page_is_whole_and_opens_with_what_matters(saved: tuple[Result, Path]) -> None:
    found, folder = saved
    text = (folder / PAGE).read_text(encoding="utf-8")
    page = Parsed(text)
    page.check()
    assert len(text.encode()) <= LIMIT
    opening = found.opening()
    assert 1 <= len(opening) <= 3 and all(sentence[0].isupper() and sentence[-1] == "." for sentence in opening)
    joined = "".join(page.text)
    places = [joined.index(sentence) for sentence in opening]
    assert places == sorted(places) and all(place < joined.index("How it was made") for place in places)
    assert "nan" not in joined.lower().split()


def test_it_is_made_again_from_its_folder(saved: tuple[Result, Path], tmp_path: Path) -> None:
    found, folder = saved
    again = load(folder)
    assert type(again) is type(found)
    assert again.report(tmp_path / "again.html").read_bytes() == (folder / PAGE).read_bytes()


def written(file: Path, names: tuple[str, ...]) -> set[float]:
    """The numbers in some columns of a table, of parts and in the first unit, as the file has them."""
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if not row.get("part", "").startswith("head ")]
    rows = [row for row in rows if row.get("unit") in (None, "calibrated")]
    return {float(row[name] or "nan") for row in rows for name in names}


def test_numbers_on_the_page_are_those_of_the_tables(saved: tuple[Result, Path]) -> None:
    """To the last digit."""
    found, folder = saved
    shown = {
        float(number) for grid in Parsed((folder / PAGE).read_text()).tables for row in grid.rows for _, number in row
        if number is not None
    }  # fmt: skip
    expected = set()
    if isinstance(found, SymmetryStudy) and len(found.table):
        expected = {float(number) for number in found.layers.to_numpy().ravel()}
    if (folder / "estimates.csv").exists():
        expected = written(folder / "estimates.csv", ("mean", "low", "high"))
    assert {number for number in expected if number == number} <= shown
    assert expected or not len(found.table)


def test_the_opening_has_an_error_beside_each_number() -> None:
    found = ff.analyze(GATED, PROMPTS, layers=[1], parts=["attention"], points=2, positions="last", progress=False)
    flat, curved, made = found.opening()
    row = found.estimates.set_index("reading").loc["live"]
    assert "proved" in flat and "pattern and attention gate" in flat
    assert f"{row['mean']:+.3g}" in curved and "numerical error" in curved
    assert f"{row['low']:.3g} to {row['high']:.3g}" in curved
    assert "numerical error" in made


def test_which_part_matters_most_is_the_one_that_changes_most() -> None:
    """Against the rows themselves: paired differences of the readings that hold one part."""
    found = ff.analyze(GATED, PROMPTS, layers=[3], parts=["attention"], points=3, progress=False)
    wide = found.by_reading()
    single = [name for name in wide if name.startswith("frozen ") and "+" not in name]
    change = {name: abs((wide["live"] - wide[name]).mean()) for name in single}
    most = max(change, key=change.__getitem__)
    assert len(change) > 1 and f"{most.removeprefix('frozen ')}" in found.opening()[2]


def test_a_flat_model_is_said_to_be_flat() -> None:
    found = ff.analyze(GATED, PROMPTS[0], layers=[1], parts=["mlp"], readings=["frozen mlp gate"], points=2,
                       positions="last", progress=False)  # fmt: skip
    assert set(found.table["verdict"]) <= set(FLAT_WORDS)
    flat, curved, made = found.opening()
    assert flat.startswith("Flat, and proved") and "known to be curved" in curved and "nothing" in made


@pytest.fixture(scope="module")
def honest() -> ff.Analysis:
    return ff.analyze("python-llama", PROMPTS[0], layers=[0], parts=["mlp"], readings=["live"], positions="last",
                      points=1, progress=False)  # fmt: skip


@pytest.mark.parametrize("text", hostile())
def test_a_hostile_prompt_does_nothing(honest: ff.Analysis, text: str, tmp_path: Path) -> None:
    def page(text: str) -> Parsed:
        rows = [{**row, "text": text, "token": text} for row in honest.rows]
        failed = {**rows[0], "verdict": None, "error": text, "scalar_curvature": None}
        found = ff.Analysis([*rows, failed], model=text, settings=honest.settings, complete=True, notes=[text])
        return Parsed(found.report(tmp_path / "page.html").read_text(encoding="utf-8"))

    plain, other = page("plain"), page(text)
    other.check()
    assert other.shape == plain.shape and len(other.scripts) == len(plain.scripts)
    assert not set("".join(other.text)) & set("\u202e\u2066\x1b\x00")


def test_certificates_of_the_folder_are_on_the_page(tmp_path: Path) -> None:
    found = ff.analyze("python-llama", PROMPTS[0], layers=[0], parts=["attention"], points=1, positions="last",
                       progress=False)  # fmt: skip
    found.save(tmp_path)
    before = (tmp_path / PAGE).read_text()
    arguments = ["certify", "python-llama", "--layer", "0", "--reading", "frozen pattern", "--prompt", PROMPTS[0]]
    done = CliRunner().invoke(cli.app, [*arguments, "--out", str(tmp_path / "proof.json")], catch_exceptions=False)
    assert done.exit_code == 0 and f"written: {tmp_path / PAGE}" in done.output
    after = (tmp_path / PAGE).read_text()
    assert "Certificates" not in before and "fisherflat verify proof.json python-llama" in after
    assert ff.certify_layer("python-llama", 0, prompt=PROMPTS[0], reading="frozen pattern").claim in "".join(
        Parsed(after).text
    )


def test_certificates_alone_are_a_result(tmp_path: Path) -> None:
    for reading in ("live", "frozen pattern"):
        certificate = ff.certify_layer("python-llama", 0, prompt=PROMPTS[0], reading=reading)
        certificate.save(tmp_path / f"{reading}.json")
    (tmp_path / "notes.json").write_text("{}")
    found = load(tmp_path)
    flat, curved, _ = found.opening()
    assert "frozen pattern" in flat and "live" in curved
    page = Parsed(found.report(tmp_path / PAGE).read_text())
    page.check()
    assert {row[0][0] for row in page.tables[0].rows} == {"live.json", "frozen pattern.json"}


def test_a_file_of_somebody_else_stays(tmp_path: Path) -> None:
    (tmp_path / PAGE).write_text("<p>mine</p>")
    arguments = ["certify", "python-llama", "--layer", "0", "--out", str(tmp_path / "proof.json")]
    assert CliRunner().invoke(cli.app, arguments, catch_exceptions=False).exit_code == 0
    assert (tmp_path / PAGE).read_text() == "<p>mine</p>"


def test_the_shell_makes_a_page_again(tmp_path: Path) -> None:
    found = ff.symmetry.study("python-llama", [1, 2, 3], progress=False)
    found.save(tmp_path)
    page = (tmp_path / PAGE).read_bytes()
    (tmp_path / PAGE).unlink()
    done = CliRunner().invoke(cli.app, ["report", str(tmp_path)], catch_exceptions=False)
    assert done.output == f"written: {tmp_path / PAGE}\n" and (tmp_path / PAGE).read_bytes() == page
    done = CliRunner().invoke(cli.app, ["report", str(tmp_path), "--out", str(tmp_path / "other.html")])
    assert (tmp_path / "other.html").read_bytes() == page


def test_a_folder_without_a_result_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no result"):
        load(tmp_path)
    with pytest.raises(InputError, match="holds no result"):
        load(tmp_path / "nowhere")
    ff.symmetry.study("python-llama", [1, 2, 3], progress=False).save(tmp_path / "inner")
    with pytest.raises(InputError, match="there are results in inner"):
        load(tmp_path)
    (tmp_path / "analysis.json").write_text("{")
    with pytest.raises(InputError, match="does not hold the files of a saved analysis"):
        load(tmp_path)


def test_undecided_points_are_on_the_page_and_in_no_mean() -> None:
    """Rows whose error exceeds their value, as a study would have measured them."""
    found = ff.analyze("python-llama", PROMPTS[0], layers=[0], parts=["mlp"], readings=["live"], points=2,
                       positions="last", progress=False)  # fmt: skip
    rows = [dict(row) for row in found.rows]
    rows[1] |= {"scalar_curvature": 1e9, "scalar_curvature_error": 2e9, "verdict": "undecided"}
    changed = ff.Analysis(rows, model="m", settings=found.settings, complete=True)
    assert f"{rows[0]['scalar_curvature']:+.3g}" in changed.opening()[1]
    said = " ".join(line for section in changed.sections() for item in section.items
                    for line in getattr(item, "lines", ()))  # fmt: skip
    assert "Undecided: at 1 of 2 points" in said


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    settings = {"prompts": [[1, 2]], "moves": {"kind": "principal", "dim": 2}, "parts": ["mlp"], "heads": None,
                "readings": None, "layers": None, "positions": "last", "points": 1, "seed": 0, "engine": "taylor",
                "dtype": "float64", "errors": "sample"}  # fmt: skip
    row = {"layer": 0, "part": "mlp", "prompt": 0, "text": "x", "error": "TraceError: <b>no</b>", "verdict": None}
    found = ff.Analysis([row], model="m", settings=settings, complete=False)
    page = Parsed(found.report(tmp_path / PAGE).read_text())
    page.check()
    assert "TraceError: <b>no</b>" in "".join(page.text) and "interrupted" in "".join(page.text)


def commands(page: Path, command: str) -> list[list[str]]:
    """The commands of a kind that a page shows, as the words of their arguments."""
    lines = [
        line for line in Parsed(page.read_text(encoding="utf-8")).text if line.startswith(f"fisherflat {command} ")
    ]
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.parametrize(
    ("arguments", "table"),
    [
        (["analyze", "--layer", "1", "--part", "mlp,attention", "--head", "0", "--points", "2", "--position", "1,-1",
          "--moves", "random:3", "--dim", "3", "--seed", "2", "--reading", "live", "--errors", "all",
          "--ids", "5,6,7,8"], "table.csv"),
        (["analyze", "--layer", "0", "--part", "mlp", "--points", "1", "--moves", "words:self,None,True",
          "--position", "last"], "table.csv"),
        (["depth", "--points", "2", "--budget-points", "1", "--resolution", "0", "--no-halves", "--position", "2",
          "--reading", "live"], "profile.csv"),
        (["symmetry", "--prompt", "def it's(\"x\"): $HOME"], "units.csv"),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)  # fmt: skip
def test_the_command_on_a_page_repeats_it(arguments: list[str], table: str, tmp_path: Path) -> None:
    def run(words: list[str], out: Path) -> None:
        done = CliRunner().invoke(cli.app, [*words, "--out", str(out)], catch_exceptions=False)
        assert done.exit_code == 0, done.output

    command, *options = arguments
    if "words:self,None,True" in options:
        options += ["--prompt", "def f(): return self"]
    run([command, "python-llama", *options], tmp_path / "first")
    (again,) = commands(tmp_path / "first" / PAGE, command)
    assert again[-2:] == ["--out", "again"]
    run(again[:-2], tmp_path / "second")
    assert (tmp_path / "second" / table).read_bytes() == (tmp_path / "first" / table).read_bytes()
