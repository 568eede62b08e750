"""Families beyond one covariance: reference values, closed forms, each other, sums over outcomes, what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from conftest import load_cases
from torch import Tensor
from torch.nn import functional as F

import fisherflat as ff
from fisherflat.errors import DegenerateImmersionError, DegenerateImmersionWarning, InputError, MapError
from fisherflat.spaces.families._exponential import _hessian

D = torch.float64
ENGINES = ("taylor", "autodiff")

FAMILIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "categorical": lambda said: ff.families.Categorical(),
    "bernoulli": lambda said: ff.families.Bernoulli(),
    "poisson": lambda said: ff.families.Poisson(),
    "diagonal_gaussian": lambda said: ff.families.DiagonalGaussian(),
    "isotropic_gaussian": lambda said: ff.families.IsotropicGaussian(),
    "full_gaussian": lambda said: ff.families.FullGaussian(said["dim"]),
    "von_mises_fisher": lambda said: ff.families.VonMisesFisher(),
    "von_mises_fisher_fixed": lambda said: ff.families.VonMisesFisher(said["concentration"]),
}
CASES = {case["name"]: case for case in load_cases("families.json")}


def tensor(values: Any) -> Tensor:
    return torch.tensor(json.loads(json.dumps(values).replace('"', "")), dtype=D)


def surface(case: dict[str, Any]) -> tuple[Callable[[Tensor], Tensor], Any]:
    if case["kind"] == "formula":
        return (lambda u: u), ff.charts.identity(len(case["components"]))
    gate, up, down = (tensor(case[name]) for name in ("Wg", "Wu", "Wd"))
    activation = getattr(F, case["activation"])
    return (lambda x: (activation(x @ gate) * (x @ up)) @ down), ff.charts.affine(case["point"], case["basis"])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def mlp(inputs: int, outputs: int, seed: int = 0) -> Callable[[Tensor], Tensor]:
    first, second = random(inputs, 5, seed=seed), random(5, outputs, seed=seed + 1)
    return lambda x: torch.tanh(x @ first) @ second / 2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CASES)
def test_reference_values(name: str, engine: str) -> None:
    case = CASES[name]
    mean, chart = surface(case)
    manifold = ff.StatisticalManifold(mean, chart, FAMILIES[case["family"]["name"]](case["family"]), engine=engine)
    for quantity, values in case["expected"].items():
        if quantity == "value":
            continue
        right, got = tensor(values), getattr(manifold, quantity)(case["at"])
        assert (got - right).abs().max() <= 1e-12 * right.abs().max() + 1e-13, quantity


# -- closed forms ------------------------------------------------------------------------------------------------------

BITS = torch.tensor([[n >> b & 1 for n in range(8)] for b in range(3)], dtype=D)
LUMPED = F.one_hot(torch.tensor([0, 1, 1, 2, 3, 3, 3, 0])).to(D).T

#: name -> map of u, k, family, scalar curvature
CLOSED: dict[str, tuple[Callable[[Tensor], Tensor], int, Any, float]] = {
    "the simplex of 5 classes": (lambda u: F.pad(u, (0, 1)), 4, ff.families.Categorical(), 3.0),
    "8 tokens that are 4 classes": (lambda u: F.pad(u, (0, 1)) @ LUMPED, 3, ff.families.Categorical(), 1.5),
    "three independent bits": (lambda u: u @ BITS, 3, ff.families.Categorical(), 0.0),
    "two independent simplices": (lambda u: F.pad(u.reshape(2, 2), (0, 1)), 4, ff.families.Categorical(), 1.0),
    "Bernoulli variables": (lambda u: u, 3, ff.families.Bernoulli(), 0.0),
    "Poisson variables": (lambda u: u, 3, ff.families.Poisson(), 0.0),
    "normals": (lambda u: u, 2, ff.families.DiagonalGaussian(), -1.0),
    "three normals": (lambda u: u, 6, ff.families.DiagonalGaussian(), -3.0),
    "normals in rows": (lambda u: u.reshape(2, 2), 4, ff.families.DiagonalGaussian(), -2.0),
    "isotropic normals": (lambda u: u, 4, ff.families.IsotropicGaussian(), -2.0),
    "bivariate normals": (lambda u: u, 5, ff.families.FullGaussian(2), -4.5),
    "directions": (lambda u: torch.cat([u, torch.ones(1, dtype=D)]), 2, ff.families.VonMisesFisher(3.0), 0.99260),
    "directions with a spread": (
        lambda u: torch.stack([u[0], u[1], 2 + u[2]]),
        3,
        ff.families.VonMisesFisher(),
        -0.44799,
    ),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms(name: str, engine: str) -> None:
    mean, k, family, scalar = CLOSED[name]
    at = torch.zeros(k, dtype=D) if "directions" in name else 0.5 * random(k)
    manifold = ff.StatisticalManifold(mean, ff.charts.identity(k), family, engine=engine)
    rounded = name.startswith("directions")
    assert manifold.scalar_curvature(at).item() == pytest.approx(scalar, abs=6e-6 if rounded else 1e-11)


def test_the_moving_direction_in_three_dimensions_by_hyperbolic_functions() -> None:
    """`A = coth c - 1 / c`: metric `A' dc^2 + c A |dn|^2`, at small, middle and large concentrations."""
    chart = ff.charts.affine([0.0, 0.0, 0.0], torch.eye(3))
    manifold = ff.StatisticalManifold(lambda y: y, chart, ff.families.VonMisesFisher())
    for c in (0.05, 1.0, 30.0, 300.0):
        metric = manifold.metric([0.0, 0.0, c])
        resultant = 1 / math.tanh(c) - 1 / c if c > 0.1 else c / 3 - c**3 / 45 + 2 * c**5 / 945
        spread = 1 / c**2 - 1 / math.sinh(c) ** 2 if c > 0.1 else 1 / 3 - c**2 / 15 + 2 * c**4 / 189
        right = torch.diag(torch.tensor([resultant / c, resultant / c, spread], dtype=D))
        torch.testing.assert_close(metric, right, rtol=1e-7 if c < 0.1 else 1e-12, atol=1e-14)


# -- each other --------------------------------------------------------------------------------------------------------

CHART = ff.charts.affine(random(4, seed=7), random(3, 4, seed=8))
U = 0.3 * random(6, 3, seed=9)
WHOLE = ["metric", "christoffel", "scalar_curvature", "riemann", "amari_chentsov"]


def same(first: tuple[Any, Any], second: tuple[Any, Any], quantities: list[str] = WHOLE, rtol: float = 1e-10) -> None:
    asked = [*quantities, "cancellation_scale"]
    found = [ff.StatisticalManifold(mean, CHART, family).measure(U, asked) for mean, family in (first, second)]
    for name in quantities:
        scale = float(found[1][name].abs().max())
        if name == "scalar_curvature":  # what is flat in one family may cancel in the other
            scale = max(float(one["cancellation_scale"].max()) for one in found)
        torch.testing.assert_close(found[0][name], found[1][name], rtol=rtol, atol=rtol * scale + 1e-12)


def test_two_classes_are_a_bernoulli_variable() -> None:
    f = mlp(4, 3)
    same(
        (lambda x: torch.stack([f(x), torch.zeros(3, dtype=D)], -1), ff.families.Categorical()),
        (f, ff.families.Bernoulli()),
    )


def test_bernoulli_variables_are_classes_of_their_outcomes() -> None:
    f = mlp(4, 3)
    same((lambda x: f(x) @ BITS, ff.families.Categorical()), (f, ff.families.Bernoulli()))


def test_a_pair_of_outputs_is_one_tensor() -> None:
    f = mlp(4, 6)
    same((lambda x: f(x).chunk(2), ff.families.DiagonalGaussian()), (f, ff.families.DiagonalGaussian()))


def test_a_full_gaussian_with_a_diagonal_factor_is_a_diagonal_one() -> None:
    f = mlp(4, 6)

    def full(x: Tensor) -> Tensor:
        m, t = f(x).chunk(2)
        zero = torch.zeros(1, dtype=D)
        return torch.cat([m, t[:1], zero, t[1:2], zero, zero, t[2:]])

    same((full, ff.families.FullGaussian(3)), (f, ff.families.DiagonalGaussian()))


def test_an_isotropic_gaussian_is_a_diagonal_one_with_equal_entries() -> None:
    f = mlp(4, 4)

    def diagonal(x: Tensor) -> Tensor:
        y = f(x)
        return torch.cat([y[:3], y[3:].expand(3)])

    same((f, ff.families.IsotropicGaussian()), (diagonal, ff.families.DiagonalGaussian()))


def test_one_standard_deviation_for_all_is_the_gaussian() -> None:
    f, sigma = mlp(4, 6), torch.tensor([0.5, 1.0, 2.0, 3.0, 0.25, 1.5], dtype=D)
    moving = lambda x: torch.cat([f(x), sigma.log()])  # noqa: E731
    quantities = ["metric", "christoffel", "scalar_curvature", "riemann"]
    same((moving, ff.families.DiagonalGaussian()), (f, ff.Gaussian(sigma.square())), quantities)


def test_the_same_distributions_in_other_parameters() -> None:
    """Mean and logarithm of the deviation, and natural parameters."""
    f = mlp(4, 6)

    def natural(x: Tensor) -> Tensor:
        m, t = f(x).chunk(2)
        return torch.stack([m * (-2 * t).exp(), -(-2 * t).exp() / 2], -1)

    def partition(theta: Tensor) -> Tensor:
        return -(theta[..., 0] ** 2) / (4 * theta[..., 1]) - (-2 * theta[..., 1]).log() / 2

    same((natural, ff.families.ExponentialFamily(partition)), (f, ff.families.DiagonalGaussian()), rtol=1e-9)


@pytest.mark.parametrize(
    ("partition", "family"), [(F.softplus, ff.families.Bernoulli()), (torch.exp, ff.families.Poisson())]
)
def test_exponential_families_of_independent_variables(partition: Any, family: Any) -> None:
    f = mlp(4, 3)
    same((f, ff.families.ExponentialFamily(partition)), (f, family))


def test_classes_are_an_exponential_family_once_a_logit_is_fixed() -> None:
    f, zero = mlp(4, 3), torch.zeros(1, dtype=D)
    partition = lambda t: torch.cat([t, zero]).logsumexp(-1)  # noqa: E731
    same((f, ff.families.ExponentialFamily(partition)), (lambda x: F.pad(f(x), (0, 1)), ff.families.Categorical()))


# -- moments -----------------------------------------------------------------------------------------------------------


def scores(logits: Callable[[Tensor], Tensor], u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities `[V]`, first `[V, k]` and second derivatives `[V, k, k]` of their logarithms, by autodiff."""
    log = lambda v: logits(v).log_softmax(-1)  # noqa: E731
    jacobian = torch.func.jacrev(log)
    return log(u).exp(), jacobian(u), torch.func.jacrev(jacobian)(u)


