"""The four words: what balls say, in any units, and where errors were only carried over."""

from __future__ import annotations

import math

import pytest
import torch
from cases.stress import around, scalar_curvature, stressed
from torch import Tensor

import fisherflat as ff
from fisherflat.geometry import Verdict, carried, decided, words

DOUBLE = torch.float64
WORDS = [str(word) for word in Verdict]


def scaled(manifold: ff.StatisticalManifold, chart: float, outputs: float, deviation: float) -> ff.StatisticalManifold:
    """The same surface in other units, all powers of two, so that nothing else is rounded."""
    where = ff.charts.affine(manifold.chart.point, manifold.chart.basis * chart)
    family = ff.Gaussian(manifold.family.covariance * deviation**2)  # type: ignore[attr-defined]
    return ff.StatisticalManifold(lambda x: manifold.mean(x) * outputs, where, family)


@pytest.mark.parametrize("seed", range(0, 32, 3))
def test_words_do_not_depend_on_units(seed: int) -> None:
    manifold = stressed(seed).manifold
    u = torch.zeros(manifold.k)
    word = manifold.verdict(u)
    for units in ((2.0**-27, 1.0, 1.0), (1.0, 2.0**30, 1.0), (1.0, 1.0, 2.0**-20), (2.0**15, 2.0**-9, 2.0**40)):
        assert scaled(manifold, *units).verdict(u) == word


def test_errors_that_are_carried_over_cover_and_no_sign_is_wrong() -> None:
    # eight coordinates take balls a second a point
    readings = [r for seed in range(64) if stressed(seed).manifold.k <= 4 for r in around(seed)]
    assert len(readings) == 192 and sum(r.covered for r in readings) >= 0.97 * len(readings)
    assert not [r for r in readings if r.estimate < abs(r.value) and r.value * r.truth < 0]


def swamped(x: Tensor) -> Tensor:
    """A bowl, and where x0 is above a half a term that cancels and takes all its digits with it."""
    large = torch.where(x[0] > 0.5, 1e17 * (x[0] + x[1]).exp(), 0 * x[0])
    return torch.stack([x[0], x[1], (x[0].square() + x[1].square() + large) - large])


def test_no_flatness_is_carried_to_where_others_are_curved() -> None:
    u = [[0.0, 0.0], [0.75, 0.5], [0.2, 0.2], [0.8, 0.9]]
    expected = ["curved", "undecided", "curved", "undecided"]
    manifold = ff.StatisticalManifold(swamped, ff.charts.identity(2))
    assert words(manifold.judged(u, [])["verdicts"]) == expected == manifold.verdict(u)
    profile = ff.depth_profile([lambda x: 1 * x, swamped], ff.charts.identity(2), torch.tensor(u))
    assert words(profile.verdicts[-1]) == expected  # type: ignore[index]
    layers = ff.curvature_budget(swamped, ff.charts.identity(2), u)
    assert words(layers.verdicts) == expected


class Tilted(torch.nn.Module):
    """A surface of curvature `8 a²` at 0, next to a term that cancels and leaves its roundings."""

    def __init__(self, curvature: float, noise: float) -> None:
        super().__init__()
        self.size, self.noise = (curvature / 8) ** 0.5, noise

    def forward(self, u: Tensor) -> Tensor:
        large = self.noise * (u[0] + u[1]).tanh()
        return torch.stack([u[0], u[1], (self.size * u.square().sum() + large) - large])


@pytest.mark.parametrize("noise", [0.0, 1e4, 1e8, 1e12, 1e15])
@pytest.mark.parametrize("curvature", [1e-12, 1e-6, 1.0])
def test_no_sign_is_claimed_that_is_not_known(curvature: float, noise: float) -> None:
    chart = ff.charts.affine(torch.tensor([0.25, 0.5]), torch.eye(2))
    manifold = ff.StatisticalManifold(Tilted(curvature, noise), chart)
    truth = float(scalar_curvature(manifold, [0.0, 0.0]))
    found = manifold.measure([0.0, 0.0], ["scalar_curvature"], error=True)
    value, error = found["scalar_curvature"].item(), found["scalar_curvature_error"].item()
    word = manifold.verdict([0.0, 0.0])
    assert (word == "curved") == (abs(value) > error)
    if word == "curved":
        assert value > 0 and abs(value - truth) < truth
    if noise == 0.0:
        assert word == "curved" and math.isclose(value, truth, rel_tol=1e-12)


def test_flatness_is_proved_by_structure_alone() -> None:
    layer = ff.layers.SelfAttention(4).double()
    hidden, basis = torch.randn(3, 4, dtype=DOUBLE), torch.randn(2, 4, dtype=DOUBLE)
    chart = ff.charts.token(hidden, -1, basis)
    assert ff.StatisticalManifold(ff.freeze(layer, hidden), chart).verdict([0.1, 0.2]) == "flat (proved)"
    assert ff.StatisticalManifold(layer, chart).verdict([[0.1, 0.2]]) == ["curved"]
    curve = ff.charts.token(hidden, -1, basis[:1])
    assert ff.StatisticalManifold(layer, curve).verdict([0.1]) == "flat (proved)"  # curves are
    open_piece = ff.StatisticalManifold(lambda x: x.tanh(), ff.charts.identity(3))
    assert open_piece.verdict(torch.zeros(2, 1, 3)) == [["flat (proved)"], ["flat (proved)"]]


def test_what_has_no_number_has_no_word() -> None:
    folded = ff.StatisticalManifold(
        lambda u: torch.stack([u[0] ** 2, u[1], u[0] ** 3 + u[1] ** 2]), ff.charts.identity(2), degenerate="nan"
    )
    with pytest.warns(UserWarning):
        assert folded.verdict([[0.0, 0.0], [1.0, 0.0]])[0] is None


def test_infinite_errors_decide_nothing() -> None:
    one = torch.ones(3, dtype=DOUBLE)
    error = torch.tensor([math.inf, 0.5, 2.0], dtype=DOUBLE)
    codes = decided(one, error, one, one * math.inf)
    assert words(codes) == ["undecided", "curved", "undecided"] and WORDS[int(codes[1])] == "curved"
    # nothing was estimated where no point had a geometry
    assert carried(torch.full((2,), math.nan, dtype=DOUBLE), one[:2], one).isinf().all()


@pytest.mark.parametrize("dim", [2, 3])
def test_affine_parameters_of_a_curved_family_are_not_flat(dim: int) -> None:
    # probabilities on dim + 1 classes are an orthant of a sphere of radius 2, whatever affine chart the logits have
    logits = lambda u: torch.cat([u, 0 * u[:1]])  # noqa: E731
    M = ff.StatisticalManifold(logits, ff.charts.identity(dim), ff.families.Categorical())
    u = torch.linspace(-0.5, 0.5, 3 * dim, dtype=DOUBLE).reshape(3, dim)
    torch.testing.assert_close(M.scalar_curvature(u), torch.full((3,), dim * (dim - 1) / 4, dtype=DOUBLE))
    assert M.verdict(u) == ["curved"] * 3 and (M.judged(u, [])["verdicts"] == WORDS.index("curved")).all()
    line = ff.StatisticalManifold(logits, ff.charts.affine(torch.zeros(dim), torch.eye(dim)[:1]), M.family)
    assert line.verdict([0.1]) == "flat (proved)"
