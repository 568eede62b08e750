"""The extreme sectional curvatures, against manifolds whose sectional curvatures are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fisherflat as ff
from fisherflat.geometry import Geometry
from fisherflat.jets import Jet


def sphere(u: Tensor, radius: float) -> Tensor:
    """Stereographic coordinates of a sphere."""
    r2 = (u**2).sum()
    return radius * torch.cat([2 * u, (r2 - 1)[None]]) / (1 + r2)


def saddle(u: Tensor) -> Tensor:
    """Of Gauss curvature -1 / (1 + |u|²)²."""
    return torch.stack([u[0], u[1], u[0] * u[1]])


def projective_plane(u: Tensor) -> Tensor:
    """The complex projective plane as projections `z z* / |z|²`, z = (1, u0 + i u1, u2 + i u3).

    Twice the Fubini-Study metric with sectional curvatures from 1 to 4.
    """
    real, imaginary = torch.cat([u.new_ones(1), u[::2]]), torch.cat([u.new_zeros(1), u[1::2]])
    symmetric = real[:, None] * real + imaginary[:, None] * imaginary
    antisymmetric = imaginary[:, None] * real - real[:, None] * imaginary
    return torch.cat([symmetric, antisymmetric]).flatten() / (1 + (u**2).sum())


def extremes(surface, k: int, at: list[float]) -> list[float]:
    u = torch.tensor(at, dtype=torch.float64)
    return ff.StatisticalManifold(surface, ff.charts.identity(k), engine="autodiff").at(u).sectional_extremes.tolist()


POINT = [0.3, -0.2, 0.5, 0.1, -0.4]
SADDLE = -1 / (1 + 0.3**2 + 0.2**2) ** 2


@pytest.mark.parametrize(
    ("surface", "k", "low", "high"),
    [
        (lambda u: sphere(u, 2.0), 2, 0.25, 0.25),
        (saddle, 2, SADDLE, SADDLE),
        (lambda u: sphere(u, 2.0), 3, 0.25, 0.25),
        (lambda u: torch.cat([sphere(u[:2], 2.0), u[2:]]), 3, 0, 0.25),
        (lambda u: torch.cat([saddle(u[:2]), u[2:]]), 3, SADDLE, 0),
        (lambda u: sphere(u, 2.0), 4, 0.25, 0.25),
        (lambda u: torch.cat([sphere(u[:2], 2.0), sphere(u[2:], 0.5)]), 4, 0, 4),
        (lambda u: torch.cat([saddle(u[:2]), sphere(u[2:], 0.5)]), 4, SADDLE, 4),
        (projective_plane, 4, 0.5, 2),  # its curvature operator reaches further, from 0 to 3: no plane is there
        (lambda u: torch.cat([sphere(u[:3], 2.0), saddle(u[3:])]), 5, -1 / (1 + 0.1**2 + 0.4**2) ** 2, 0.25),
        (lambda u: torch.cat([u, u.sum()[None]]), 4, 0, 0),
    ],
)
def test_they_are_those_of_known_manifolds(surface, k: int, low: float, high: float) -> None:
    assert extremes(surface, k, POINT[:k]) == pytest.approx([low, high], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_no_plane_of_many_lies_outside(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    jet = torch.randn(3, 1 + k + k * (k + 1) // 2, k + 4, generator=generator, dtype=torch.float64)
    geometry = Geometry(Jet(jet, k))
    low, high = geometry.sectional_extremes.unbind(-1)
    found = torch.stack(
        [
            geometry.sectional_curvature(*torch.randn(2, 3, k, generator=generator, dtype=torch.float64))
            for _ in range(2000)
        ]
    )
    room = 1e-9 * (1 + high - low)
    assert (found >= low - room).all() and (found <= high + room).all()
    if k == 3:  # the exact range is nearly filled by so many planes
        assert (found.amax(0) - found.amin(0) > 0.8 * (high - low)).all()


def test_other_coordinates_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    change = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    u = torch.tensor(POINT[:4], dtype=torch.float64)
    turned = extremes(lambda v: projective_plane(change @ v), 4, torch.linalg.solve(change, u).tolist())
    assert turned == pytest.approx([0.5, 2], rel=1e-9)


def test_curves_and_degenerate_points_have_none() -> None:
    assert all(x != x for x in extremes(lambda u: torch.cat([u, u**2]), 1, [0.3]))
    fold = ff.StatisticalManifold(
        lambda u: torch.cat([u[:3] ** 2, u[3:], u[3:] ** 2]), ff.charts.identity(4), degenerate="nan"
    )
    u = torch.tensor([[0.0, 0.1, 0.2, 0.3], [0.4, 0.1, 0.2, 0.3]], dtype=torch.float64)
    with pytest.warns(ff.errors.DegenerateImmersionWarning):
        found = fold.measure(u, ["sectional_extremes"])["sectional_extremes"]
    assert found[0].isnan().all() and found[1].isfinite().all()