def test_moments_of_the_scores_of_classes() -> None:
    f = mlp(4, 5)
    manifold = ff.StatisticalManifold(f, CHART, ff.families.Categorical())
    p, first, _ = scores(lambda v: f(CHART(v)), U[0])
    torch.testing.assert_close(manifold.metric(U[0]), torch.einsum("v,vi,vj->ij", p, first, first))
    torch.testing.assert_close(manifold.amari_chentsov(U[0]), torch.einsum("v,vi,vj,vk->ijk", p, first, first, first))


def test_dual_connections_are_dual() -> None:
    """`d_l g_ij = G^(a)_li,j + G^(-a)_lj,i`, the derivative by differences of the metric."""
    for family, outputs in ((ff.families.Categorical(), 5), (ff.families.FullGaussian(2), 5)):
        manifold = ff.StatisticalManifold(mlp(4, outputs), CHART, family)
        metric, h = manifold.metric(U[0]), 1e-5
        steps = h * torch.eye(3, dtype=D)
        slope = (manifold.metric(U[0] + steps) - manifold.metric(U[0] - steps)) / (2 * h)  # [l, i, j]
        lowered = [torch.einsum("mli,mj->lij", manifold.alpha_connection(U[0], a), metric) for a in (0.7, -0.7)]
        torch.testing.assert_close(slope, lowered[0] + lowered[1].transpose(1, 2), rtol=1e-6, atol=1e-8)


