"""Agreement with geomstats, which differentiates the metric where we use the Gauss equation."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from cases.maps import SURFACES, double, formula
from conftest import ROOT

import fisherflat as ff

POINTS = {"sphere of radius 2": [0.7, 0.4], "catenoid": [-0.3, 0.8], "graph in R^4": [0.5, 0.25]}


@pytest.fixture(scope="module")
def theirs() -> dict[str, dict[str, Any]]:
    asked = {name: (SURFACES[name], point) for name, point in POINTS.items()}
    script = ROOT / "tests" / "cases" / "geomstats_values.py"
    run = subprocess.run([sys.executable, script], input=json.dumps(asked), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
@pytest.mark.parametrize("name", [*POINTS])
def test_geometry_agrees_with_geomstats(name: str, engine: str, theirs: dict[str, dict[str, Any]]) -> None:
    surface = ff.StatisticalManifold(formula(SURFACES[name]), ff.charts.identity(2), engine=engine)
    ours, expected = surface.at(POINTS[name]), {key: double(value) for key, value in theirs[name].items()}
    torch.testing.assert_close(ours.metric, expected["metric_matrix"], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(ours.christoffel, expected["christoffels"], rtol=1e-12, atol=1e-13)
    # theirs is R_ijkl = <R(x_k, x_l) x_j, x_i>, ours R_ijlm = <R(d_i, d_j) d_l, d_m>
    riemann = expected["covariant_riemann_tensor"].permute(2, 3, 1, 0)
    torch.testing.assert_close(ours.riemann, riemann, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ours.ricci, expected["ricci_tensor"], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(ours.scalar_curvature, expected["scalar_curvature"], rtol=1e-11, atol=1e-12)
    assert ours.scalar_curvature.abs() > 0.1  # so that agreement says something


NORMALS = ff.StatisticalManifold(lambda u: u, ff.charts.identity(2), ff.families.DiagonalGaussian())
PLACES = torch.tensor([[0.2, 0.1], [0.5, -0.3], [-0.4, 0.2]], dtype=torch.float64)


def test_normals_are_those_of_geomstats_which_estimates_on_our_manifold() -> None:
    """Coordinates are mean and logarithm of the deviation here, mean and deviation there."""
    from geomstats.information_geometry.normal import NormalDistributions
    from geomstats.learning.frechet_mean import FrechetMean

    space, known = NORMALS.to_geomstats(), NormalDistributions(sample_dim=1)
    points = PLACES.numpy()
    theirs = torch.stack([PLACES[:, 0], PLACES[:, 1].exp()], -1).numpy()
    expected = known.metric.dist(theirs[0], theirs[1:])
    torch.testing.assert_close(torch.as_tensor(space.metric.dist(points[0], points[1:])), torch.as_tensor(expected))
    means = []
    for where, given in ((space, points), (known, theirs)):
        estimator = FrechetMean(where)
        estimator.fit(given)
        means.append(torch.as_tensor(estimator.estimate_))
    torch.testing.assert_close(means[0], torch.stack([means[1][0], means[1][1].log()]), rtol=1e-4, atol=1e-5)
    x, y = points[1], points[2]
    assert float(space.metric.sectional_curvature(x, y, points[0])) == pytest.approx(-0.5, abs=1e-10)
    assert space.metric.scalar_curvature(points).tolist() == pytest.approx([-1.0] * 3)
