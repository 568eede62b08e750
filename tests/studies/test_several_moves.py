"""Several moves in one analysis are what each is by itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

import fisherflat as ff
from fisherflat.cli import _options as options
from fisherflat.cli import app
from fisherflat.errors import InputError

PROMPT = "def mean(values):"
ASKED: dict[str, Any] = {"layers": [0], "parts": ["mlp"], "readings": ["live"], "points": 1, "progress": False}
MOVES = ["principal", "random:0", "random:1"]

pytestmark = pytest.mark.xdist_group("several moves")  # what is made once in a process


@cache
def model() -> ff.Model:
    return ff.load("python-llama")


@cache
def together() -> ff.Analysis:
    return ff.analyze(model(), PROMPT, moves=MOVES, **ASKED)


def test_each_is_what_it_is_alone() -> None:
    assert together().moves == MOVES
    for name in MOVES:
        alone = ff.analyze(model(), PROMPT, moves=name, **ASKED)
        for found in (together().along(name), together()):
            table = found.table[found.table["moves"] == name].reset_index(drop=True)
            pd.testing.assert_frame_equal(table, alone.table, rtol=1e-9)
        assert together().along(name).settings == alone.settings
    seeds = together().table.groupby("moves")["scalar_curvature"].mean()
    assert seeds["random:0"] != seeds["random:1"]


def test_estimates_and_sentences_are_of_the_first() -> None:
    first = ff.analyze(model(), PROMPT, moves="principal", **ASKED)
    pd.testing.assert_frame_equal(together().estimates, first.estimates, rtol=1e-9)
    assert [said for said in together().sentences() if said in first.sentences()] == first.sentences()
    assert "random:0, random:1" in together().notes[-1]


def test_they_are_saved_and_loaded(tmp_path: Any) -> None:
    together().save(tmp_path / "found")
    again = ff.Analysis.load(tmp_path / "found")
    assert again.moves == MOVES
    pd.testing.assert_frame_equal(again.table, together().table)
    assert again.along("random:1").settings == together().along("random:1").settings


@pytest.mark.parametrize("given", [[], ["principal", "principal"], ["random", "random:0"], ["principal", "nonsense"]])
def test_bad_lists_are_refused(given: list[str]) -> None:
    with pytest.raises(InputError, match=r"moves|move"):
        ff.analyze(model(), PROMPT, moves=given, **ASKED)


def same(found: ff.Analysis, other: ff.Analysis) -> None:
    pd.testing.assert_frame_equal(found.table, other.table, rtol=1e-9)
    assert found.settings == other.settings and found.moves == other.moves


def test_what_is_done_of_each_is_kept_and_taken_up(tmp_path: Path) -> None:
    """Interrupted in the middle of the second of three: the same command goes on there."""
    done = list[str]()

    def until(last: int) -> Any:
        def runner(work: Any, tasks: Any) -> Any:
            for task in tasks:
                if len(done) == last:
                    raise KeyboardInterrupt
                done.append(work.settings.moves.name)
                yield task, work.measure(task)

        return runner

    asked = ASKED | {"layers": [0, 1], "moves": MOVES, "folder": tmp_path / "found"}
    broken = ff.analyze(model(), PROMPT, **asked, runner=until(3))
    assert not broken.complete and broken.moves == MOVES[:2] and len(broken.table) == 3 * len(together().table) // 3
    with pytest.raises(InputError, match="resume"):
        ff.analyze(model(), PROMPT, **asked)
    whole = ff.analyze(model(), PROMPT, **asked, runner=until(-1), resume=True)
    assert done == [name for name in MOVES for _ in range(2)]
    assert whole.complete
    same(whole, ff.analyze(model(), PROMPT, **ASKED | {"layers": [0, 1], "moves": MOVES}))
    more = ff.analyze(model(), PROMPT, **asked | {"moves": [*MOVES, "random:2"]}, runner=until(-1), resume=True)
    assert done[6:] == ["random:2"] * 2 and more.moves[-1] == "random:2"


def test_the_shell_takes_them_as_other_lists(tmp_path: Path) -> None:
    line = ["analyze", "python-llama", "--prompt", PROMPT, "--layer", "0", "--part", "mlp", "--reading", "live",
            "--points", "1", "--quiet", "--out", str(tmp_path / "found")]  # fmt: skip
    given = CliRunner().invoke(app, [*line, "--moves", "principal,random:0", "--moves", "random:1"])
    assert given.exit_code == 0, given.output
    found = ff.Analysis.load(tmp_path / "found")
    same(found, together())
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "found" / "moves.csv")[["moves", "mean"]],
                                  together().by_moves[["moves", "mean"]], rtol=1e-9)  # fmt: skip
    page = (tmp_path / "found" / "report.html").read_text()
    assert "Along each of the moves" in page
    assert "--moves principal --moves random:0 --moves random:1" in page
    again = CliRunner().invoke(app, [*line, "--moves", "principal,random:0,random:1", "--resume"])
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["principal"], "principal"),
        (["principal,random:0"], ["principal", "random:0"]),
        (["random:0, random:1 ", "principal"], ["random:0", "random:1", "principal"]),
        (["words:cat,dog,bird"], "words:cat,dog,bird"),
        (["principal,words:cat,dog"], ["principal", "words:cat,dog"]),
        (["words:random,principal", "random"], ["words:random,principal", "random"]),
        (["vectors:a,b.npy"], "vectors:a,b.npy"),
        ([""], []),
    ],
)
def test_commas_separate_moves_and_words(given: list[str], read: Any) -> None:
    assert options.moves(given) == read


def test_a_plan_counts_all_of_them() -> None:
    asked = {name: value for name, value in ASKED.items() if name != "progress"}
    found = ff.plan(model(), PROMPT, moves=MOVES, **asked)
    assert (found.rows, found.tasks, found.models) == (len(together().table), 3, 1)


def test_sentences_say_what_depends_on_the_directions() -> None:
    found = ff.analyze(model(), PROMPT, **ASKED | {"layers": [0, 1, 2], "moves": MOVES[:2]})
    means = found.by_moves.set_index(["moves", "layer"])["mean"]
    first, other = means["principal"], means["random:0"]
    ratio, agreeing = other.abs().mean() / first.abs().mean(), int(((first > 0) == (other > 0)).sum())
    (said,) = [one for one in found.sentences() if one.startswith("Along other moves")]
    assert f"is {ratio:.2g} times as large" in said and f"same sign in {agreeing} of 3 layers" in said


def test_comparisons_and_tracks_are_about_the_first() -> None:
    first = ff.analyze(model(), PROMPT, moves="principal", **ASKED)
    assert ff.compare(together(), first).table["mean"].tolist() == [0.0]


def test_what_moves_is_named_so_that_it_can_be_asked_for_again() -> None:
    for name in ("principal", "random:7", "words:cat,dog,bird"):
        assert ff.moves.parse(name).name == name


def test_settings_say_what_was_done_and_what_was_asked_for() -> None:
    found = ff.analyze(model(), [PROMPT, "for key in x:"], heads="all", **(ASKED | {"parts": [], "layers": [-1]}))
    settings = found.settings
    assert settings["heads"] == [0, 1, 2, 3] and settings["layers"] == [3] and settings["readings"] == ["live"]
    table = found.table
    assert settings["positions"] == [sorted(set(table["position"][table["prompt"] == one])) for one in (0, 1)]
    assert settings["asked"] == {"layers": [-1], "heads": "all", "readings": ["live"], "positions": "spread"}
    few = ff.analyze(model(), PROMPT, heads=[-1], layers=[0], parts=["mlp"], points=1, progress=False)
    assert (few.settings["heads"], few.settings["asked"]["heads"]) == ([3], [-1])
    assert few.settings["asked"]["readings"] is None
    assert set(few.settings["readings"]) == set(few.table["reading"])
    assert together().settings["heads"] is None


@pytest.mark.parametrize(("asked", "done"), [("together", ["together"]), ([-1, 0], [[6, 0]]), ([[2]], [[2]])])
def test_positions_are_said_prompt_by_prompt(asked: Any, done: Any) -> None:
    found = ff.analyze(model(), PROMPT, positions=asked, **ASKED)
    assert found.settings["positions"] == done and found.settings["asked"]["positions"] == asked


def test_the_settings_of_a_study_of_depth_too() -> None:
    found = ff.study_depth(model(), PROMPT, points=1, budget_points=0, resolution=0, halves=False, progress=False)
    assert found.settings["readings"] == list(found.profiles)
    assert found.token == model().encode(PROMPT).read[found.settings["position"]].label
    assert found.settings["asked"] == {"readings": None, "position": None}
