"""Maps that are not differentiable exactly at the base point: what is computed there is what the docs say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fisherflat as ff

#: map of one number, and the slope that is taken at its kink, which is at 0
KINKS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "relu": (torch.relu, 0.0),
    "abs": (torch.abs, 0.0),
    "leaky_relu": (lambda x: torch.nn.functional.leaky_relu(x, 0.25), 0.25),
}


@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
@pytest.mark.parametrize("kind", KINKS)
def test_at_a_kink_one_piece_is_taken(kind: str, engine: str) -> None:
    """The surface (u, v, v^2 + kink(u)): to first order the slope of the docs; to second order a cylinder, flat."""
    function, slope = KINKS[kind]

    def surface(x: Tensor) -> Tensor:
        return torch.stack([x[0], x[1], x[1] ** 2 + function(x[0])])

    manifold = ff.StatisticalManifold(surface, ff.charts.identity(2), engine=engine)
    jet = manifold.jet(torch.zeros(2))
    assert jet.jacobian[:, 2].tolist() == [slope, 0.0]
    assert jet.hessian[..., 2].tolist() == [[0.0, 0.0], [0.0, 2.0]]
    assert abs(float(manifold.scalar_curvature(torch.zeros(2)))) < 1e-14


def test_engines_agree_on_both_sides_of_a_kink() -> None:
    def surface(x: Tensor) -> Tensor:
        return torch.stack([x[0], x[1], torch.relu(x[0]) ** 2 + x[1] ** 2])

    taylor, autodiff = (
        ff.StatisticalManifold(surface, ff.charts.identity(2), engine=engine).scalar_curvature(
            torch.tensor([[-1e-9, 0.0], [0.0, 0.0], [1e-9, 0.0]])
        )
        for engine in ("taylor", "autodiff")
    )
    torch.testing.assert_close(taylor, autodiff, rtol=1e-12, atol=1e-12)
    # flat on one side, a paraboloid z = u^2 + v^2 with K = 4 on the other: curvature jumps, and no limit is taken
    torch.testing.assert_close(taylor[[0, 2]], torch.tensor([0.0, 8.0], dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_rows_that_a_mask_leaves_empty_weigh_nothing() -> None:
    """The logarithm over two axes of which a mask leaves one row nothing: as over the rows that it leaves.

    Torch's derivatives are NaN there, and so are the autodiff engine's.
    """
    keep = torch.tensor([True, False, True])

    def masked(x: Tensor) -> Tensor:
        kept = x.masked_fill(~keep[:, None], -torch.inf)
        return torch.stack([torch.logsumexp(kept.logsumexp(1), 0), torch.logsumexp(kept, (0, 1)), x[0, 0] * x[2, 1]])

    def unmasked(x: Tensor) -> Tensor:
        total = torch.logsumexp(x[[0, 2]].reshape(-1), 0)
        return torch.stack([total, total, x[0, 0] * x[2, 1]])

    generator = torch.Generator().manual_seed(3)
    point, *basis = torch.randn(3, 3, 2, dtype=torch.float64, generator=generator)
    chart = ff.charts.affine(point, torch.stack(basis))
    u = torch.tensor([[0.0, 0.0], [0.5, -0.25]], dtype=torch.float64)
    got, right = (ff.StatisticalManifold(f, chart).jet(u) for f in (masked, unmasked))
    torch.testing.assert_close(got.coefficients, right.coefficients, rtol=1e-12, atol=1e-12)