def test_the_exponential_connection_vanishes_in_natural_parameters() -> None:
    for family in (ff.families.Bernoulli(), ff.families.Poisson(), ff.families.ExponentialFamily(F.softplus)):
        manifold = ff.StatisticalManifold(lambda z: z, ff.charts.identity(3), family)
        assert manifold.alpha_connection(U[0], 1).abs().max() < 1e-12
    line = ff.charts.affine(random(5), random(1, 5, seed=1))
    assert ff.StatisticalManifold(lambda z: z, line, ff.families.Categorical()).efron_curvature([0.3]).item() < 1e-12


def test_efrons_curvature_from_the_moments_of_the_score() -> None:
    """Efron (1975): `(n02 n20 - n11^2) / n20^3`, `n_ij = E[l'^i (l'' + n20)^j]`."""
    f, line = mlp(4, 5), ff.charts.affine(random(4, seed=7), random(1, 4, seed=8))
    p, first, second = (t.reshape(5) for t in scores(lambda v: f(line(v)), torch.tensor([0.2], dtype=D)))
    n20 = (p * first**2).sum()
    n11, n02 = (p * first * (second + n20)).sum(), (p * (second + n20) ** 2).sum()
    right = (((n02 * n20 - n11**2) / n20**3).sqrt()).item()
    got = ff.StatisticalManifold(f, line, ff.families.Categorical()).efron_curvature([0.2]).item()
    assert got == pytest.approx(right, rel=1e-10)
    circle = lambda u: 3 * torch.stack([u[0].cos(), u[0].sin()])  # noqa: E731
    assert ff.StatisticalManifold(circle, ff.charts.identity(1)).efron_curvature([0.4]).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("excess", [5.0, 12.9, 27.0, 100.0])
