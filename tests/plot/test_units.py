"""Units on figures: standard deviations of a Gaussian, and none in a family with a metric of its own."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

import fisherflat as ff

CHART = ff.charts.affine(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)[:2])
BOWLS = [lambda x: x + torch.stack([0 * x[0], 0 * x[1], x[0] ** 2 + x[1] ** 2])] * 2
OWN = [
    ff.families.Categorical(), ff.families.Bernoulli(), ff.families.Poisson(), ff.families.IsotropicGaussian(),
    ff.families.VonMisesFisher(2.0), ff.families.VonMisesFisher(),
]  # fmt: skip


def words(figure: Any) -> str:
    return " ".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("family", [*OWN, ff.Gaussian(), ff.Gaussian([1.0, 2.0, 3.0])], ids=repr)
def test_maps_take_the_unit_of_the_family(family: Any) -> None:
    M = ff.StatisticalManifold(lambda x: BOWLS[0](x) + 1.0, CHART, family)
    figure = ff.plot.curvature_map(M, (0.1, 0.6, 0.1, 0.6), resolution=5).figure
    field = ff.curvature_field(M, (0.1, 0.6, 0.1, 0.6), resolution=3)
    assert ("σ" in words(figure)) == ("σ" in field._repr_html_()) == isinstance(family, ff.Gaussian)


@pytest.mark.parametrize("own", [False, True])
def test_profiles_and_budgets_take_the_unit_of_the_family(own: bool) -> None:
    model = ff.load("python-llama")
    kind: Any = {"family": "next-token"} if own else {}
    profile = ff.depth_profile(model, prompt="def f(x):", u=torch.zeros(1, 2), **kind)
    assert (profile.family is not None) == own
    shown = [ff.plot.profiles({"one": profile}, quantity=name, ax=Figure().subplots()).figure for name in (
        "scalar_curvature", "second_fundamental_form_norm", "mean_curvature_norm",
    )]  # fmt: skip
    budget = ff.curvature_budget(model, prompt="def f(x):", by="layer", **kind)
    both = ff.curvature_budget(model, prompt="def f(x):", by="layer-role", **kind)
    shown += [draw(budget, ax=Figure().subplots()).figure for draw in (ff.plot.budget, ff.plot.transport)]
    shown.append(ff.plot.budget_by_layer(both, ax=Figure().subplots()).figure)
    assert [("σ" in words(figure)) for figure in shown] == [not own] * len(shown)


@pytest.mark.parametrize("own", [False, True])
def test_tables_take_the_unit_of_their_family(own: bool) -> None:
    table = pd.DataFrame(
        [{"layer": i, "part": "block", "reading": "live", "scalar_curvature": 0.1 * i} for i in range(3)]
    ).assign(**({"family": "next-token"} if own else {}))
    assert ("σ" in words(ff.plot.layers(table).figure)) != own
    assert ("σ" in words(ff.plot.layers_by_part(table)[0].figure)) != own
