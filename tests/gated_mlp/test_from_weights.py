"""Geometry of gated MLPs from their weights, and their bilinear surrogates."""

from __future__ import annotations

import pytest
import torch
from cases.tiny_models import tiny_model
from torch import Tensor, einsum

import fisherflat as ff
from fisherflat.errors import DegenerateImmersionError, InputError
from fisherflat.layers import MLP_ACTIVATIONS, BilinearAttention, GatedMLP
from fisherflat.models import Model


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(activation: str, bias: bool = False, dim: int = 6, hidden: int = 5) -> GatedMLP:
    mlp = GatedMLP(dim, hidden, activation, bias).double()
    for index, parameter in enumerate(mlp.parameters()):
        parameter.data.copy_(normal(*parameter.shape, seed=index) / 2)
    return mlp


def attention(rank: int, constant: bool = False, bias: bool = False) -> BilinearAttention:
    return BilinearAttention(
        normal(4, rank, 6 + constant),
        normal(4, rank, 6 + constant, seed=1),
        normal(4, 6, seed=2),
        constant=constant,
        bias=normal(6, seed=3) if bias else None,
    )


def agree(found: Tensor, expected: Tensor, scale: Tensor | None = None) -> None:
    """To 1e-12 of the largest entry, or of what was subtracted to get it."""
    size = expected.abs().max() if scale is None else scale.max()
    assert (found - expected).abs().max() < 1e-12 * size


TOKEN = ff.charts.token(normal(3, 6, seed=10), 1, normal(3, 6, seed=11))
ALL = ff.charts.affine(normal(2, 6, seed=12), normal(2, 2, 6, seed=13))
VECTOR = ff.charts.affine(normal(6, seed=14), normal(3, 6, seed=15))
U = 0.5 * normal(2, 4, 3, seed=16)
CASES = {
    "bilinear MLP": (layer("identity"), VECTOR),
    "bilinear MLP with bias": (layer("identity", bias=True), TOKEN),
    "rank 1": (attention(1), VECTOR),
    "rank 3": (attention(3), TOKEN),
    "rank 3, constant": (attention(3, constant=True, bias=True), ALL),
    **{f"gated, {name}": (layer(name, bias=True, hidden=16), TOKEN) for name in MLP_ACTIVATIONS if name != "identity"},
}


@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
@pytest.mark.parametrize("name", CASES)
def test_geometry_from_weights_is_that_of_the_engines(name: str, engine: str) -> None:
    mlp, chart = CASES[name]
    u, family = U[..., : chart.k], ff.Gaussian(0.3)
    manifold = ff.StatisticalManifold(mlp, chart, family, engine)
    agree(ff.symmetry.weight_jet(mlp, chart, u).coefficients, manifold.jet(u).coefficients)
    found, expected = ff.symmetry.weight_geometry(mlp, chart, u, family=family), manifold.at(u)
    agree(found.second_fundamental_form, expected.second_fundamental_form)
    agree(found.scalar_curvature, expected.scalar_curvature, expected.cancellation_scale)


def test_the_hessian_of_a_bilinear_layer_is_constant_and_its_interaction_matrices() -> None:
    mlp = attention(3)
    hessian = ff.symmetry.weight_jet(mlp, VECTOR, U).hessian
    forms = torch.stack([ff.symmetry.interaction_matrix(mlp, c) for c in torch.eye(6, dtype=torch.float64)])
    agree(hessian, 2 * einsum("oij,ai,bj->abo", forms, VECTOR.basis, VECTOR.basis).expand_as(hessian))
    curvature = ff.symmetry.weight_geometry(mlp, VECTOR, U).scalar_curvature
    assert curvature.std() > 0.1 * curvature.abs().mean()  # which is not constant


def test_interaction_matrices_of_bilinear_attention() -> None:
    mlp, x, c = attention(3), normal(5, 6, seed=20), normal(6, seed=21)
    scores = einsum("hra,na,hrb,nb->nh", mlp.query, x, mlp.key, x)
    matrix = ff.symmetry.interaction_matrix(mlp, c)
    torch.testing.assert_close(einsum("na,ab,nb->n", x, matrix, x), (scores @ mlp.value @ c).detach())
    with pytest.raises(InputError, match="not a quadratic form"):
        ff.symmetry.interaction_matrix(layer("silu").as_bilinear_attention(), c)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "modernbert"])
