"""The measurements behind docs/charts.md, on models of a second."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cases.tiny_models import save_tiny, save_word_tokenizer, tiny_model

import fisherflat as ff
from fisherflat.lab.experiments.what_moves import coverage, spread
from fisherflat.models import Model


def test_a_special_token_far_out_is_seen(tmp_path: Path) -> None:
    """[CLS] is made a hundred times as large as a word, so that with it the first direction is its own."""
    folder = save_tiny(tmp_path, "llama")
    save_word_tokenizer(folder)
    model = ff.load(folder)
    with torch.no_grad():
        model.module.get_input_embeddings().weight[1].mul_(100)  # type: ignore[operator]
    prompts = [model.encode(text) for text in ("the cat sat on a mat and saw the dogs run", "a mat sat on the cat")]
    block = spread(model, prompts).query("layer == 0 and part == 'block'").iloc[0]
    assert block["furthest special"] > 30 and block["furthest word"] < 3
    assert block["first share, all"] > 0.9 > block["first share, words"]


def test_without_special_tokens_there_is_no_difference() -> None:
    model = Model(tiny_model("llama"))
    found = spread(model, [model.encode([5, 6, 7, 8, 9, 11, 13, 20])])
    assert found["furthest special"].isna().all()
    assert found["cosine"].to_numpy() == pytest.approx(1.0, abs=1e-9)
    assert len(found) == 2 * 3


def test_coverage_of_the_range_of_two_is_a_half() -> None:
    """Of two values with the same law, the truth lies between them every other time."""
    assert coverage((2,), runs=80).normal[0] == pytest.approx(0.5, abs=0.17)
