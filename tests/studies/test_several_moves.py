"""Several moves in one analysis are what each is by itself."""

from __future__ import annotations

from functools import cache
from typing import Any

import pandas as pd
import pytest

import fisherflat as ff
from fisherflat.errors import InputError

PROMPT = "def mean(values):"
ASKED: dict[str, Any] = {"layers": [0], "parts": ["mlp"], "readings": ["live"], "points": 1, "progress": False}
MOVES = ["principal", "random:0", "random:1"]


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
    assert together().sentences()[: len(first.sentences())] == first.sentences()
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


def test_several_take_no_folder(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="without a folder"):
        ff.analyze(model(), PROMPT, moves=MOVES, folder=tmp_path, **ASKED)


def test_what_moves_is_named_so_that_it_can_be_asked_for_again() -> None:
    for name in ("principal", "random:7", "words:cat,dog,bird"):
        assert ff.moves.parse(name).name == name


def test_settings_say_which_heads_were_measured() -> None:
    found = ff.analyze(model(), PROMPT, heads="all", **(ASKED | {"parts": []}))
    assert found.settings["heads"] == "all"
    assert ff.analyze(model(), PROMPT, heads=[1], **(ASKED | {"parts": []})).settings["heads"] == [1]
    assert together().settings["heads"] is None
