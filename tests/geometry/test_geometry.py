"""Geometry from 2-jets: invariances on random jets, closed forms, and the metric's own derivatives."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from cases.maps import SURFACES, double, evaluated, formula, loaded
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.geometry import Geometry
from fisherflat.jets import Jet

ENGINES = ("taylor", "autodiff")

seeds = st.integers(0, 2**32 - 1)
dimensions = st.integers(2, 4)
codimensions = st.integers(1, 4)


def packed(value: np.ndarray, jacobian: np.ndarray, hessian: np.ndarray) -> Jet:
    upper = hessian[np.triu_indices(len(jacobian))]
    return Jet(torch.from_numpy(np.concatenate([value[None], jacobian, upper])), len(jacobian))


def random_arrays(seed: int, k: int, codimension: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value `[D]`, Jacobian `[k, D]` and Hessian `[k, k, D]` of a random map."""
    random, dim = np.random.default_rng(seed), k + codimension
    hessian = random.normal(size=(k, k, dim))
    return random.normal(size=dim), random.normal(size=(k, dim)), hessian + hessian.transpose(1, 0, 2)


def random_geometry(seed: int, k: int, codimension: int) -> Geometry:
    return Geometry(packed(*random_arrays(seed, k, codimension)))


def manifold(name: str, engine: str = "taylor", **options) -> ff.StatisticalManifold:
    components = SURFACES[name]
    k = 1 + max(i for i in range(9) if f"u{i}" in "".join(components))
    return ff.StatisticalManifold(formula(components), ff.charts.identity(k), engine=engine, **options)


def agree(a: Geometry, b: Geometry, factor: float = 1.0) -> bool:
    """Whether the scalar curvatures agree up to `factor`, to rounding of the terms that cancel."""
    difference = (a.scalar_curvature - factor * b.scalar_curvature).abs()
    return bool((difference <= 1e-11 * factor * b.cancellation_scale).all())


# -- invariances -------------------------------------------------------------------------------------------------------


@given(seeds, dimensions, codimensions)
def test_scalar_curvature_does_not_depend_on_coordinates(seed: int, k: int, codimension: int) -> None:
    value, jacobian, hessian = random_arrays(seed, k, codimension)
    random = np.random.default_rng(seed + 1)
    change = random.normal(size=(k, k)) + 3 * np.eye(k)  # du/dv of new coordinates v
    assume(np.linalg.cond(change) < 50)  # the new Hessians are rounded by its square, which the margin has room for
    bend = random.normal(size=(k, k, k))  # d²u/dv²: of coordinates that are not even affine in the old ones
    for second in (np.zeros_like(bend), bend + bend.transpose(0, 2, 1)):
        new = np.einsum("ia,jb,ijd->abd", change, change, hessian) + np.einsum("mab,md->abd", second, jacobian)
        assert agree(Geometry(packed(value, change.T @ jacobian, new)), Geometry(packed(value, jacobian, hessian)))


@given(seeds, dimensions, codimensions)
def test_scalar_curvature_survives_badly_scaled_coordinates(seed: int, k: int, codimension: int) -> None:
    value, jacobian, hessian = random_arrays(seed, k, codimension)
    units = 10 ** np.random.default_rng(seed + 1).uniform(-3, 3, size=k)
    scaled = packed(value, units[:, None] * jacobian, units[:, None, None] * units[:, None] * hessian)
    assert agree(Geometry(scaled), Geometry(packed(value, jacobian, hessian)))


@given(seeds, dimensions, codimensions)
def test_isometries_of_the_output_change_nothing(seed: int, k: int, codimension: int) -> None:
    value, jacobian, hessian = random_arrays(seed, k, codimension)
    random = np.random.default_rng(seed + 1)
    rotation = np.linalg.qr(random.normal(size=(k + codimension, k + codimension)))[0]
    before = Geometry(packed(value, jacobian, hessian))
    after = Geometry(packed(value @ rotation + random.normal(size=len(value)), jacobian @ rotation, hessian @ rotation))
    assert agree(after, before)
    size = before.riemann.abs().max() + before.cancellation_scale * before.metric.abs().max() ** 2
    assert (after.riemann - before.riemann).abs().max() <= 1e-12 * size
    turned = before.second_fundamental_form @ torch.from_numpy(rotation)
    torch.testing.assert_close(after.second_fundamental_form, turned, rtol=0, atol=1e-12 * np.abs(hessian).max())


