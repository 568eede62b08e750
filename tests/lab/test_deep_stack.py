"""A random checkpoint of the shape of Llama's: it is one, and it is measured."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import fisherflat as ff
from fisherflat.lab.experiments.deep_stack import Shape, write

SMALL = Shape(layers=2, width=16, hidden=24, heads=2, words=40)


def test_it_is_what_transformers_builds(tmp_path: Path) -> None:
    folder = write(SMALL, tmp_path / "model")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    written = {name: shape for shard in SMALL.shards for name, shape in shard.items()}
    assert written == {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert sum(math.prod(shape) for shard in Shape().shards for shape in shard.values()) == 6_738_415_616


def test_its_blocks_are_measured_one_by_one(tmp_path: Path) -> None:
    model = ff.load(write(SMALL, tmp_path / "model"), lazy=True)
    table = ff.analyze(model, [[1, 2, 3, 4]], parts=["block"], readings=["live"], points=1, positions="last",
                       moves="random", progress=False).table  # fmt: skip
    assert list(table["layer"]) == [0, 1] and table["scalar_curvature"].abs().gt(table["scalar_curvature_error"]).all()


def test_its_depth_is_that_of_the_model_in_memory_and_begins_with_the_first_block(tmp_path: Path) -> None:
    folder, tokens = write(SMALL, tmp_path / "model"), [1, 2, 3, 4]
    asked = {"moves": "random", "readings": ["live"], "points": 2, "progress": False}
    alone = ff.analyze(folder, [tokens], parts=["block"], positions="last", layers=[0], **asked).table
    lazy, whole = (
        ff.study_depth(ff.load(folder, lazy=lazy), tokens, position="last", halves=False, budget_points=0,
                       resolution=0, **asked).profiles["live"].scalar_curvature
        for lazy in (True, False)
    )  # fmt: skip
    torch.testing.assert_close(lazy, whole, rtol=1e-12, atol=0)
    torch.testing.assert_close(lazy[1], torch.tensor(alone["scalar_curvature"]), rtol=1e-9, atol=0)
    assert (lazy[2] / lazy[1] - 1).abs().min() > 1e-3  # the second block matters
