"""A budget calls a curvature what a manifold calls it: the same estimate, and the same tests of what cancels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fisherflat as ff
from fisherflat.geometry import words

U = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CHART = ff.charts.affine(torch.tensor([0.3, 0.4]), torch.eye(2))


def plane(x: Tensor) -> Tensor:
    """A plane, written so that rounding bends it in every direction."""
    one, two, three = x[0] * x[1], x[0] - 2 * x[1], x[0] + x[1]
    ones = [t.sin().square() + t.cos().square() for t in (one, two, three)]
    return torch.stack([x[0], x[1], *ones, (one.cosh() - one.sinh()) * one.exp()])


def saddle(x: Tensor) -> Tensor:
    return torch.stack([x[0], x[1], x[0] * x[1], x[0].sin()])


def cylinder(x: Tensor) -> Tensor:
    return torch.stack([x[0].sin(), x[0].cos(), x[1] + x[0].sin().square() + x[0].cos().square()])


@pytest.mark.parametrize(
    ("mean", "word"), [(plane, "flat to its error"), (saddle, "curved"), (cylinder, "flat to its error")]
)
def test_the_words_are_those_of_the_manifold(mean: Callable[[Tensor], Tensor], word: str) -> None:
    manifold = ff.StatisticalManifold(mean, CHART)
    for scale in (1.0, 2.0**40):
        budget = ff.curvature_budget([mean, lambda x, scale=scale: scale * x], CHART, U, by="layer")
        assert words(budget.verdicts) == manifold.verdict(U) == [word] * len(U)
        size = manifold.measure(U, ["second_fundamental_form_norm"], error=True)
        found = budget.second_fundamental_form_norm * scale
        error = budget.error("second_fundamental_form_norm") * scale + size["second_fundamental_form_norm_error"]
        assert ((found - size["second_fundamental_form_norm"]).abs() <= error).all()
        assert not budget.undecided.any() and budget.by("layer").size is budget.size


def test_a_budget_without_sizes_is_as_it_was() -> None:
    """As one of an older file."""
    from dataclasses import replace

    budget = replace(ff.curvature_budget([saddle], CHART, U), size=None)
    assert words(budget.verdicts) == ["curved"] * len(U)
