"""The experiment with trained models: its rows hold what the studies of the prompts hold."""

from __future__ import annotations

import re

import pytest
import torch
from cases.tiny_models import tiny_model

from fisherflat.jets.graph import ROLES
from fisherflat.lab.experiments import trained_depth
from fisherflat.models import Model


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained_depth, "POINTS", 2)
        patch.setattr(trained_depth, "BUDGET_POINTS", 1)
        model = Model(tiny_model("llama", num_hidden_layers=3))
        return trained_depth.studies(model, [[5, 6, 7, 8, 9], [11, 12, 13, 5, 3]])


def test_a_trajectory_is_a_prompt(found) -> None:
    values = trained_depth.trajectories(found, "live")
    assert values.shape == (3, 2)
    each = found[1].profiles["live"].scalar_curvature
    torch.testing.assert_close(values[:, 1], each[1:].abs().mean(1))  # the median of two
    rows = list(trained_depth.lines("tiny", found))
    assert len(rows) == len(found[0].profiles) and rows[0].startswith("| tiny | live | ")
    assert f"| {values[-1].mean():.2g} |" in rows[0]


def test_shares_sum_to_the_whole_on_each_prompt(found) -> None:
    row = trained_depth.shares("tiny", found)
    cells = row.strip("| ").split(" | ")[1:]
    assert len(cells) == len(ROLES)
    assert not re.search(r"-0%", row)
    ends = [list(map(int, re.findall(r"-?\d+(?=%)", cell)))[1:] for cell in cells if cell != "0"]
    # of two prompts the least and the most are both: all entries together are twice the whole, up to rounding
    assert abs(sum(map(sum, ends)) - 200) <= len(ends)


def test_every_model_comes_with_prompts() -> None:
    for _, path, prompts in trained_depth.models():
        assert (path / "config.json").exists() and len(prompts) == 6