def test_mlps_of_checkpoints(kind: str) -> None:
    block = Model(tiny_model(kind)).blocks([5, 6, 7])[1]
    chart, u = ff.charts.token(block.mlp_input, 1, normal(2, 32, seed=22)), normal(3, 2, seed=23)
    found = ff.symmetry.weight_geometry(block.mlp, chart, u)
    expected = ff.StatisticalManifold(block.mlp, chart).at(u)
    agree(found.second_fundamental_form, expected.second_fundamental_form)
    agree(found.scalar_curvature, expected.scalar_curvature, expected.cancellation_scale)


def test_a_paraboloid_in_closed_form() -> None:
    """`(u, v) ↦ a (u² + v²)` beside the two coordinates has K = 4 a² / (1 + 4 a² (u² + v²))²."""
    a, e = 0.7, torch.eye(4, dtype=torch.float64)
    # a coordinate 1 that the chart does not move makes the linear outputs
    query, key = torch.stack([e[0], e[1], e[0], e[1]]), torch.stack([e[3], e[3], e[0], e[1]])
    mlp = BilinearAttention(query[:, None], key[:, None], torch.stack([e[0], e[1], a * e[2], a * e[2]]))
    chart = ff.charts.affine(e[3], e[:2])
    u = normal(7, 2)
    found = ff.symmetry.weight_geometry(mlp, chart, u).scalar_curvature / 2
    torch.testing.assert_close(found, 4 * a**2 / (1 + 4 * a**2 * u.square().sum(-1)) ** 2, rtol=1e-12, atol=0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="width 6"):
        ff.symmetry.weight_jet(layer("identity"), ff.charts.identity(5), torch.zeros(5))
    with pytest.raises(InputError, match="must end in an axis"):
        ff.symmetry.weight_jet(layer("identity"), VECTOR, torch.zeros(2))
    with pytest.raises(DegenerateImmersionError):
        ff.symmetry.weight_geometry(layer("identity"), ff.charts.affine(torch.zeros(6), normal(2, 6)), torch.zeros(2))
    for how, inputs, message in (("spline", normal(5, 6), '"fit"'), ("fit", normal(5, 5), "width 6")):
        with pytest.raises(InputError, match=message):
            ff.symmetry.bilinear_surrogate(layer("silu"), inputs, how=how)
    with pytest.raises(InputError, match=r"\[k, 6\]"):
        ff.symmetry.bilinear_surrogate(layer("silu"), normal(5, 6)).scalar_curvatures(normal(2, 5))


# -- the bilinear surrogate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["tangent", "fit"])
def test_a_bilinear_mlp_is_its_own_surrogate(how: str) -> None:
    for mlp in (layer("identity"), layer("identity", bias=True), attention(2)):
        surrogate = ff.symmetry.bilinear_surrogate(mlp, normal(50, 6, seed=30), how=how)
        assert surrogate.output_error < 1e-13
        assert surrogate.curvature_error(normal(2, 6, seed=31)) < 1e-9


def test_the_tangent_is_at_the_mean_preactivation() -> None:
    mlp, x = layer("silu", bias=True), normal(40, 6, seed=32)
    surrogate = ff.symmetry.bilinear_surrogate(mlp, x)
    z = mlp.gate(x).detach()
    typical, sigmoid = z.mean(0), torch.sigmoid(z.mean(0))
    slope = sigmoid + typical * sigmoid * (1 - sigmoid)
    torch.testing.assert_close(surrogate.slope, slope)
    scores = (typical * sigmoid + slope * (z - typical)) * mlp.up(x).detach()
    torch.testing.assert_close(surrogate.units(x), mlp.down(scores).detach())
    expected = mlp(x).detach()
    assert surrogate.output_error == pytest.approx(((mlp.down(scores) - expected).norm() / expected.norm()).item())


def test_a_fit_is_the_least_squares_solution_for_each_unit() -> None:
    mlp, x = layer("gelu"), normal(40, 6, seed=33)
    surrogate = ff.symmetry.bilinear_surrogate(mlp, x, how="fit")
    z, w = mlp.gate(x).detach(), mlp.up(x).detach()
    for i in range(5):
        columns = torch.stack([w[:, i], z[:, i] * w[:, i]], 1)
        target = torch.nn.functional.gelu(z[:, i]) * w[:, i]
        solution = torch.linalg.lstsq(columns, target[:, None])
        torch.testing.assert_close(torch.stack([surrogate.level[i], surrogate.slope[i]]), solution.solution[:, 0])
        error = (columns @ solution.solution[:, 0] - target).norm() / target.norm()
        torch.testing.assert_close(surrogate.unit_errors[i], error)