@given(seeds, dimensions, codimensions, st.floats(1e-6, 1e6))
def test_scalar_curvature_scales_with_the_covariance(seed: int, k: int, codimension: int, c: float) -> None:
    jet = packed(*random_arrays(seed, k, codimension))
    whitened = Jet(ff.Gaussian(c).whiten(jet.coefficients), k)
    assert agree(Geometry(whitened), Geometry(jet), factor=c)


@given(seeds, dimensions, codimensions)
def test_a_full_covariance_is_the_inverse_cholesky_factor_applied_first(seed: int, k: int, codimension: int) -> None:
    arrays = random_arrays(seed, k, codimension)
    factor = np.random.default_rng(seed + 1).normal(size=(k + codimension,) * 2) + 4 * np.eye(k + codimension)
    covariance = factor @ factor.T
    inverse = np.linalg.inv(np.linalg.cholesky(covariance))
    whitened = Jet(ff.Gaussian(torch.from_numpy(covariance)).whiten(packed(*arrays).coefficients), k)
    assert agree(Geometry(whitened), Geometry(packed(*(array @ inverse.T for array in arrays))))


def test_the_same_invariances_through_charts_families_and_engines() -> None:
    # the scaled axes of the chart, a turn of the output and the covariance, all through the public interface
    chart = ff.charts.identity(3)
    f, u = formula(SURFACES["three-dimensional in R^6"]), double([0.3, -0.2, 0.4])
    turn = torch.linalg.qr(double(np.random.default_rng(0).normal(size=(6, 6)).tolist()))[0]
    units = double([1e-3, 1.0, 1e3])
    for engine in ENGINES:
        plain = ff.StatisticalManifold(f, chart, engine=engine).at(u)
        scaled = ff.charts.affine(double([0.1, 0.0, -0.1]), torch.diag(units))
        other = ff.StatisticalManifold(lambda x: 3 + f(x) @ turn, scaled, ff.Gaussian(7.0), engine=engine)
        assert agree(other.at((u - scaled.point) / units), plain, factor=7.0)


# -- algebra of the curvature tensor -----------------------------------------------------------------------------------


@given(seeds, st.integers(3, 4), codimensions)
def test_riemann_symmetries_and_first_bianchi_identity(seed: int, k: int, codimension: int) -> None:
    geometry = random_geometry(seed, k, codimension)
    r = geometry.riemann
    small = 1e-12 * geometry.cancellation_scale * geometry.metric.abs().max() ** 2
    assert (r + r.permute(1, 0, 2, 3)).abs().max() <= small
    assert (r + r.permute(0, 1, 3, 2)).abs().max() <= small
    assert (r - r.permute(2, 3, 0, 1)).abs().max() <= small
    assert (r + r.permute(1, 2, 0, 3) + r.permute(2, 0, 1, 3)).abs().max() <= small  # over the first three indices


@given(seeds, dimensions, codimensions)
def test_ricci_and_scalar_curvature_are_traces(seed: int, k: int, codimension: int) -> None:
    geometry = random_geometry(seed, k, codimension)
    inverse, scale = np.linalg.inv(geometry.metric.numpy()), geometry.cancellation_scale.item()
    stretch = np.linalg.cond(geometry.metric.numpy())  # numpy's inverse of the metric loses this much
    ricci = np.einsum("im,ijlm->jl", inverse, geometry.riemann.numpy())
    small = 1e-13 * stretch**2 * scale
    assert np.abs(geometry.ricci.numpy() - ricci).max() <= small * geometry.metric.abs().max().item()
    assert abs(geometry.scalar_curvature.item() - np.sum(inverse * ricci)) <= small


