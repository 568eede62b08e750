"""Arguments that are not what they should be: numbers, lists and budgets, everywhere where a user gives them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import fisherflat as ff
from fisherflat._arrays import integer, number
from fisherflat.errors import InputError

PROMPT = [5, 6, 7, 8]
QUICK: dict[str, Any] = {"layers": [0], "parts": ["mlp"], "points": 1, "positions": [1], "progress": False}


def bowl(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x[0], x[1], x[0] ** 2 + x[1] ** 2])


CHART = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])
BUDGETED: dict[str, Callable[[Any], Any]] = {
    "manifold": lambda memory: ff.StatisticalManifold(bowl, CHART, memory=memory).scalar_curvature([0.0, 0.0]),
    "profile": lambda memory: ff.depth_profile([bowl], CHART, torch.zeros(2), memory=memory).scalar_curvature[-1],
    "budget": lambda memory: ff.curvature_budget([bowl], CHART, torch.zeros(2), memory=memory).matrix.sum(),
}


@pytest.mark.parametrize("what", BUDGETED)
def test_budgets_in_bytes(what: str) -> None:
    """One byte is no budget; what a point is said to take is one, and changes no number."""
    for memory in (0, -1):
        with pytest.raises(InputError, match="memory, a budget in bytes, must be at least 1"):
            BUDGETED[what](memory)
    with pytest.raises(InputError, match=r"one point takes about \d+ of them, more than 1") as raised:
        BUDGETED[what](1)
    needed = int(re.findall(r"about (\d+)", str(raised.value))[0])
    while True:  # a later stage may need more
        try:
            found = BUDGETED[what](needed)
            break
        except InputError as error:
            needed = int(re.findall(r"about (\d+)", str(error))[0])
    torch.testing.assert_close(found, BUDGETED[what](None), rtol=1e-12, atol=1e-12)
    assert float(found) == pytest.approx(8.0)


@pytest.fixture(scope="module")
def model() -> ff.Model:
    return ff.load("python-llama")


WRONG: dict[str, list[Any]] = {
    "layers": [1, np.int64(1), "all", [], [1.0], ["a"], [True], [None], np.array([[1]])],
    "heads": [1, "some", [], [1.5], ["a"]],
    "positions": [1, None, [], ["a"], [None], [1.0]],
    "points": [0, -1],
    "seed": [-1],
    "dim": [1, 0, -2],
    "jobs": [0, -1],
}


@pytest.mark.parametrize("name", WRONG)
def test_analyze_refuses(model: ff.Model, name: str) -> None:
    for value in WRONG[name]:
        with pytest.raises(InputError):
            ff.analyze(model, PROMPT, **QUICK | {name: value})


@pytest.mark.parametrize("truth", [True, np.True_, np.array(True), torch.tensor(True)])
def test_truth_values_are_no_numbers(truth: Any) -> None:
    for read in (number, integer):
        with pytest.raises(InputError, match=r"weight must be an? "):
            read(truth, "weight")
    for other in (1, np.int8(1), np.float32(1), torch.tensor(1.0), np.array(1)):
        assert number(other, "weight") == 1


def test_integers_of_other_libraries(model: ff.Model) -> None:
    """They are integers."""
    one = ff.analyze(model, PROMPT, **QUICK).table
    for given in ([np.int64(0)], (0,), range(1), np.array([0]), torch.tensor([0])):
        other = ff.analyze(model, PROMPT, **QUICK | {"layers": given, "points": np.int64(1), "seed": np.int32(0)}).table
        assert list(other["scalar_curvature"]) == list(one["scalar_curvature"])
    block = model.blocks(PROMPT, stop=np.int64(2))[np.int64(1)]
    assert block.index == 1
    hidden = block.input
    basis = torch.eye(hidden.shape[1])[:2]
    for index in (np.int64(2), torch.tensor(2), [np.int64(2)]):
        assert torch.equal(ff.charts.token(hidden, index, basis).basis, ff.charts.token(hidden, 2, basis).basis)
    assert ff.charts.identity(np.int64(3)).k == 3
    certified = ff.certify_layer(model, np.int64(0), prompt=PROMPT, reading="frozen pattern", position=np.int64(2))
    assert certified.verdict == "flat" and certified.subject is not None and certified.subject["position"] == 2


def test_lists_where_tensors_are_meant(model: ff.Model) -> None:
    """They are tensors where numbers are read, and what is no such thing is refused."""
    block = model.blocks(PROMPT)[0]
    given = block.mlp_input
    assert torch.equal(ff.trace(block.mlp, given.tolist())(given), ff.trace(block.mlp, given)(given))
    points, basis = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]
    assert ff.charts.simplex(points).k == ff.charts.token(points, 0, basis).k == 2
    for wrong in ([[0.0, 1.0], [1.0]], "a", None):
        with pytest.raises(InputError):
            ff.charts.simplex(wrong)
        with pytest.raises(InputError):
            ff.StatisticalManifold(bowl, CHART).scalar_curvature(wrong)


def test_blocks_end_where_they_end(model: ff.Model) -> None:
    blocks = model.blocks(PROMPT)
    with pytest.raises(IndexError, match="there are 4 blocks, from 0; there is no block 4"):
        blocks[4]