def test_the_tangent_error_falls_with_the_square_of_the_spread_of_the_inputs() -> None:
    mlp, centre, noise = layer("silu"), normal(6, seed=34), normal(60, 6, seed=35)
    basis = normal(2, 6, seed=36)
    errors = [ff.symmetry.bilinear_surrogate(mlp, centre + s * noise).output_error for s in (1e-2, 1e-3)]
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)
    # but the tangent forgets φ'', which bends the MLP however near the inputs are
    assert ff.symmetry.bilinear_surrogate(mlp, centre + 1e-3 * noise).curvature_error(basis) > 1e-3


def test_curvature_errors_are_those_of_the_engine_at_the_inputs() -> None:
    mlp, x, basis = layer("silu"), normal(5, 6, seed=37), normal(2, 6, seed=38)
    surrogate = ff.symmetry.bilinear_surrogate(mlp, x)
    zero = torch.zeros(2)
    exact, approximate = (
        torch.stack([ff.StatisticalManifold(f, ff.charts.affine(p, basis)).scalar_curvature(zero) for p in x])
        for f in (mlp, surrogate.units)
    )
    for found, expected in zip(surrogate.scalar_curvatures(basis), (exact, approximate), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    expected_error = (approximate - exact).abs().median() / exact.abs().median()
    assert surrogate.curvature_error(basis) == pytest.approx(expected_error.item())


@pytest.mark.parametrize("bits", [0, 20, 40])
def test_curvatures_of_surrogates_tell_their_errors_where_directions_are_nearly_parallel(bits: int) -> None:
    mlp, x = layer("silu"), normal(5, 6, seed=37)
    first, second = normal(2, 6, seed=38).mul(64).round().div(64)
    surrogate = ff.symmetry.bilinear_surrogate(mlp, x)
    basis, plain = (torch.stack([first, first + scale * second]) for scale in (2.0**-bits, 1.0))
    found, errors = surrogate.scalar_curvatures(basis), surrogate.scalar_curvature_errors(basis)
    for value, error, f in zip(found, errors, (mlp, surrogate.units), strict=True):
        charts = [ff.charts.affine(p, plain) for p in x]
        truth = torch.stack([ff.StatisticalManifold(f, c).scalar_curvature(torch.zeros(2)) for c in charts])
        assert ((value - truth).abs() <= error + 1e-13 * truth.abs()).all()
        assert (error < 1e-9 * truth.abs()).all()


def test_mlps_of_checkpoints_have_surrogates_that_are_read_like_bilinear_mlps() -> None:
    block = Model(tiny_model("llama")).blocks([5, 6, 7, 8, 9])[0]
    surrogate = ff.symmetry.bilinear_surrogate(block.mlp, block.mlp_input)
    c, x = normal(32, seed=40), block.mlp_input.double()
    features = ff.symmetry.eigenfeatures(surrogate.units, c)
    continued = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    projected = (continued @ features.vectors.T).square() @ features.eigenvalues
    torch.testing.assert_close(projected, surrogate.units(x) @ c)
    assert surrogate.unit_errors.shape == (48,)


@pytest.mark.parametrize("bits", [0, 20, 40])
def test_a_geometry_from_weights_tells_its_errors_on_charts_that_are_nearly_parallel_too(bits: int) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(5)
    mlp = ff.layers.GatedMLP(5, 12).double()
    point, first, second = torch.randn(3, 5, dtype=torch.float64, generator=generator).mul(64).round().div(64)
    chart = ff.charts.affine(point, torch.stack([first, first + 2.0**-bits * second]))
    plain = ff.charts.affine(point, torch.stack([first, second]))
    geometry = ff.symmetry.weight_geometry(mlp, chart, [[0.0, 0.0]])
    # the same plane: curvature does not depend on the coordinates; that of floats is off by as much as what is judged
    certificate = ff.certify(mlp, plain, at=[0.0, 0.0])
    assert certificate.enclosure is not None
    truth = 2 * float(certificate.enclosure[0])
    off = (geometry.scalar_curvature - truth).abs()
    assert (off <= geometry.error("scalar_curvature") + 1e-14 * abs(truth)).all()
    assert (geometry.error("scalar_curvature") < 1e-10 * abs(truth)).all()