@given(seeds, dimensions, codimensions)
def test_scalar_curvature_is_the_sum_of_sectional_curvatures(seed: int, k: int, codimension: int) -> None:
    # over ordered pairs of an orthonormal basis; for k = 2 this is scal = 2 K, for one plane in any basis
    geometry = random_geometry(seed, k, codimension)
    basis = torch.linalg.inv(torch.linalg.cholesky(geometry.metric)).mT  # columns, orthonormal in the metric
    planes = [geometry.sectional_curvature(basis[:, a], basis[:, b]) for a in range(k) for b in range(k) if a != b]
    assert abs(sum(planes) - geometry.scalar_curvature) <= 1e-9 * geometry.cancellation_scale
    if k == 2:
        x, y = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, 2)))
        assert abs(2 * geometry.sectional_curvature(x, y) - geometry.scalar_curvature) <= (
            1e-9 * geometry.cancellation_scale
        )


@given(seeds, dimensions, codimensions)
def test_the_second_fundamental_form_is_normal_and_christoffel_symbols_are_the_rest(
    seed: int, k: int, codimension: int
) -> None:
    value, jacobian, hessian = random_arrays(seed, k, codimension)
    geometry = Geometry(packed(value, jacobian, hessian))
    normal, symbols = geometry.second_fundamental_form.numpy(), geometry.christoffel.numpy()
    size = np.abs(hessian).max()
    assert np.abs(np.einsum("ijd,md->ijm", normal, jacobian)).max() <= 1e-13 * size * np.abs(jacobian).max()
    tangential = np.einsum("mij,md->ijd", symbols, jacobian)
    assert np.abs(normal + tangential - hessian).max() <= 1e-12 * size
    assert np.array_equal(symbols, symbols.transpose(0, 2, 1))


# -- flat by dimension or by form --------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_curves_are_flat(engine: str) -> None:
    curve = ff.StatisticalManifold(formula(("cos(u0)", "exp(u0)", "u0**3")), ff.charts.identity(1), engine=engine)
    u = torch.linspace(-1, 1, 5, dtype=torch.float64)[:, None]
    geometry = curve.at(u)
    assert (geometry.scalar_curvature == 0).all() and (geometry.riemann == 0).all() and (geometry.ricci == 0).all()
    assert (geometry.second_fundamental_form_norm > 0.1).all()  # though curved in space


@pytest.mark.parametrize("engine", ENGINES)
def test_open_sets_of_the_output_are_flat(engine: str) -> None:
    # k = D: a local diffeomorphism, whatever its derivatives
    square = ff.StatisticalManifold(
        formula(("exp(u0)*cos(u1)", "exp(u0)*sin(u1)")), ff.charts.identity(2), engine=engine
    )
    geometry = square.at([[0.1, 0.2], [1.0, -2.0]])
    assert (geometry.scalar_curvature == 0).all() and (geometry.second_fundamental_form == 0).all()
    assert (geometry.christoffel.abs() > 0.1).any()


@pytest.mark.parametrize("engine", ENGINES)
def test_affine_maps_are_flat(engine: str) -> None:
    torch.manual_seed(0)
    chart = ff.charts.token(torch.randn(4, 5), 1, torch.randn(3, 5))
    affine = ff.StatisticalManifold(nn.Linear(5, 6), chart, engine=engine)
    geometry = affine.at(torch.randn(7, 3))
    for name in ("scalar_curvature", "riemann", "second_fundamental_form_norm", "mean_curvature", "christoffel"):
        assert getattr(geometry, name).abs().max() <= 1e-15, name


