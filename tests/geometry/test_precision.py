"""Right digits under stress, and errors that cover: against balls and exact changes of coordinates."""

from __future__ import annotations

import math
import statistics
import threading
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from cases.stress import jet, reading, scalar_curvature, stressed
from torch import Tensor, nn
from torch.nn import functional as F

import fisherflat as ff
from fisherflat.errors import DegenerateImmersionError, InputError, PrecisionWarning
from fisherflat.geometry import Geometry, Verdict
from fisherflat.jets import Jet

DOUBLE = torch.float64


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in steps of 1/64, so that sums and products by powers of two are exact."""
    drawn = torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    return (drawn * 64).round() / 64


def mlp(width: int = 6, hidden: int = 12, outputs: int = 16) -> Callable[[Tensor], Tensor]:
    a, b = normal(width, hidden, seed=1) / 2, normal(hidden, outputs, seed=2) / 4
    return lambda x: F.gelu(x @ a) @ b


QUERY, KEY, VALUE = (normal(6, 6, seed=seed) / 2 for seed in (3, 4, 5))


def attention(x: Tensor) -> Tensor:
    query, key, value = (weight.to(x.dtype) for weight in (QUERY, KEY, VALUE))
    return ((x @ query) @ (x @ key).T / 2).softmax(-1) @ (x @ value)


def digits(found: Tensor, manifold: ff.StatisticalManifold, u: list[float] | None = None) -> float:
    truth = scalar_curvature(manifold, u)
    return -math.log10(max(float(abs((found.item() - truth) / truth)), 1e-17))


def at_zero(manifold: ff.StatisticalManifold) -> Tensor:
    return torch.zeros(manifold.k, dtype=DOUBLE)


# -- digits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
@pytest.mark.parametrize("bits", [8, 24, 40, 44, 48, 52])
def test_nearly_parallel_charts_keep_their_digits(bits: int, engine: str) -> None:
    b = normal(2, 6, seed=6)
    chart = ff.charts.affine(normal(6), torch.stack([b[0], b[0] + 2.0**-bits * b[1]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = ff.StatisticalManifold(mlp(), chart, engine=engine).scalar_curvature([0.0, 0.0])
    assert digits(found, ff.StatisticalManifold(mlp(), chart)) > 12


@pytest.mark.parametrize("scale", [1.0, 2.0**60])
def test_parallel_to_the_last_place_is_not_degenerate(scale: float) -> None:
    """What differs in the last bits alone spans a plane all the same; what is quite parallel does not."""
    b = normal(3, 4, 6, seed=7)
    basis = torch.stack([b[0], torch.nextafter(b[0], b[1]) * scale, b[0] + 2.0**-47 * b[2]])
    manifold = ff.StatisticalManifold(attention, ff.charts.affine(normal(4, 6), basis))
    found = manifold.measure([0.0] * 3, ["scalar_curvature"], error=True)
    truth = scalar_curvature(manifold)
    assert abs(found["scalar_curvature"].item() - float(truth)) <= found["scalar_curvature_error"].item()
    assert digits(found["scalar_curvature"], manifold) > 11
    basis[2] = 3 * b[0]
    with pytest.raises(DegenerateImmersionError, match="rank 2 < k = 3"):
        ff.StatisticalManifold(attention, ff.charts.affine(normal(4, 6), basis)).scalar_curvature([0.0] * 3)


@pytest.mark.parametrize("k", [3, 4])
def test_what_is_measured_on_parallel_directions_is_carried_back(k: int) -> None:
    # the same planes on directions that are not parallel, and from there by a matrix, in which all is exact
    b, delta = normal(k, 4, 6, seed=7), 2.0**-20
    change = torch.eye(k, dtype=DOUBLE) * delta
    change[:, 0] = 1
    steep = ff.StatisticalManifold(attention, ff.charts.affine(normal(4, 6), torch.einsum("ij,jab->iab", change, b)))
    plain = ff.StatisticalManifold(attention, ff.charts.affine(normal(4, 6), b))
    u = torch.zeros(k)
    a, c = steep.at(u), plain.at(u)
    back = torch.linalg.inv(change)
    expected = {
        "metric": change @ c.metric @ change.T,
        "christoffel": torch.einsum("ia,jb,cab,cm->mij", change, change, c.christoffel, back),
        "second_fundamental_form": torch.einsum("ia,jb,abx->ijx", change, change, c.second_fundamental_form),
        "riemann": torch.einsum("ia,jb,lc,md,abcd->ijlm", change, change, change, change, c.riemann),
        "ricci": change @ c.ricci @ change.T,
        "scalar_curvature": c.scalar_curvature,
        "mean_curvature": c.mean_curvature,
        "volume_density": c.volume_density * torch.linalg.det(change),
        "sectional_extremes": c.sectional_extremes,
    }
    for name, tensor in expected.items():
        torch.testing.assert_close(getattr(a, name), tensor, rtol=1e-11, atol=1e-11 * tensor.abs().max().item())
    torch.testing.assert_close(a.jet.jacobian, change @ c.jet.jacobian, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(a.jet.hessian, torch.einsum("ia,jb,abx->ijx", change, change, c.jet.hessian))


def test_points_that_need_no_other_coordinates_keep_theirs() -> None:
    # (u, v) -> (u, u + h v + v w, ...) with h from the third coordinate: steep at one point, benign at the other
    def f(x: Tensor) -> Tensor:
        return torch.stack([x[0], x[0] + x[2] * x[1], x[1] * x[1] + x[0] * x[2], x[2]])

    manifold = ff.StatisticalManifold(f, ff.charts.identity(3))
    points = [[0.0, 0.0, 2.0**-20], [0.5, 0.25, 1.0], [0.0, 0.0, -(2.0**-30)]]
    together = manifold.at(points)
    for position, point in enumerate(points):
        assert digits(together.scalar_curvature[position], manifold, point) > 11
        assert digits(together.reshaped((3, 1)).scalar_curvature[position, 0], manifold, point) > 11
        jacobian = torch.func.jacrev(f)(torch.tensor(point, dtype=DOUBLE))
        torch.testing.assert_close(together.metric[position], jacobian.T @ jacobian, rtol=1e-13, atol=1e-13)
        torch.testing.assert_close(together.jet.jacobian[position], jacobian.T, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("sink", [10.0, 40.0, 100.0])
@pytest.mark.parametrize("tail", ["softmax", "log_softmax", "logsumexp"])
def test_saturated_weights_keep_their_digits(sink: float, tail: str) -> None:
    keys, w, v = normal(5, 4, seed=8), normal(4, 4, seed=9), normal(5, 6, seed=10)
    shift = torch.tensor([sink, 0, 0, 0, 0], dtype=DOUBLE)

    def f(x: Tensor) -> Tensor:
        scores = keys @ (w @ x) / 2 + shift
        if tail == "softmax":
            return scores.softmax(-1) @ v
        if tail == "log_softmax":
            return scores.log_softmax(-1)
        return torch.cat([keys[:3] @ x, torch.logsumexp(scores, 0, keepdim=True) - scores[:1]])

    manifold = ff.StatisticalManifold(f, ff.charts.affine(normal(4), normal(2, 4, seed=11)))
    # the scores are known to 2^-53 of the largest, which is what an exponential makes a relative error of
    assert digits(manifold.scalar_curvature([0.0, 0.0]), manifold) > (11.5 if tail != "logsumexp" else 8)


class Llama(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)


NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "rms_norm": lambda x: F.rms_norm(x, x.shape[-1:], eps=1e-5),
    "as Llama writes it": Llama(),
    "a quotient": lambda x: x / (1e-5 + (x * x).mean(-1, keepdim=True)).sqrt(),
    "a power": lambda x: (x.square().sum(-1, keepdim=True) + 1e-4) ** -0.5 * x,
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:], eps=1e-5),
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_along_their_own_direction_keep_their_digits(name: str) -> None:
    point, basis, w = normal(6, seed=12), normal(2, 6, seed=13), normal(6, 9, seed=14) / 2
    point[2] = 1e4
    point -= point.mean() if name == "layer_norm" else 0
    basis[0] = point / 8
    norm = NORMS[name]
    manifold = ff.StatisticalManifold(lambda x: torch.tanh(norm(x) @ w), ff.charts.affine(point, basis))
    found = manifold.measure([0.0, 0.0], ["scalar_curvature"], error=True)
    truth = scalar_curvature(manifold)
    assert abs(found["scalar_curvature"].item() - truth) <= found["scalar_curvature_error"].item()
    if name != "layer_norm":  # what it subtracts first is rounded, and that alone costs these digits
        assert digits(found["scalar_curvature"], manifold) > 2
        assert found["scalar_curvature_error"] < abs(found["scalar_curvature"])


@pytest.mark.parametrize("name", list(NORMS)[:4])
def test_a_point_without_numbers_leaves_norms_of_others_alone(name: str) -> None:
    point, basis, norm = normal(6, seed=12), normal(2, 6, seed=13), NORMS[name]
    point[2] = 1e4
    basis[0] = point / 8
    # below u = -8 the third entry is negative, and its root no number
    manifold = ff.StatisticalManifold(lambda x: norm(x + 0 * x[2].sqrt()), ff.charts.affine(point, basis))
    u = torch.tensor([[0.0, 0.0], [-9.0, 0.0], [1.0, 0.5]])
    alone, together = (torch.stack([manifold.jet(one).second for one in u]), manifold.jet(u).second)
    assert not together[1].isfinite().any()
    exact = torch.stack([jet(manifold, one)[3:] for one in u[[0, 2]].tolist()])
    for found in (alone[[0, 2]], together[[0, 2]]):  # twice along itself there is hardly a second derivative
        assert ((found - exact).abs().amax(-1) <= 1e-9 * exact.abs().amax(-1)).all()


@pytest.mark.parametrize("order", [1, 2])
def test_norms_agree_with_automatic_differentiation_where_directions_are_mixed(order: int) -> None:
    # one direction along x, others across, and second derivatives of x itself or none
    point, w = normal(3, 6, seed=15), normal(6, 6, seed=16) / 4
    basis = torch.cat([point[None], normal(2, 3, 6, seed=17)])
    inner = (lambda x: x) if order == 1 else (lambda x: x + 2.0**-10 * (x @ w).tanh())
    for norm in list(NORMS.values())[:4]:
        jets = [
            ff.StatisticalManifold(lambda x: norm(inner(x)), ff.charts.affine(point, basis), engine=engine).jet(  # noqa: B023
                torch.zeros(2, 3)
            )
            for engine in ("taylor", "autodiff")
        ]
        torch.testing.assert_close(jets[0].coefficients, jets[1].coefficients, rtol=1e-12, atol=1e-14)


def test_a_clamped_norm_is_no_norm() -> None:
    # the length is below the clamp: x / 8, an affine map
    point = normal(3, seed=18)

    def f(x: Tensor) -> Tensor:
        return torch.cat([F.normalize(x, dim=0, eps=8.0), x.prod(0, keepdim=True)])

    jet = ff.StatisticalManifold(f, ff.charts.affine(point, torch.stack([point, normal(3)]))).jet([0.0, 0.0])
    torch.testing.assert_close(jet.jacobian[0, :3], point / 8)
    assert not jet.hessian[..., :3].any()


# -- units -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scales", [(2.0**-27, 2.0**27), (2.0**40, 2.0**-40), (1.0, 2.0**60)])
def test_rank_and_curvature_do_not_depend_on_units(scales: tuple[float, float]) -> None:
    basis = normal(2, 6, seed=19)
    plain = ff.StatisticalManifold(mlp(), ff.charts.affine(normal(6), basis))
    scaled = ff.StatisticalManifold(
        mlp(), ff.charts.affine(normal(6), basis * torch.tensor(scales, dtype=DOUBLE)[:, None])
    )
    a, b = (m.measure([0.0, 0.0], ["scalar_curvature"], error=True) for m in (plain, scaled))
    torch.testing.assert_close(b["scalar_curvature"], a["scalar_curvature"], rtol=1e-13, atol=0)
    assert b["scalar_curvature_error"] < 1e-12 * abs(a["scalar_curvature"])


@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30])
def test_errors_scale_with_output_and_covariance(scale: float) -> None:
    chart = ff.charts.affine(normal(6), normal(2, 6, seed=20))
    f = mlp()
    plain = ff.StatisticalManifold(f, chart)
    for other, factor in (
        (ff.StatisticalManifold(lambda x: f(x) * scale, chart), scale**-2),
        (ff.StatisticalManifold(f, chart, ff.Gaussian(scale**2)), scale**2),
    ):
        a, b = (m.measure([0.0, 0.0], ["scalar_curvature"], error=True) for m in (plain, other))
        torch.testing.assert_close(b["scalar_curvature"], a["scalar_curvature"] * factor, rtol=1e-13, atol=0)
        assert 1 / 20 < b["scalar_curvature_error"] / (a["scalar_curvature_error"] * factor) < 20


def test_a_direction_that_changes_nothing_but_roundings_is_degenerate() -> None:
    # softmax does not see a shift of all its scores, and what is left of it is rounding, of whatever size
    keys, values = normal(5, 4, seed=21), normal(5, 6, seed=22)

    def f(x: Tensor) -> Tensor:
        return (x[:4] @ keys.T + x[4]).softmax(-1) @ values

    basis = torch.zeros(2, 5, dtype=DOUBLE)
    basis[0, :4], basis[1, 4] = normal(4), 2.0**20 / 3
    with pytest.raises(DegenerateImmersionError):
        ff.StatisticalManifold(f, ff.charts.affine(normal(5, seed=23), basis)).scalar_curvature([0.1, 0.3])


def test_near_degeneracy_is_said_before_it_is_one() -> None:
    def surface(bits: int) -> ff.StatisticalManifold:
        return ff.StatisticalManifold(
            lambda u: torch.stack([u[0], u[0] + 2.0**-bits * u[1], u[1] * u[1]]), ff.charts.identity(2)
        )

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surface(20).scalar_curvature([0.0, 0.0])
    with pytest.warns(PrecisionWarning, match="1 of 1 points are nearly degenerate"):
        surface(42).scalar_curvature([0.0, 0.0])


# -- errors ------------------------------------------------------------------------------------------------------------


def test_errors_cover_what_balls_say() -> None:
    readings = [reading(seed) for seed in range(64)]
    assert not any(r.refused for r in readings)
    assert sum(r.covered for r in readings) >= 62, [r for r in readings if not r.covered]
    assert statistics.median(r.pessimism for r in readings) < 40
    wrong = [r for r in readings if r.value * r.truth < 0 and r.estimate < abs(r.value)]
    assert not wrong, "a sign is wrong, and the error does not say so"
    floors = {"parallel chart": 11, "saturated softmax": 11, "inner cancellation": 12, "benign": 12, "outliers": 12}
    assert not [r for r in readings if r.digits < floors.get(r.kind, 2)]


CHART, POINTS = ff.charts.affine(normal(4, 6), normal(3, 4, 6, seed=24)), normal(6, 3, seed=25) / 8
LIVE: list[Callable[[Tensor], Tensor]] = [
    attention, lambda x: F.layer_norm(x, (6,)) + attention(x), lambda x: F.silu(x) * attention(x),
]  # fmt: skip


@pytest.fixture(scope="module")
def truths() -> list[list[Any]]:
    """Of each of them the curvature at the points, from balls."""
    manifolds = [ff.StatisticalManifold(f, CHART) for f in LIVE]
    return [[scalar_curvature(exact, u) for u in POINTS.tolist()] for exact in manifolds]


@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_errors_cover_in_each_engine_and_precision(truths: list[list[Any]], dtype: torch.dtype, engine: str) -> None:
    covered, relative = [], []
    for f, known in zip(LIVE, truths, strict=True):
        found = ff.StatisticalManifold(f, CHART, engine=engine, dtype=dtype).measure(
            POINTS, ["scalar_curvature"], error=True
        )
        for value, error, truth in zip(*(found[n].tolist() for n in found), known, strict=True):
            covered.append(abs(value - truth) <= error)
            relative.append(error / float(abs(truth)))
    assert sum(map(bool, covered)) >= 17 and len(covered) == 18
    assert statistics.median(relative) < 2000 * torch.finfo(dtype).eps


UNUSUAL: dict[str, Callable[[Tensor], Tensor]] = {
    "an op without a rule": lambda x: torch.cat([torch.special.i0e(x[:3]), x]),
    "an inverse": lambda x: torch.cat([x, torch.linalg.inv(x[:4].reshape(2, 2) + 3 * torch.eye(2).to(x)).flatten()]),
    "a sort": lambda x: torch.cat([x.sort()[0].exp(), x.prod(0, keepdim=True)]),
    "minus infinity": lambda x: torch.cat([(x + torch.tensor([0, 0, -torch.inf, 0, 0, 0]).to(x)).softmax(0), x * x]),
}


@pytest.mark.filterwarnings("ignore::fisherflat.errors.FallbackWarning")
@pytest.mark.parametrize("name", UNUSUAL)
def test_errors_cover_the_difference_of_the_engines(name: str) -> None:
    chart = ff.charts.affine(normal(6, seed=29), normal(2, 6, seed=30))
    a, b = (
        ff.StatisticalManifold(UNUSUAL[name], chart, engine=engine).measure(
            [[0.1, 0.2], [0.3, -0.1]], ["scalar_curvature"], error=True
        )
        for engine in ("taylor", "autodiff")
    )
    difference = (a["scalar_curvature"] - b["scalar_curvature"]).abs()
    assert (difference <= a["scalar_curvature_error"] + b["scalar_curvature_error"]).all()
    assert (a["scalar_curvature_error"] <= 1e-12 * a["scalar_curvature"].abs()).all()


def folded(k: int, plane: Tensor, seed: int) -> Callable[[Tensor], Tensor]:
    """A map that bends within a plane `[k, D]`: its image is an open piece of that, which is flat."""
    a, b = normal(k, k, seed=seed), normal(k, k, seed=seed + 1)
    return lambda u: (u @ a.to(u) + 0.3 * torch.tanh(u @ b.to(u)) ** 2) @ plane.to(u)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
def test_what_bends_within_a_plane_is_flat(engine: str, k: int) -> None:
    flat, bent = Verdict.FLAT, normal(k + 2, k + 2, seed=60)
    tilted, padded = torch.linalg.qr(bent).Q[:k], torch.eye(k + 2, dtype=DOUBLE)[:k]
    for plane, family, least in (
        (padded, ff.Gaussian(), 1.0),
        (padded, ff.Gaussian(torch.arange(1.0, k + 3)), 1.0),
        (padded, ff.Gaussian(bent @ bent.T + torch.eye(k + 2, dtype=DOUBLE)), 0.93),
        (tilted, ff.Gaussian(), 0.93),  # the plane itself is rounded
    ):
        words, covered = list[str](), list[Tensor]()
        for seed in (40, 50):
            manifold = ff.StatisticalManifold(folded(k, plane, seed), ff.charts.identity(k), family, engine=engine)
            points = normal(24, k, seed=seed + 2) / 2
            words += manifold.verdict(points)
            found = manifold.measure(points, ["second_fundamental_form_norm", "mean_curvature_norm"], error=True)
            covered += [found[name] <= found[f"{name}_error"] for name in list(found)[:2]]  # of what is zero in truth
        assert torch.cat(covered).double().mean() >= least
        assert words.count(str(flat)) >= least * len(words), words


def test_the_error_of_a_length_is_that_of_its_vector() -> None:
    # |II| and |H| of a plane are zero, of a bowl they are 2 sqrt(2) and 2 at its lowest point
    bowl = ff.StatisticalManifold(lambda u: torch.cat([u, u.square().sum()[None]]), ff.charts.identity(2))
    found = bowl.measure([0.0, 0.0], ["second_fundamental_form_norm", "mean_curvature_norm"], error=True)
    assert found["second_fundamental_form_norm"].item() == pytest.approx(8**0.5, rel=1e-14)
    assert found["mean_curvature_norm"].item() == pytest.approx(2.0, rel=1e-14)
    assert max(float(found[f"{name}_error"]) for name in list(found)[:2]) < 1e-13
    # a curve that runs to and fro on a line
    line = ff.StatisticalManifold(folded(1, normal(1, 3, seed=61) / 3, 62), ff.charts.identity(1))
    curve = line.measure(normal(64, 1, seed=63), ["efron_curvature"], error=True)
    assert (curve["efron_curvature"] <= curve["efron_curvature_error"]).double().mean() > 0.93


def test_errors_come_with_the_shape_of_their_quantities_and_the_same_twice() -> None:
    manifold = ff.StatisticalManifold(attention, ff.charts.affine(normal(4, 6), normal(3, 4, 6, seed=26)))
    u = normal(2, 5, 3, seed=27) / 8
    names = ["metric", "christoffel", "riemann", "ricci", "scalar_curvature", "sectional_extremes", "volume_density"]
    found, again = (manifold.measure(u, names, error=True) for _ in range(2))
    assert list(found) == [*names, *(f"{name}_error" for name in names)]
    geometry = manifold.at(u)
    for name in names:
        error = found[f"{name}_error"]
        assert error.shape == found[name].shape == geometry.error(name).shape
        assert (error >= 0).all() and torch.isfinite(error).all()
        torch.testing.assert_close(error, again[f"{name}_error"], rtol=0.5, atol=1e-14)
        assert (error <= 1e-10 * found[name].abs().max()).all()


def test_errors_are_of_the_call_alone() -> None:
    manifold = ff.StatisticalManifold(attention, ff.charts.affine(normal(4, 6), normal(2, 4, 6, seed=28)))
    a, results, stop = normal(64, 64), set(), threading.Event()
    expected = (a @ a).sum().item()

    def elsewhere() -> None:
        while not stop.is_set():
            results.add((a @ a).sum().item())

    thread = threading.Thread(target=elsewhere)
    thread.start()
    try:
        for _ in range(5):
            manifold.measure([0.0, 0.0], ["scalar_curvature"], error=True)
    finally:
        stop.set()
        thread.join()
    assert results == {expected} and (a @ a).sum().item() == expected


def test_a_geometry_of_a_jet_alone_has_no_errors() -> None:
    jet = Jet(normal(6, 4), 2)
    with pytest.raises(InputError, match="made of a jet alone"):
        Geometry(jet).error("scalar_curvature")
    manifold = ff.StatisticalManifold(mlp(), ff.charts.affine(normal(6), normal(2, 6)))
    with pytest.raises(InputError, match="'torsion' is not a quantity"):
        manifold.at([0.0, 0.0]).error("torsion")


def test_where_there_is_no_geometry_there_is_no_error() -> None:
    folded = ff.StatisticalManifold(
        lambda u: torch.stack([u[0] ** 2, u[1], u[0] ** 3 + u[1] ** 2]), ff.charts.identity(2), degenerate="nan"
    )
    with pytest.warns(UserWarning):
        found = folded.measure([[0.0, 0.0], [1.0, 0.0]], ["scalar_curvature"], error=True)
    assert found["scalar_curvature_error"].isnan().tolist() == [True, False]


# -- more bits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [67, 115, 235, 331])  # whose digits are poor by a factor of ten or more
def test_points_with_poor_digits_are_right_to_the_last_places_in_more_bits(seed: int) -> None:
    manifold = stressed(seed).manifold
    u = torch.zeros(manifold.k)
    before = manifold.measure(u, ["scalar_curvature"], error=True)
    assert before["scalar_curvature_error"] > 10 * 2.0**-20 * before["scalar_curvature"].abs()
    found = manifold.measure(u, ["scalar_curvature"], error=True, precision="auto")
    assert digits(found["scalar_curvature"], manifold) > 14
    off = abs(found["scalar_curvature"].item() - scalar_curvature(manifold))
    assert off <= found["scalar_curvature_error"].item() < 1e-12 * before["scalar_curvature"].abs()


def test_all_that_is_computed_in_more_bits_is_in_the_coordinates_of_the_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    from fisherflat.geometry import _more_bits

    monkeypatch.setattr(_more_bits, "poor", lambda *_: torch.tensor([True, False, True]))
    names = ["metric", "christoffel", "second_fundamental_form", "riemann", "ricci", "mean_curvature", "volume_density"]
    root = normal(24, 24, seed=31) / 8 + torch.eye(24, dtype=DOUBLE)
    for family in (ff.Gaussian(0.3), ff.Gaussian(torch.arange(1.0, 25.0)), ff.Gaussian(root @ root.T)):
        manifold = ff.StatisticalManifold(attention, ff.charts.affine(normal(4, 6), normal(3, 4, 6, seed=32)), family)
        u = normal(3, 3, seed=33) / 8
        plain, more = (manifold.measure(u, names, error=True, precision=p) for p in ("working", "auto"))
        assert not all(torch.equal(plain[name], more[name]) for name in names)
        for name in names:
            torch.testing.assert_close(more[name], plain[name], rtol=1e-9, atol=1e-11 * plain[name].abs().max().item())
            off = (more[name] - plain[name]).abs()
            assert (off <= plain[f"{name}_error"] + more[f"{name}_error"]).float().mean() > 0.97


@pytest.mark.filterwarnings("ignore::fisherflat.errors.FallbackWarning")
@pytest.mark.parametrize("lacks", ["a rule", "a graph"])
def test_where_there_are_no_balls_the_estimate_stands_and_says_so(lacks: str) -> None:
    def cancelling(u: Tensor) -> Tensor:
        large = 1e14 * torch.special.i0e(u[0] + u[1])
        return torch.stack([u[0], u[1], (u.square().sum() + large) - large])

    point, w = normal(6, seed=12), normal(6, 9, seed=14) / 2
    point[2] = 1e4
    norm = ff.charts.affine(point, torch.stack([point / 8, normal(6, seed=13)]))
    manifold = (
        ff.StatisticalManifold(cancelling, ff.charts.affine(normal(2), torch.eye(2)))
        if lacks == "a rule"
        else ff.StatisticalManifold(lambda x: torch.tanh(F.rms_norm(x, (6,), eps=1e-5) @ w), norm, engine="autodiff")
    )
    with pytest.warns(PrecisionWarning, match="2 of 2 points could not be computed in more bits"):
        found = manifold.measure(torch.zeros(2, 2), ["scalar_curvature"], error=True, precision="auto")
    expected = manifold.measure(torch.zeros(2, 2), ["scalar_curvature"], error=True)
    torch.testing.assert_close(found["scalar_curvature"], expected["scalar_curvature"])
    with pytest.raises(InputError, match="precision must be one of"):
        manifold.measure([0.0, 0.0], ["metric"], precision="quad")


# -- twice the precision -----------------------------------------------------------------------------------------------


def test_combinations_of_directions_lose_nothing() -> None:
    from fisherflat.geometry._precision import combined

    generator = torch.Generator().manual_seed(0)
    change = torch.randn(3, 4, 4, dtype=DOUBLE, generator=generator) * 2.0**40
    vectors = torch.randn(4, 2, 5, dtype=DOUBLE, generator=generator)
    change[..., 0] = -change[..., 1:].sum(-1)  # so that equal vectors cancel
    vectors[1:] = vectors[0] + 2.0**-38 * vectors[1:]

    def exact(p: int, a: int, x: Any) -> Fraction:
        return sum(
            (Fraction(change[p, a, i].item()) * Fraction(vectors[i][x].item()) for i in range(4)), start=Fraction()
        )

    found = combined(change, vectors)
    for p in range(3):
        for a in range(4):
            for x in ((i, j) for i in range(2) for j in range(5)):
                truth = exact(p, a, x)
                assert abs(Fraction(found[p, a][x].item()) - truth) <= abs(truth) * Fraction(2) ** -51