def test_confident_classifiers_keep_their_digits(excess: float) -> None:
    """One class takes nearly all: the metric from the probabilities in 60 digits."""
    import mpmath

    logits = torch.tensor([excess, 0.3, -0.2, 0.1], dtype=D)
    chart = ff.charts.affine(logits, torch.eye(4)[:2])
    got = ff.StatisticalManifold(lambda z: z, chart, ff.families.Categorical()).metric([0.0, 0.0])
    with mpmath.workdps(60):
        weights = [mpmath.e ** mpmath.mpf(z) for z in logits.tolist()]
        p = [w / mpmath.fsum(weights) for w in weights]
        right = [[float(p[i] * ((i == j) - p[j])) for j in (0, 1)] for i in (0, 1)]
    torch.testing.assert_close(got, torch.tensor(right, dtype=D), rtol=1e-13, atol=0)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "shape", "said"),
    [
        (ff.families.Categorical(), (3, 1), "at least 2 numbers; the map's outputs have shape \\[3, 1\\]"),
        (ff.families.DiagonalGaussian(), (5,), "odd length"),
        (ff.families.IsotropicGaussian(), (1,), "at least 2 numbers"),
        (ff.families.FullGaussian(2), (6,), "takes 5 numbers in the last axis"),
        (ff.families.VonMisesFisher(1.0), (1,), "at least 2 numbers"),
        (ff.families.Categorical(), (2,), "only 1 dimensions"),
    ],
)
def test_outputs_that_are_no_parameters(family: Any, shape: tuple[int, ...], said: str) -> None:
    weights = random(2, math.prod(shape))
    with pytest.raises(InputError, match=said):
        ff.StatisticalManifold(lambda u: (u @ weights).reshape(shape), ff.charts.identity(2), family)


