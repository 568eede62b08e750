"""The figures of others: tasks by the rule, measures by closed forms, the page by the tables that ship."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from scipy import integrate, stats

from fisherflat.lab.claims.others import OTHERS, bilinear, boundaries, gap, random_depth
from fisherflat.lab.claims.others.__main__ import text


@pytest.mark.parametrize("weights", random_depth.WEIGHTS)
def test_mean_field_constants_solve_their_integrals(weights: float) -> None:
    q, first, second = random_depth.mean_field(weights)

    def mean(of) -> float:
        return 2 * integrate.quad(lambda z: of(math.sqrt(q) * z) * stats.norm.pdf(z), 0, 12, limit=500)[0]

    assert q == pytest.approx(weights**2 * mean(lambda h: math.tanh(h) ** 2) + random_depth.BIASES**2, rel=1e-6)
    assert first == pytest.approx(weights**2 * mean(lambda h: math.cosh(h) ** -4), rel=1e-4)
    assert second == pytest.approx(weights**2 * mean(lambda h: (2 * math.tanh(h) / math.cosh(h) ** 2) ** 2), rel=1e-3)
    assert (first < 1) == (weights == 1.3)  # ordered, and chaotic


def test_a_random_network_follows_the_theory() -> None:
    """At the first layer exactly, as nothing random has happened; behind it to a few of N^(-1/2)."""
    found = random_depth.measure(width=400, layers=3, networks=2, points=6)
    for name in ("metric", "kappa", "gauss"):
        first = found[found["layer"] == 1]
        assert np.allclose(first[name], first[f"{name}_theory"], rtol=1e-6)
    for name in ("metric", "kappa"):
        assert np.allclose(found[name], found[f"{name}_theory"], rtol=0.2)


def test_the_volume_element_is_that_of_the_shallow_network() -> None:
    """g = Σ φ'(w·x + b)² w wᵀ / n, written out."""
    found = boundaries.measure(width=6, steps=0, resolution=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = torch.nn.Linear(2, 6).double()
    x = torch.tensor(found[found["trained"]][["x", "y"]].to_numpy())
    slope = math.sqrt(2 / math.pi) * torch.exp(-(layer(x) ** 2) / 2)
    metric = torch.einsum("pn,ni,nj->pij", slope**2, layer.weight, layer.weight) / 6
    assert np.allclose(found[found["trained"]]["volume"], metric.det().sqrt().detach(), rtol=1e-10)


def test_areas_near_the_boundary_are_magnified_by_training() -> None:
    found = boundaries.measure(width=20, steps=800, resolution=21)
    assert boundaries.numbers(found)["magnified"] > 1.5
    untrained = found.assign(trained=~found["trained"])
    assert 0.8 < boundaries.numbers(untrained)["magnified"] < 1.25


class Paraboloid(torch.nn.Module):
    """(u, v, a (u² + v²)), whose principal curvatures at 0 are 2a, with more coordinates that stay zero."""

    def __init__(self, more: int) -> None:
        super().__init__()
        self.more = more

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height = 1.5 * x.pow(2).sum(-1, keepdim=True)
        return torch.cat([x, height, torch.zeros_like(x[..., :1]).expand(*x.shape[:-1], self.more)], -1)


def test_principal_curvatures_of_a_paraboloid_and_what_more_normals_make_of_them() -> None:
    test = 1e-6 * torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = gap.bent(Paraboloid(0), test, 40)
    assert found["mapc"] == pytest.approx(3.0, rel=1e-6) and found["mapc_median"] == pytest.approx(3.0, rel=1e-6)
    assert found["bend"] == pytest.approx(3.0 * math.sqrt(2), rel=1e-6)
    more = gap.bent(Paraboloid(15), test, 40)  # E |component of a unit vector in 16 dimensions|
    expected = math.exp(math.lgamma(8) - math.lgamma(8.5)) / math.sqrt(math.pi)
    assert more["mapc"] == pytest.approx(3.0 * expected, rel=0.08) and more["bend"] == pytest.approx(found["bend"])


def test_forms_are_those_of_the_logits() -> None:
    torch.manual_seed(0)
    net = bilinear.Bilinear(8).double().requires_grad_(False)
    images, labels = bilinear.digits(5, 0)
    again, _ = bilinear.digits(5, 0)
    assert torch.equal(images, again) and labels.max() < 10
    assert torch.allclose(torch.einsum("pi,cij,pj->pc", images, net.forms(), images), net(images))


def test_the_page_is_made_of_the_tables_that_ship() -> None:
    folder = ROOT / "docs" / "data" / "others"
    assert (ROOT / "docs" / "others.md").read_text() == text(
        {name: pd.read_parquet(folder / f"{name}.parquet") for name in OTHERS}
    )
