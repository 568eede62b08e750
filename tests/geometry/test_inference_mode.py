"""What is made, or asked for first, under `torch.inference_mode()` serves gradients afterwards.

The truth is differences of values; what is measured in the mode itself is compared with what is measured outside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.geometry import _chebyshev, _sectional
from fisherflat.geometry._quantities import quantities
from fisherflat.jets import pair_index
from fisherflat.jets.engines import _noise

DOUBLE = torch.float64
RANDOM = torch.Generator().manual_seed(3)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=RANDOM)


POINT, BASIS, ROOT, WEIGHT = normal(4), normal(4, 4), normal(7, 7), normal(7, 4)
COVARIANCES: dict[str, Any] = {
    "number": 0.5,
    "diagonal": torch.arange(1.0, 8.0),
    "full": ROOT @ ROOT.T + torch.eye(7, dtype=DOUBLE),
}


def smooth_map() -> nn.Module:
    linear = nn.Linear(4, 7, bias=False, dtype=DOUBLE)
    linear.weight = nn.Parameter(WEIGHT.clone())
    return nn.Sequential(linear, nn.Sigmoid())


def forget() -> None:
    """Forget all tables of tensors, which another test may have asked for before."""
    tables = [pair_index, _sectional._starts, _noise._pool]
    for table in [*tables, *(thing for thing in vars(_chebyshev).values() if hasattr(thing, "cache_clear"))]:
        table.cache_clear()  # type: ignore[attr-defined]


def slope(f: Callable[[Tensor], Tensor], u: Tensor, step: float) -> Tensor:
    return torch.stack([(f(u + step * e) - f(u - step * e)) / (2 * step) for e in torch.eye(len(u), dtype=DOUBLE)])


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_what_was_asked_for_in_the_mode_has_gradients_later(covariance: str, engine: str, dtype: torch.dtype) -> None:
    forget()
    mean = smooth_map()
    names, u = ["scalar_curvature", "sectional_extremes", "christoffel"], torch.full((4,), 0.1, dtype=DOUBLE)
    with torch.inference_mode():
        chart, family = ff.charts.affine(POINT, BASIS), ff.Gaussian(COVARIANCES[covariance])
        M = ff.StatisticalManifold(mean, chart, family, engine=engine, dtype=dtype, differentiable=True)
        M.measure(u, names, error=True)
    at = u.clone().requires_grad_()
    M.scalar_curvature(at).backward()
    exact = ff.StatisticalManifold(mean, chart, ff.Gaussian(COVARIANCES[covariance]))
    truth = slope(exact.scalar_curvature, u, 1e-4)
    tolerance = 1e-6 if dtype == DOUBLE else 3e-3
    torch.testing.assert_close(at.grad, truth, rtol=tolerance, atol=tolerance * truth.abs().max().item())
    other = ff.StatisticalManifold(mean, chart, family, engine=engine, dtype=dtype, differentiable=True)
    other.measure(at, names)["sectional_extremes"].sum().backward()  # made outside, with a family that was made inside


MEASURES: dict[str, Callable[[], Tensor]] = {
    "an op without a rule": lambda: ff.StatisticalManifold(
        lambda x: torch.cat([torch.special.i0e(x), x]), ff.charts.identity(3)
    ).measure([0.1, 0.2, 0.3], ["scalar_curvature"], error=True)["scalar_curvature"],
    "a log-partition": lambda: ff.StatisticalManifold(
        smooth_map(), ff.charts.affine(POINT, BASIS), ff.families.ExponentialFamily(lambda t: t.exp().sum(-1))
    ).amari_chentsov([0.0] * 4),
    "an error of a geometry": lambda: (
        ff.StatisticalManifold(lambda x: torch.cat([torch.special.i0e(x), x]), ff.charts.identity(3))
        .at([0.1, 0.2, 0.3])
        .metric
    ),
    "the slope of an activation": lambda: torch.tensor(
        float(ff.symmetry.null_directions(gated(), POINT.expand(9, 4) + BASIS[0, 0]).dimension)
    ),
}


def gated() -> ff.layers.GatedMLP:
    torch.manual_seed(0)
    return ff.layers.GatedMLP(4, 6).double()


@pytest.mark.filterwarnings("ignore::fisherflat.errors.FallbackWarning")
@pytest.mark.parametrize("name", MEASURES)
def test_measures_are_the_same_in_the_mode(name: str) -> None:
    expected = MEASURES[name]()
    with torch.inference_mode():
        found = MEASURES[name]()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_autocast_rounds_no_quantity_that_is_read_inside() -> None:
    """Quantities are computed when they are read, and errors then, too: single precision stays that."""
    M = ff.StatisticalManifold(smooth_map(), ff.charts.affine(POINT, BASIS), ff.families.Poisson(), dtype=torch.float32)
    u, x, y = [0.2, -0.3, 0.1, 0.4], torch.tensor([1.0, 0.2, 0.0, 0.5]), torch.tensor([-0.3, 1.0, 0.7, 0.0])

    def read(geometry: Any) -> dict[str, torch.Tensor]:
        found = {name: getattr(geometry, name) for name in known if name != "efron_curvature"}
        found["sectional_curvature"] = geometry.sectional_curvature(x, y)
        found["alpha_connection"] = geometry.alpha_connection(0.5)
        return found | {"error": geometry.error("scalar_curvature"), "jet": geometry.jet.coefficients}

    known = quantities()
    outside, lazily = M.at(u), M.at(u)
    with torch.autocast("cpu", torch.bfloat16):
        inside = read(lazily)
    for name, value in read(outside).items():
        assert inside[name].dtype == value.dtype
        if name != "error":
            torch.testing.assert_close(
                inside[name], value, rtol=2e-4, atol=2e-5 * float(value.nan_to_num().abs().max()), equal_nan=True
            )
    assert inside["error"] < 10 * read(outside)["error"]