def test_arguments_that_make_no_family() -> None:
    for make in (
        lambda: ff.families.FullGaussian(0),
        lambda: ff.families.VonMisesFisher(-1.0),
        lambda: ff.families.VonMisesFisher(1e9),
    ):
        with pytest.raises(InputError):
            make()


def test_points_outside_of_a_family() -> None:
    concave = ff.families.ExponentialFamily(lambda t: -(t**2).sum())
    with pytest.raises(MapError, match="not strictly convex"):
        ff.StatisticalManifold(lambda u: u, ff.charts.identity(2), concave).metric([0.0, 0.0])
    spread = ff.StatisticalManifold(lambda u: u, ff.charts.identity(2), ff.families.DiagonalGaussian())
    with pytest.raises(MapError, match="not finite"):
        spread.metric([0.0, -1e4])


@pytest.mark.parametrize(
    ("family", "sizes", "said"),
    [
        (ff.families.DiagonalGaussian(), (4, 2), "as many logarithms"),
        (ff.families.DiagonalGaussian(), (2, 2, 2), "as many logarithms"),
        (ff.families.IsotropicGaussian(), (2, 2), "one logarithm"),
        (ff.families.FullGaussian(2), (3, 2), "2 means and the 3 entries"),
        (ff.families.Categorical(), (3, 3), "takes one tensor; the map returned"),
        (ff.families.VonMisesFisher(), (3, 1), "takes one tensor; the map returned"),
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_several_outputs_that_are_no_parameters(family: Any, sizes: tuple[int, ...], said: str, engine: str) -> None:
    """Joined they would have a length that fits, and be read as something else."""
    weights = [random(2, size, seed=size) for size in sizes]
    with pytest.raises(MapError, match=said):
        ff.StatisticalManifold(lambda u: [u @ w for w in weights], ff.charts.identity(2), family, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_spreads_that_are_no_numbers(bad: float, engine: str) -> None:
    for family in (ff.families.DiagonalGaussian(), ff.families.IsotropicGaussian()):
        spread = torch.tensor([bad], dtype=D)
        manifold = ff.StatisticalManifold(
            lambda u, s=spread: torch.cat([u[:1].sin(), u[1:] + s]), ff.charts.identity(2), family, engine=engine
        )
        with pytest.raises((MapError, DegenerateImmersionError)):
            manifold.scalar_curvature([0.3, 0.1])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("family", "outputs"),
    [
        (ff.families.Categorical(), lambda u: F.pad(u, (0, 1))),
        (ff.families.NextToken(torch.eye(3, dtype=D)), lambda u: F.pad(u, (0, 1))),
        (ff.families.Bernoulli(), lambda u: torch.cat([u, u.prod()[None]])),
    ],
)
@pytest.mark.parametrize("gap", [750.0, 2000.0, 1e6])
def test_saturated_probabilities(family: Any, outputs: Any, gap: float, engine: str) -> None:
    chart = ff.charts.affine([-gap, -gap - 1], torch.eye(2))
    manifold = ff.StatisticalManifold(outputs, chart, family, engine=engine)
    with pytest.raises(DegenerateImmersionError, match="saturated, 1 - p is"):
        manifold.scalar_curvature([0.0, 0.0])
    tolerant = ff.StatisticalManifold(outputs, chart, family, engine=engine, degenerate="nan")
    with pytest.warns(DegenerateImmersionWarning, match="2 of 2 points"):
        assert tolerant.scalar_curvature([[0.0, 0.0], [1.0, 1.0]]).isnan().all()


@pytest.mark.parametrize("gap", [100.0, 500.0, 700.0])
def test_nearly_saturated_probabilities_keep_their_digits(gap: float) -> None:
    """The whole simplex of three classes has scal 1/2 also in its corners."""
    chart = ff.charts.affine([-gap, -gap - 1], torch.eye(2))
    for family in (ff.families.Categorical(), ff.families.NextToken(torch.eye(3, dtype=D))):
        manifold = ff.StatisticalManifold(lambda u: F.pad(u, (0, 1)), chart, family)
        found = manifold.measure([0.0, 0.0], ["scalar_curvature", "uncertainty", "relative_curvature"])
        assert found["scalar_curvature"].item() == pytest.approx(0.5, rel=1e-12)
        rest = math.exp(-gap) + math.exp(-gap - 1)
        assert found["uncertainty"].item() == pytest.approx(rest, rel=1e-12)
        assert found["relative_curvature"].item() == pytest.approx(rest, rel=1e-12)  # 4 (1 - p) / 4


def test_the_likeliest_of_several_independent_outcomes() -> None:
    logits, bits = random(2, 3), random(4, seed=1)
    classes = ff.StatisticalManifold(lambda u: logits * (1 + u), ff.charts.identity(1), ff.families.Categorical())
    p = logits.softmax(-1).amax(-1).prod()
    assert classes.at([0.0]).uncertainty.item() == pytest.approx(1 - p.item(), rel=1e-12)
    yes = ff.StatisticalManifold(lambda u: bits + u, ff.charts.identity(1), ff.families.Bernoulli())
    q = torch.maximum(bits.sigmoid(), 1 - bits.sigmoid()).prod()
    assert yes.at([0.0]).uncertainty.item() == pytest.approx(1 - q.item(), rel=1e-12)
    gaussian = ff.StatisticalManifold(lambda u: torch.cat([u, u**2]), ff.charts.identity(1))
    assert gaussian.at([0.0]).uncertainty.isnan()


@pytest.mark.parametrize("concentration", [0.3, 1.7, 25.6, 901.1])  # none of which single precision has
@pytest.mark.parametrize("size", [3, 5])
def test_directions_are_a_sphere_to_all_digits_at_any_concentration(concentration: float, size: int) -> None:
    order, c = mpmath.mpf(size) / 2, mpmath.mpf(concentration)
    with mpmath.workdps(40):
        square = float(c * mpmath.besseli(order, c) / mpmath.besseli(order - 1, c))
    point, basis = torch.ones(size, dtype=D), torch.eye(size, dtype=D)[:2]
    family = ff.families.VonMisesFisher(concentration)
    manifold = ff.StatisticalManifold(lambda y: y, ff.charts.affine(point, basis), family)
    assert manifold.scalar_curvature([0.0, 0.0]).item() == pytest.approx(2 / square, rel=1e-12)
    again = ff.families.VonMisesFisher.of_radius(square**0.5, size).concentration
    assert again == pytest.approx(concentration, rel=1e-10 * max(1, concentration / 10))


PLACES = torch.tensor([[-0.7, 0.4], [0.2, 0.3], [-0.1, -0.6]], dtype=D)


@pytest.mark.parametrize(
    ("family", "mean", "why"),
    [
        (  # a rate that is negative has a finite metric, and yet is none
            ff.families.ExponentialFamily(lambda t: -(-t).log()),
            lambda u: torch.stack([u[0], u[1] ** 2 + u[0] - 1]),
            "not finite or not strictly convex",
        ),
        (
            ff.families.ExponentialFamily(lambda t: (t**3).sum()),
            lambda u: torch.stack([-u[0], 1 + u[1] ** 2]),
            "not strictly convex",
        ),
        (
            ff.families.VonMisesFisher(),
            lambda u: torch.stack([u[0] * 0 + 2, u[1], (30 * u[0]).exp() + u[0]]),
            "concentration, is 4.03e",
        ),
    ],
)
def test_a_point_outside_of_a_family_is_said_and_spoils_no_other(
    family: Any, mean: Callable[[Tensor], Tensor], why: str
) -> None:
    """The second of three."""
    places = torch.where(torch.tensor([False, True, False])[:, None], PLACES.abs(), PLACES)
    places[1, 0] = 0.2 if "4.03e" not in why else math.log(40300.0) / 30
    chart = ff.charts.identity(2)
    with pytest.raises(MapError, match=rf"no parameters of the family at u = .*{why}"):
        ff.StatisticalManifold(mean, chart, family).scalar_curvature(places)
    with pytest.warns(DegenerateImmersionWarning, match="1 of 3"):
        found = ff.StatisticalManifold(mean, chart, family, degenerate="nan").measure(
            places, ["scalar_curvature", "metric"]
        )
    right = ff.StatisticalManifold(mean, chart, family).measure(places[[0, 2]], ["scalar_curvature", "metric"])
    assert found["scalar_curvature"].isnan().tolist() == [False, True, False]
    for name, value in right.items():
        torch.testing.assert_close(found[name][[0, 2]], value, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("log_partition", "why"),
    [
        (lambda t: "x", "it returned str"),
        (lambda t: float(t.detach().sum()), "it returned float"),
        (lambda t: t.to(torch.complex128), "it returned torch.complex128"),
        (lambda t: t[7], r"failed on natural parameters of shape \[3\] and torch.float64: IndexError"),
    ],
)
def test_log_partition_functions_that_are_none(log_partition: Any, why: str) -> None:
    family = ff.families.ExponentialFamily(log_partition)
    with pytest.raises(MapError, match=why):
        ff.StatisticalManifold(mlp(2, 3), ff.charts.identity(2), family).metric([0.1, 0.2])


@pytest.mark.parametrize(
    ("log_partition", "columns"),
    [
        (lambda t: t.exp(), 1),  # independent parameters
        (lambda t: F.pad(t, (0, 1)).logsumexp(-1), 4),  # independent rows
        (lambda t: (t @ t.T).exp().sum() + t.square().sum(), 12),  # neither
        (lambda t: t.exp().sum() + 1e-3 * (t[0, 0] + t[2, 3]).square(), 12),  # all but one pair
    ],
)
def test_independent_parameters_are_found_and_nothing_else_is_taken_for_them(log_partition: Any, columns: int) -> None:
    """Against the metric that `torch.func` makes of the whole function, and curvature by the textbook."""
    family, mean = ff.families.ExponentialFamily(log_partition), mlp(2, 12)
    M = ff.StatisticalManifold(lambda u: mean(u).reshape(3, 4), ff.charts.identity(2), family)
    at = torch.tensor([0.3, -0.5], dtype=D)

    def pulled(u: Tensor) -> Tensor:
        jacobian = torch.func.jacrev(mean)(u)
        hessian = torch.func.jacrev(torch.func.jacrev(lambda t: log_partition(t.reshape(3, 4)).sum()))(mean(u))
        return jacobian.T @ hessian @ jacobian

    torch.testing.assert_close(M.metric(at), pulled(at), rtol=1e-12, atol=1e-13)
    slopes = torch.func.jacrev(pulled)(at)  # [i, j, l]
    lowered = (slopes + slopes.mT - torch.einsum("ijm->mij", slopes)) / 2
    symbols = torch.linalg.solve(pulled(at), lowered.flatten(1)).reshape(2, 2, 2)
    torch.testing.assert_close(M.christoffel(at), symbols, rtol=1e-10, atol=1e-11)
    framed = family.framed(M.jet(at[None]), (3, 4))
    assert framed.coefficients.shape == (1, 6, 12)
    theta = mean(at)[None].requires_grad_()
    slope = torch.autograd.grad(log_partition(theta.reshape(3, 4)).sum(), theta, create_graph=True)[0]
    assert _hessian(slope, theta, 4).shape == (1, 12 // columns, columns, columns)
