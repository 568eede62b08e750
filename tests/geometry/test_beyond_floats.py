"""Maps whose geometry is beyond the range of floats: an error, or a point that is warned of and NaN, never silence."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import DegenerateImmersionError, DegenerateImmersionWarning, MapError

QUANTITIES = ["scalar_curvature", "ricci", "riemann", "metric", "cancellation_scale", "second_fundamental_form_norm"]


def saturated(score: float) -> Callable[[Tensor], Tensor]:
    """A pattern of four tokens with nearly all weight on the first: everything scales like exp(-score)."""
    values = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return lambda u: torch.softmax(torch.cat([torch.full((1,), score, dtype=u.dtype), u, u[:1] - u[1:]]), -1) @ values


def steep(e: float) -> Callable[[Tensor], Tensor]:
    """A parabola over a plane that hardly shows: `K = 4 · 10^(4e)` where only the last output bends."""
    return lambda u: torch.cat([u * 10.0**-e, u.square().sum()[None]])


def tall(e: float) -> Callable[[Tensor], Tensor]:
    return lambda u: torch.cat([u, u.square().sum()[None]]) * 10.0**e


def manifold(mean: Callable[[Tensor], Tensor], degenerate: str) -> ff.StatisticalManifold:
    return ff.StatisticalManifold(mean, ff.charts.identity(2), degenerate=degenerate)


@pytest.mark.parametrize(
    ("mean", "error", "message"),
    [
        (saturated(400.0), DegenerateImmersionError, "the metric is too small for a number"),
        (saturated(800.0), DegenerateImmersionError, "does not depend on the coordinates"),
        (steep(100.0), DegenerateImmersionError, "the curvature is too large for a number"),
        (steep(200.0), DegenerateImmersionError, "the metric is too small for a number"),
        (tall(200.0), MapError, "squares are beyond the largest number"),
        (lambda u: torch.cat([u, (u[:1] + 800).exp()]), MapError, "not finite"),
    ],
    ids=["saturated", "more saturated", "steep", "steeper", "tall", "infinite"],
)
def test_beyond_floats_is_said(mean: Callable[[Tensor], Tensor], error: type[Exception], message: str) -> None:
    u = [0.0, 0.0]
    strict, tolerant = manifold(mean, "raise"), manifold(mean, "nan")
    for quantity in QUANTITIES:
        with pytest.raises(error, match=message):
            strict.measure(u, [quantity], error=True)
        with pytest.warns(DegenerateImmersionWarning, match="1 of 1 points"):
            tolerant.measure(u, [quantity])
    for ask in (strict.verdict, lambda u: strict.exp(u, [1.0, 0.0]), strict.sampled_scalar_curvature):
        with pytest.raises((DegenerateImmersionError, MapError)):
            ask(u)
    with pytest.warns(DegenerateImmersionWarning):
        assert tolerant.verdict(u) is None


@pytest.mark.parametrize(
    ("mean", "scale"),
    [(saturated(300.0), None), (steep(70.0), 8e280), (tall(150.0), 8e-300), (tall(-150.0), 8e300)],
    ids=["saturated", "steep", "tall", "low"],
)
def test_what_floats_still_hold_is_right(mean: Callable[[Tensor], Tensor], scale: float | None) -> None:
    """`scal = 2 K`; of the saturated pattern, `exp(2 · 250)` times what it is with scores less by 250, nearly."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        M = manifold(mean, "raise")
        found = M.measure([0.0, 0.0], ["scalar_curvature"], error=True)
        sampled = M.sampled_scalar_curvature([0.0, 0.0])
    if scale is None:
        # weights of the others are exp(-s) (1 + O(exp(-s))), so the surface is exp(-s) times a fixed one
        scale = float(manifold(saturated(50.0), "raise").scalar_curvature([0.0, 0.0])) * math.exp(500)
    value = float(found["scalar_curvature"])
    assert value == pytest.approx(scale, rel=1e-9) and float(found["scalar_curvature_error"]) < 1e-9 * abs(value)
    assert sampled.value == pytest.approx(scale, rel=1e-9) and math.isfinite(sampled.standard_error)


@pytest.mark.parametrize("offset", [1e155, 1e300])
@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
def test_where_a_surface_lies_is_no_matter(engine: str, offset: float) -> None:
    """A bowl with a constant output beside it, whose square no float holds: `scal = 8` at its lowest point."""
    M = ff.StatisticalManifold(
        lambda u: torch.cat([u, u.square().sum()[None], u.new_full((2,), offset)]), ff.charts.identity(2), engine=engine
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = M.measure([0.0, 0.0], ["scalar_curvature"], error=True)
        assert M.verdict([0.0, 0.0]) == "curved"
    assert float(found["scalar_curvature"]) == pytest.approx(8.0, rel=1e-13)
    assert float(found["scalar_curvature_error"]) < 1e-12
    infinite = ff.StatisticalManifold(
        lambda u: torch.cat([u, u.square().sum()[None], (u[:1] * 0 + 800).exp()]), ff.charts.identity(2), engine=engine
    )
    with pytest.raises(MapError, match="not finite"):
        infinite.scalar_curvature([0.0, 0.0])