# -- closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_sphere(engine: str) -> None:
    u = double([[0.75, 0.25], [2.0, -1.0], [0.1, 3.0]])
    sphere = manifold("sphere of radius 2", engine).at(u)
    torch.testing.assert_close(sphere.scalar_curvature, torch.full((3,), 0.5, dtype=torch.float64), rtol=1e-13, atol=0)
    assert (sphere.riemann[:, 0, 1, 1, 0] > 0).all()
    # H = -x / r²: inwards, of length 1 / r, and |tr II|² = k² / r², |II|² = k / r²
    torch.testing.assert_close(sphere.mean_curvature, -sphere.jet.value / 4, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(sphere.second_fundamental_form_norm.square(), double([0.5] * 3), rtol=1e-13, atol=0)
    torch.testing.assert_close(sphere.cancellation_scale, double([1.5] * 3), rtol=1e-13, atol=0)
    torch.testing.assert_close(sphere.volume_density, 4 * u[:, 0].sin(), rtol=1e-13, atol=0)
    semi_axes = torch.stack([torch.full((3,), 2.0, dtype=torch.float64), 2 * u[:, 0].sin()], -1)
    torch.testing.assert_close(sphere.singular_values, semi_axes, rtol=1e-13, atol=0)
    torch.testing.assert_close(sphere.condition_number, 1 / u[:, 0].sin().square(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_sectional_curvature_of_a_sphere_and_of_its_product_with_a_line(engine: str) -> None:
    u = double([0.7, 0.4, 0.3])
    # inverse stereographic projection: every plane of the unit 3-sphere has curvature 1
    three_sphere = "2*u0/(1+u0**2+u1**2+u2**2)", "2*u1/(1+u0**2+u1**2+u2**2)", "2*u2/(1+u0**2+u1**2+u2**2)"
    components = (*three_sphere, "2/(1+u0**2+u1**2+u2**2)-1")
    sphere = ff.StatisticalManifold(formula(components), ff.charts.identity(3), engine=engine)
    planes = torch.from_numpy(np.random.default_rng(3).normal(size=(2, 6, 3)))
    torch.testing.assert_close(sphere.sectional_curvature(u, *planes), double([1.0] * 6), rtol=1e-12, atol=0)
    product = manifold("sphere times line", engine)
    x, y, line = torch.eye(3, dtype=torch.float64)
    assert abs(product.sectional_curvature(u, x + y, y) - 1) <= 1e-13
    assert product.sectional_curvature(u, x, line).abs() <= 1e-15
    assert product.sectional_curvature(u, y, line + y).abs() <= 1e-15
    # a plane that leans by 45 degrees towards the line: cos² of that
    assert abs(product.sectional_curvature(u, x, y / u[0].sin() + line) - 0.5) <= 1e-13


@pytest.mark.parametrize("name", ["helicoid", "catenoid"])
def test_minimal_surfaces_have_no_mean_curvature(name: str) -> None:
    geometry = manifold(name).at(double([[0.3, 0.7], [-1.0, 2.0]]))
    assert geometry.mean_curvature.abs().max() <= 1e-15
    assert (geometry.scalar_curvature < -0.1).all()
    # then scal = -|II|²
    torch.testing.assert_close(geometry.scalar_curvature, -geometry.second_fundamental_form_norm.square())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("norm", "lost"), [(nn.LayerNorm, 2), (nn.RMSNorm, 1)])
@pytest.mark.parametrize("width", [4, 6])
def test_norms_map_planes_onto_spheres_of_radius_root_width(
    norm: type[nn.Module], lost: int, width: int, engine: str
) -> None:
    torch.manual_seed(width)
    k = width - lost  # LayerNorm loses the mean as well
    chart = ff.charts.affine(torch.randn(width), torch.randn(k, width))
    geometry = ff.StatisticalManifold(norm(width, eps=0.0, elementwise_affine=False), chart, engine=engine).at(
        0.3 * torch.randn(4, k)
    )
    expected = torch.full((4,), k * (k - 1) / width, dtype=torch.float64)
    assert ((geometry.scalar_curvature - expected).abs() <= 1e-11 * geometry.cancellation_scale).all()


class ResidualStep(nn.Module):
    """Adds `a (u² + v²)` to the last coordinate."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = a

    def forward(self, x: Tensor) -> Tensor:
        return x + nn.functional.pad(self.a * (x[:1] ** 2 + x[1:2] ** 2), (2, 0))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_curvature_grows_with_the_square_of_the_depth(depth: int, engine: str) -> None:
    a = 0.375
    stack = nn.Sequential(*(ResidualStep(a) for _ in range(depth)))
    plane = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])
    scal = ff.StatisticalManifold(stack, plane, engine=engine).scalar_curvature([0.0, 0.0])
    assert abs(scal.item() - 2 * 4 * a**2 * depth**2) <= 1e-13 * scal.item()


#: width 4, tokens (u, v, 1, 0); values, gate and output matrices act on row vectors, scores vanish
SADDLE = {
    "Wv": [[2, 0, 2, 0], [0, 2, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],  # 2 (u, v, u, 0), halved by the pattern
    "Wg": [[0, 0, 0, 0], [0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]],  # (1, 1, v, 0)
    "Wo": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
}
PARABOLOID = {
    "Wv": [[2, 0, 2, 0], [0, 2, 0, 2], [0, 0, 0, 0], [0, 0, 0, 0]],  # 2 (u, v, u, v)
    "Wg": [[0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]],  # (1, 1, u, v)
    "Wo": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]],  # (u, v, u² + v², 0)
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weights", [SADDLE, PARABOLOID], ids=["saddle", "paraboloid"])
def test_one_bilinear_gated_attention_layer_makes_a_saddle_and_a_paraboloid(
    weights: dict[str, list[list[int]]], engine: str
) -> None:
    layer = ff.layers.SelfAttention(4, gate=ff.layers.Gate("identity"))
    nothing = {"Wq": torch.zeros(4, 4).tolist(), "Wk": torch.zeros(4, 4).tolist()}  # both tokens weigh 1/2
    names = {"query": "Wq", "key": "Wk", "value": "Wv", "output": "Wo", "gate.projection": "Wg"}
    loaded(layer, weights | nothing, names)
    chart = ff.charts.token(double([[0, 0, 1, 0], [0, 0, 0, 0]]), 0, torch.eye(4)[:2])
    u = double([[0.0, 0.0], [0.5, -0.25], [-1.0, 2.0]])
    surface = ff.StatisticalManifold(layer, chart, engine=engine)
    square = u.square().sum(-1)
    gauss = -1 / (1 + square) ** 2 if weights is SADDLE else 4 / (1 + 4 * square) ** 2
    height = u[:, 0] * u[:, 1] if weights is SADDLE else square
    torch.testing.assert_close(surface.jet(u).value[:, 2], height, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(surface.scalar_curvature(u), 2 * gauss, rtol=1e-12, atol=0)


# -- high precision ----------------------------------------------------------------------------------------------------


def derivative(f, u: np.ndarray, h: mpmath.mpf) -> np.ndarray:
    """`[k, ...]` from central differences of order 4."""
    steps = np.diag([h] * len(u))
    return np.array([(8 * (f(u + s) - f(u - s)) - (f(u + 2 * s) - f(u - 2 * s))) / (12 * h) for s in steps])


@pytest.mark.parametrize("name", [*SURFACES])
def test_christoffel_symbols_are_those_of_the_metric(name: str) -> None:
    surface = manifold(name)
    u = double([0.6, 0.3, -0.4, 0.8][: surface.k])
    with mpmath.workdps(100):

        def f(v: np.ndarray) -> np.ndarray:
            return np.array([mpmath.mpf(component) for component in evaluated(SURFACES[name], v, mpmath)])

        def metric(v: np.ndarray) -> np.ndarray:
            jacobian = derivative(f, v, mpmath.mpf(10) ** -20)
            return jacobian @ jacobian.T

        point = np.array([mpmath.mpf(c) for c in u.tolist()])
        slopes = derivative(metric, point, mpmath.mpf(10) ** -15)  # [l, i, j] = d_l g_ij
        lower = (slopes.transpose(2, 0, 1) + slopes.transpose(2, 1, 0) - slopes) / 2
        g = metric(point)
        inverse = np.array(mpmath.inverse(mpmath.matrix(g)).tolist())
        expected = np.tensordot(inverse, lower, 1)
        expected, g = expected.astype(np.float64), g.astype(np.float64)
    geometry = surface.at(u)
    torch.testing.assert_close(geometry.metric, torch.from_numpy(g), rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(geometry.christoffel, torch.from_numpy(expected), rtol=1e-13, atol=1e-14)
