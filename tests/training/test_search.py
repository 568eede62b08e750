"""Searches for curvature within a ball end where calculus says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import fisherflat as ff
from fisherflat.training import find_curvature


def bowl(u: torch.Tensor) -> torch.Tensor:
    """`K = 4 a² / (1 + 4 a² r²)²`, largest in the middle and falling outwards; a = 1/2."""
    return torch.cat([u, 0.5 * u.square().sum()[None]])


M = ff.StatisticalManifold(bowl, ff.charts.identity(2), differentiable=True)


def test_largest_smallest_and_wanted() -> None:
    largest = find_curvature(M, "largest", radius=2.0, centre=[0.7, 0.2])
    assert math.isclose(largest.value, 2.0, rel_tol=1e-9) and largest.u.norm() < 1e-4
    smallest = find_curvature(M, "smallest", radius=2.0)
    assert math.isclose(smallest.value, 2 / 25, rel_tol=1e-6)
    assert math.isclose(smallest.u.norm().item(), 2.0, rel_tol=1e-9)  # on the edge
    wanted = find_curvature(M, 0.5, radius=2.0)
    assert math.isclose(wanted.value, 0.5, rel_tol=1e-6)
    assert math.isclose(wanted.u.norm().item(), 1.0, rel_tol=1e-5)


def test_what_was_found_can_be_proved() -> None:
    found = find_curvature(M, "largest", radius=1.0, centre=[0.3, 0.3])
    certificate = found.certify()
    assert certificate.verdict == "curved" and ff.verify(certificate, bowl, M.chart).ok
    low, high = (2 * float(bound) for bound in certificate.enclosure)  # of the one plane's curvature
    assert low - 1e-6 <= found.value <= high + 1e-6
    assert torch.allclose(found.input, found.u)


def test_it_is_proved_in_the_covariance_in_which_it_was_found() -> None:
    wide = ff.StatisticalManifold(bowl, ff.charts.identity(2), ff.Gaussian(4.0), differentiable=True)
    found = find_curvature(wide, "largest", radius=1.0, centre=[0.3, 0.3])
    certificate = found.certify()
    assert math.isclose(found.value, 8.0, rel_tol=1e-9)
    assert 2 * float(certificate.enclosure[0]) - 1e-6 <= found.value <= 2 * float(certificate.enclosure[1]) + 1e-6


@pytest.mark.parametrize(
    ("manifold", "options", "said"),
    [
        (ff.StatisticalManifold(bowl, ff.charts.identity(2)), {}, "differentiable=True"),
        (M, {"goal": "most"}, "goal must be"),
        (M, {"goal": math.nan}, "goal must be"),
        (M, {"radius": 0.0}, "radius"),
        (M, {"centre": [0.0, 0.0, 0.0]}, "length k"),
        (M, {"centre": [[0.0, 0.0]]}, "centre must have shape"),
        (M, {"quantity": "metric"}, "several numbers"),
        (M, {"quantity": "size of it"}, "not a quantity"),
    ],
)
def test_wrong_arguments(manifold: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ff.errors.InputError, match=said):
        find_curvature(manifold, **options)
