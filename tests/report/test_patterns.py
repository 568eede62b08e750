"""The attention patterns beside the curvature of heads: those of the model itself, saved, drawn and on the page."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib import pyplot as plt

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.studies.layers import _study

PROMPTS = ["for key in sorted(table):", "def mean(values):"]

pytestmark = pytest.mark.xdist_group("patterns")  # what is made once in a process


@cache
def model() -> ff.Model:
    return ff.load("python-llama")


@cache
def analysis() -> ff.Analysis:
    return ff.analyze(
        model(), PROMPTS, parts=[], heads=[0, 3], layers=[1, 2], readings=["live"], points=1, positions="last content",
        progress=False,
    )  # fmt: skip


def test_they_are_the_attention_weights_that_the_model_itself_returns() -> None:
    found = {(one.layer, one.head, one.prompt): one for one in analysis().patterns}
    assert set(found) == {(layer, head, prompt) for layer in (1, 2) for head in (0, 3) for prompt in (0, 1)}
    for number, prompt in enumerate(PROMPTS):
        ids = model().encode(prompt).ids[None]
        with torch.no_grad():
            attentions = model().module(ids, output_attentions=True, use_cache=False).attentions
        for layer in (1, 2):
            for head in (0, 3):
                weights = torch.tensor(found[layer, head, number].weights, dtype=torch.float64)
                torch.testing.assert_close(weights, attentions[layer][0, head].double(), rtol=0, atol=2e-6)


def test_tokens_are_decoded_for_people() -> None:
    tokens = analysis().patterns[0].tokens
    assert "key" in tokens and not any(token.startswith("Ġ") for token in tokens)
    assert len(tokens) == len(model().encode(PROMPTS[0]).ids)


def test_they_are_saved_and_loaded(tmp_path: Path) -> None:
    analysis().save(tmp_path / "found")
    again = ff.Analysis.load(tmp_path / "found")
    assert again.patterns == analysis().patterns
    assert len(json.loads((tmp_path / "found" / "patterns.json").read_text())["patterns"]) == 8
    page = (tmp_path / "found" / "report.html").read_text()
    assert "What heads look at" in page and "patterns.png" in [file.name for file in (tmp_path / "found").iterdir()]


def test_a_file_that_holds_something_else_is_named(tmp_path: Path) -> None:
    analysis().save(tmp_path / "found")
    (tmp_path / "found" / "patterns.json").write_text('{"patterns": [{"layer": 0}]}')
    with pytest.raises(InputError, match="patterns"):
        ff.Analysis.load(tmp_path / "found")


def test_the_figure_has_the_most_curved_first_each_with_its_curvature() -> None:
    canvas = analysis().files()["patterns.png"].draw()
    titles = [ax.get_title(loc="left").split("\n") for ax in canvas.axes if ax.get_title(loc="left")]
    estimates = analysis().estimates.sort_values("mean", key=abs, ascending=False)
    places = [f"layer {row.layer}, {row.part}" for row in estimates.itertuples()]
    assert [place for place, _ in titles] == places
    for (_, said), mean in zip(titles, estimates["mean"], strict=True):
        assert float(said.removeprefix("live: ").removesuffix("/σ²")) == pytest.approx(mean, rel=6e-3)


def test_a_prompt_that_is_too_long_to_be_read_has_none(monkeypatch: Any) -> None:
    monkeypatch.setattr(_study, "READABLE", 3)
    found = ff.analyze(
        model(), PROMPTS[1], parts=[], heads=[0], layers=[0], readings=["live"], points=1, positions=[2], progress=False
    )
    assert found.patterns == [] and "patterns.png" not in found.files()


def test_several_moves_have_each_pattern_once() -> None:
    found = ff.analyze(
        model(), PROMPTS[1], parts=[], heads=[0], layers=[0], readings=["live"], points=1, positions=[2],
        moves=["principal", "random:0"], progress=False,
    )  # fmt: skip
    assert [(one.layer, one.head) for one in found.patterns] == [(0, 0)]


@pytest.mark.parametrize("given", [{}, {"a": [[1.0]]}, {"a": [[1.0, 0.0], [0.5, 0.5]], "b": [1.0, 2.0]}])
def test_shapes_that_do_not_fit_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="pattern"):
        ff.plot.patterns(given, ["The", "cat"])
    plt.close("all")
