"""Attribution over many prompts, against the budgets of single prompts by hand."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.models.moves import pool

PROMPTS = ["def mean(values):", "for key in table:", "if not done: return"]
POSITION = 3

pytestmark = pytest.mark.xdist_group("attribution")  # what is made once in a process


@cache
def model() -> ff.Model:
    return ff.load("python-llama")


@cache
def by_hand() -> list[ff.CurvatureBudget]:
    """With directions and a covariance over all prompts."""
    encoded = [model().encode(prompt) for prompt in PROMPTS]
    blocks = [model().blocks(prompt) for prompt in PROMPTS]
    basis = ff.charts.principal_directions(pool([one[0].hidden_states for one in blocks], encoded, 2), 2)
    with torch.no_grad():
        variance = pool([one[-1](one[-1].input) for one in blocks], encoded).var(0).mean()
    return [
        ff.curvature_budget(
            model(), ff.charts.token(one[0].hidden_states, [POSITION], basis), prompt=prompt, by="role",
            family=ff.Gaussian(variance),
        )
        for prompt, one in zip(PROMPTS, blocks, strict=True)
    ]  # fmt: skip


@cache
def table() -> Any:
    return ff.attribution(model(), PROMPTS, positions=[[POSITION]] * 3).set_index(["quantity", "part"])


@pytest.mark.parametrize("quantity", ["attributed", "own", "interaction"])
def test_means_are_those_of_the_budgets_by_hand(quantity: str) -> None:
    truth = torch.stack([getattr(budget, quantity) for budget in by_hand()])
    found = torch.tensor(table().loc[quantity]["mean"].tolist()).double()
    assert table().loc[quantity].index.tolist() == list(by_hand()[0].labels)
    torch.testing.assert_close(found, truth.mean(0), rtol=1e-6, atol=1e-9 * truth.abs().max().item())


def test_shares_are_of_the_sum_of_absolute_values() -> None:
    attributed = torch.stack([budget.attributed for budget in by_hand()])
    truth = (attributed / attributed.abs().sum(1, keepdim=True)).mean(0)
    torch.testing.assert_close(
        torch.tensor(table().loc["share"]["mean"].tolist()).double(), truth, rtol=1e-6, atol=1e-9
    )
    assert set(table().loc["share"]["clusters"]) == {3} and set(table().loc["share"]["level"]) == {"prompt"}


def test_intervals_hold_the_mean_and_lie_within_the_values() -> None:
    attributed = torch.stack([budget.attributed for budget in by_hand()])
    rows = table().loc["attributed"]
    for (_, row), values in zip(rows.iterrows(), attributed.T, strict=True):
        slack = 1e-9 * values.abs().max().item()
        assert values.min().item() - slack <= row["low"] <= row["mean"] + slack
        assert row["mean"] - slack <= row["high"] <= values.max().item() + slack


def test_layers_sum_to_roles() -> None:
    layers = ff.attribution(model(), PROMPTS[:2], by="layer")
    roles = ff.attribution(model(), PROMPTS[:2], by="role")
    sums = [t[t.quantity == "attributed"]["mean"].sum() for t in (layers, roles)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"by": "head"}, "by must be"), ({"positions": [[1], [2]]}, "3 prompts"), ({"positions": {0: 1}}, "list"),
     ({"positions": "token:nothing"}, "no token"), ({"covariance": "what"}, "covariance must be"),
     ({"moves": ff.moves.Whole()}, "in a few directions")],
)  # fmt: skip
def test_bad_input_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ff.attribution(model(), PROMPTS, **options)
