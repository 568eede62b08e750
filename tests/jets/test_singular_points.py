"""Points at which a formula is singular and the map is not: right, or refused, but never a number that is wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import fisherflat as ff
from fisherflat.errors import FisherflatError

D = torch.float64
A = torch.ones(2, dtype=D)
SINC = (0.0, -1 / 3)  # slope and second derivative at 0 of sin(x) / x

#: function of one number, where it is looked at, and its first two derivatives there
SMOOTH: dict[str, tuple[Callable[[Tensor], Tensor], float, tuple[float, float]]] = {
    "where": (lambda t: torch.where(t == 0, 1.0, torch.sin(t) / torch.where(t == 0, 1.0, t)), 0.0, SINC),
    "where_not": (lambda t: torch.where(t != 0, torch.sin(t) / t, 1.0), 0.0, SINC),
    "nan_to_num": (lambda t: torch.nan_to_num(torch.sin(t) / t, 1.0), 0.0, SINC),
    "masked_fill": (lambda t: (torch.sin(t) / t).masked_fill(t == 0, 1.0), 0.0, SINC),
    "is_nan": (lambda t: torch.where((torch.sin(t) / t).isnan(), 1.0, torch.sin(t) / t), 0.0, SINC),
    "quotient": (lambda t: torch.sin(t) / t, 0.0, SINC),
    "sinc": (lambda t: torch.sinc(t / torch.pi), 0.0, SINC),
    "sinc_beside": (lambda t: torch.sinc(t / torch.pi), 1e-9, SINC),
    "xlogy": (lambda t: torch.xlogy(t, torch.tensor(2.0, dtype=D)), 0.0, (0.6931471805599453, 0.0)),
    "xlogy_moving": (lambda t: torch.xlogy(t, t + 2), 0.0, (0.6931471805599453, 1.0)),
    "xlogy_number": (lambda t: torch.xlogy(t, 2.0), 0.0, (0.6931471805599453, 0.0)),
    "xlog1py": (lambda t: torch.special.xlog1py(t, t + 1), 0.0, (0.6931471805599453, 1.0)),
    "logaddexp2": (lambda t: torch.logaddexp2(t, -t), 0.0, (0.0, 0.6931471805599453)),
    "logaddexp2_far": (lambda t: torch.logaddexp2(t, t * t - 2000), 0.3, (1.0, 0.0)),
    "logaddexp": (lambda t: torch.logaddexp(t, -t), 0.0, (0.0, 1.0)),
    "power": (lambda t: (1 + t) ** t, 0.0, (0.0, 2.0)),
    "square_of_size": (lambda t: torch.complex(t, 2 * t).abs() ** 2, 0.0, (0.0, 10.0)),
    "square_of_norm": (lambda t: torch.stack([t, 2 * t]).norm() ** 2, 0.0, (0.0, 10.0)),
    "square_of_deviation": (lambda t: torch.stack([t, 3 * t]).std() ** 2, 0.0, (0.0, 4.0)),
    "square_of_distance": (
        lambda t: torch.dist(torch.stack([t, 2 * t]), torch.zeros(2, dtype=D)) ** 2,
        0.0,
        (0.0, 10.0),
    ),
    "root_of_fourth_power": (lambda t: torch.sqrt(t**4), 0.0, (0.0, 2.0)),
    "polar": (lambda t: torch.view_as_real(torch.polar(t, 1 + t))[1], -0.5, (0.0, 0.0)),
    "determinant": (lambda t: torch.linalg.det(torch.stack([t, t, t, 2 * t]).reshape(2, 2)), 0.0, (0.0, 2.0)),
    "equal_where_relu_rests": (lambda t: torch.where(F.relu(t - 5) == 0, t * t, t), 0.5, (1.0, 2.0)),
    "equal_to_the_largest": (
        lambda t: torch.where(torch.stack([t, t * t]) == torch.stack([t, t * t]).max(), t * t, t).sum(),
        0.5,
        (2.0, 2.0),
    ),
    "rows_without_entries": (
        lambda t: torch.nan_to_num((torch.stack([t, t * t]) - torch.inf).softmax(0)).sum() + t * t,
        0.5,
        (1.0, 2.0),
    ),
}
s, c = torch.sin(torch.tensor(0.5, dtype=D)).item(), torch.cos(torch.tensor(0.5, dtype=D)).item()
# the imaginary part t sin(1 + t) of a number whose size is given as -1/2
SMOOTH["polar"] = (SMOOTH["polar"][0], -0.5, (s - 0.5 * c, 2 * c + 0.5 * s))

#: what has no derivative there: nothing finite may be said
ROUGH: dict[str, Callable[[Tensor], Tensor]] = {
    "xlogx": lambda t: torch.xlogy(t, t),
    "entropy": torch.special.entr,
    "divergence": lambda t: F.kl_div(torch.zeros_like(t), t, reduction="sum"),
    "root": torch.sqrt,
    "another_value": lambda t: torch.where(t == 0, 5.0, t),
}


def jet_of(g: Callable[[Tensor], Tensor], engine: str, t: float) -> ff.Jet:
    def f(u: Tensor) -> Tensor:
        return torch.stack([u[0], u[1], g(u[0]) + u[1] * u[1]])

    return ff.StatisticalManifold(f, ff.charts.identity(2), engine=engine).jet([t, 0.25])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_maps_are_right_or_refused(name: str, engine: str) -> None:
    g, t, right = SMOOTH[name]
    try:
        jet = jet_of(g, engine, t)
    except FisherflatError:
        return
    found = torch.stack([jet.jacobian[0, 2], jet.hessian[0, 0, 2]])
    known = found.isfinite()  # what is not is refused by geometry
    torch.testing.assert_close(found[known], torch.tensor(right, dtype=D)[known], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["xlogy", "xlogy_moving", "xlogy_number", "xlog1py", "logaddexp2", "logaddexp", "power"]
)
def test_rules_know_these(name: str) -> None:
    g, t, right = SMOOTH[name]
    jet = jet_of(g, "taylor", t)
    found = torch.stack([jet.jacobian[0, 2], jet.hessian[0, 0, 2]])
    torch.testing.assert_close(found, torch.tensor(right, dtype=D), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
@pytest.mark.parametrize("name", ROUGH)
def test_nothing_is_said_where_there_is_no_derivative(name: str, engine: str) -> None:
    try:
        jet = jet_of(ROUGH[name], engine, 0.0)
    except FisherflatError:
        return
    assert not jet.jacobian[0, 2].isfinite() or not jet.hessian[0, 0, 2].isfinite()


def test_one_such_point_leaves_the_others_alone() -> None:
    g = SMOOTH["where"][0]
    M = ff.StatisticalManifold(
        lambda u: torch.stack([u[0], u[1], g(u[0]) + u[1] * u[1]]), ff.charts.identity(2), degenerate="nan"
    )
    with pytest.warns(ff.errors.DegenerateImmersionWarning):
        found = M.scalar_curvature([[0.0, 0.0], [0.5, 0.0]])
    assert found[0].isnan()
    x = 0.5
    value, slope = torch.sin(torch.tensor(x)).item() / x, (x * c - s) / x**2
    bend = -(value + 2 * slope / x)
    assert float(found[1]) == pytest.approx(2 * 2 * bend / (1 + slope**2) ** 2)
