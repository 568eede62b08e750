"""The manifold: batches and chunks, precision, and modules as they are found."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from cases.closeness import assert_same
from cases.maps import double
from cases.surfaces import plane, random, torus
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import (
    InputError,
    MapError,
    OutOfMemoryError,
    PrecisionWarning,
    TraceError,
)

ENGINES = ("taylor", "autodiff")
QUANTITIES = ("metric", "christoffel", "second_fundamental_form", "riemann", "ricci", "scalar_curvature")
QUANTITIES += ("mean_curvature", "volume_density")

pytestmark = pytest.mark.parametrize("engine", ENGINES)


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (2, 1, 2)])
def test_quantities_keep_the_leading_shape_and_each_point_is_its_own(shape: tuple[int, ...], engine: str) -> None:
    surface, u = torus(engine), random(*shape, 2)
    points = [surface.at(point) for point in u.reshape(-1, 2)]
    for name in QUANTITIES:
        together, alone = getattr(surface, name)(u), torch.stack([getattr(point, name) for point in points])
        assert together.shape[: len(shape)] == shape
        torch.testing.assert_close(together.reshape(alone.shape), alone, rtol=1e-13, atol=1e-13)
    assert surface.jet(u).coefficients.shape == (*shape, 6, 3)


def test_layouts_are_those_of_the_documentation(engine: str) -> None:
    surface, u = torus(engine), random(4, 2)
    shapes = {name: tuple(getattr(surface, name)(u).shape[1:]) for name in QUANTITIES}
    k, ambient = 2, 3
    assert shapes == {
        "metric": (k, k),
        "christoffel": (k, k, k),
        "second_fundamental_form": (k, k, ambient),
        "riemann": (k, k, k, k),
        "ricci": (k, k),
        "scalar_curvature": (),
        "mean_curvature": (ambient,),
        "volume_density": (),
    }
    assert (surface.k, surface.ambient_dim) == (k, ambient)


def test_jets_are_of_the_mean_itself_and_outputs_of_any_shape_are_flattened(engine: str) -> None:
    def f(x: Tensor) -> Tensor:
        return torch.stack([x[0] ** 2, x[0] * x[1], x[1], 3 * x[1]]).reshape(2, 1, 2)

    surface = ff.StatisticalManifold(f, ff.charts.identity(2), ff.Gaussian(100.0), engine=engine)
    jet = surface.jet([2.0, 5.0])
    assert jet.value.tolist() == [4, 10, 5, 15]
    assert jet.jacobian.tolist() == [[4, 5, 0, 0], [0, 2, 1, 3]]
    assert jet.hessian.tolist() == [[[2, 0, 0, 0], [0, 1, 0, 0]], [[0, 1, 0, 0], [0, 0, 0, 0]]]
    # in the family's units: lengths are shorter by the standard deviation
    torch.testing.assert_close(surface.metric([2.0, 5.0]), double([[0.41, 0.1], [0.1, 0.14]]), rtol=1e-14, atol=0)


def test_tangent_vectors_may_be_one_for_all_points_or_one_for_each(engine: str) -> None:
    surface, u = torus(engine), random(3, 2)
    x, y = random(3, 2, seed=1), random(2, seed=2)
    gauss = surface.scalar_curvature(u) / 2
    torch.testing.assert_close(surface.sectional_curvature(u, x, y), gauss, rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(surface.sectional_curvature(u[0], x, y), gauss[:1].expand(3), rtol=1e-11, atol=1e-14)
    with pytest.raises(InputError, match=r"\[3, 2\] and \[4, 2\] and \[2\] do not fit together"):
        surface.sectional_curvature(u, random(4, 2), y)
    with pytest.raises(InputError, match=r"x must end in an axis of length k = 2; it has shape \[3\]"):
        surface.sectional_curvature(u, [1.0, 0.0, 0.0], y)
    with pytest.raises(InputError, match="y holds 1 NaN"):
        surface.sectional_curvature(u, x, [0.0, float("nan")])
    with pytest.raises(InputError, match="span no plane"):
        surface.sectional_curvature(u, y, 2 * y)


def test_all_quantities_at_once_are_those_one_by_one(engine: str) -> None:
    surface, u = torus(engine), random(2, 3, 2)
    geometry, measured = surface.at(u), surface.measure(u, QUANTITIES)
    for name in QUANTITIES:
        expected = getattr(surface, name)(u)
        for found in (measured[name], getattr(geometry, name)):
            torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-14)
    with pytest.raises(InputError, match="'torsion' is not a quantity of Geometry; the known ones are metric, "):
        surface.measure(u, ["metric", "torsion"])


def test_text(engine: str) -> None:
    expected = f"StatisticalManifold(Linear, Chart(affine, k=2, shape=[3]), Gaussian(0.5), D=4, engine='{engine}')"
    manifold = ff.StatisticalManifold(nn.Linear(3, 4), plane(3), ff.Gaussian(0.5), engine=engine)
    assert repr(manifold) == expected
    assert repr(manifold.jet(random(5, 2))) == "Jet(points=[5], k=2, D=4)"
    assert repr(manifold.at([0.0, 0.0])) == "Geometry(points=[], k=2, D=4)"


# -- memory ------------------------------------------------------------------------------------------------------------


def test_chunks_change_nothing(engine: str) -> None:
    u = random(7, 2)
    surface = torus(engine)
    in_chunks = torus(engine, memory=3 * surface.engine.bytes_per_point).measure(u, QUANTITIES)
    for name, expected in surface.measure(u, QUANTITIES).items():
        torch.testing.assert_close(in_chunks[name], expected, rtol=1e-13, atol=1e-14)
    x, y = random(7, 2, seed=1), random(7, 2, seed=2)
    chunked = torus(engine, memory=surface.engine.bytes_per_point).sectional_curvature(u, x, y)
    torch.testing.assert_close(chunked, surface.sectional_curvature(u, x, y), rtol=1e-13, atol=1e-14)


class Limited:
    """An engine that runs out of memory beyond so many points."""

    bytes_per_point = 1000

    def __init__(self, engine: Any, most: int, error: BaseException) -> None:
        self.engine, self.most, self.error, self.sizes = engine, most, error, []
        self.chunk_memory = engine.chunk_memory

    def jet(self, u: Tensor) -> Tensor:
        self.sizes.append(len(u))
        if len(u) > self.most:
            raise self.error
        return self.engine.jet(u)


def allocation_error() -> BaseException:
    """What torch really raises on this machine for 2^60 bytes, beyond any address space."""
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except Exception as error:
        return error
    raise AssertionError("2^60 bytes were allocated")


@pytest.mark.parametrize("error", [MemoryError(), torch.cuda.OutOfMemoryError("full"), allocation_error()], ids=repr)
def test_out_of_memory_halves_the_chunk_and_goes_on(error: BaseException, engine: str) -> None:
    surface, u = torus(engine), random(10, 2)
    expected = surface.scalar_curvature(u)
    surface.__dict__["engine"] = limited = Limited(surface.engine, 3, error)
    torch.testing.assert_close(surface.scalar_curvature(u), expected, rtol=1e-13, atol=1e-14)
    assert limited.sizes == [10, 5, 2, 2, 2, 2, 2]


def test_a_budget_bounds_the_chunks(engine: str) -> None:
    surface = torus(engine, memory=4500)
    surface.__dict__["engine"] = limited = Limited(surface.engine, 99, MemoryError())
    surface.metric(random(10, 2))
    assert limited.sizes == [4, 4, 2]


def test_a_point_that_does_not_fit_is_an_error_of_ours_and_others_pass(engine: str) -> None:
    surface, u = torus(engine), random(4, 2)
    original = surface.engine
    surface.__dict__["engine"] = Limited(original, 0, MemoryError())
    with pytest.raises(OutOfMemoryError, match=r"one point needs about .* use dtype=torch.float32, fewer coordinates"):
        surface.metric(u)
    for error in (RuntimeError("shapes differ"), KeyboardInterrupt()):
        surface.__dict__["engine"] = limited = Limited(original, 0, error)
        with pytest.raises(type(error)) as raised:
            surface.metric(u)
        assert raised.value is error and limited.sizes == [4]  # not tried again


# -- precision and devices ---------------------------------------------------------------------------------------------


def test_float32_on_request(engine: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 5)).double()
    u = 0.1 * random(8, 2)
    exact = ff.StatisticalManifold(module, plane(4), engine=engine).at(u)
    for weights in (module, module.float()):
        single = ff.StatisticalManifold(weights, plane(4), engine=engine, dtype=torch.float32).at(u)
        assert single.metric.dtype == single.scalar_curvature.dtype == torch.float32
        error = (single.scalar_curvature.double() - exact.scalar_curvature).abs()
        assert (error <= 1e-4 * exact.cancellation_scale).all() and (error > 0).any()


def test_the_weights_of_a_float32_module_are_promoted_in_a_copy(engine: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 4))
    module[2].weight = module[0].weight  # tied weights have one name among the parameters, and two places
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)  # float32 is promoted exactly, so there is nothing to say
        single = ff.StatisticalManifold(module, plane(3), engine=engine).riemann([0.1, 0.2])
    assert single.dtype == torch.float64
    assert all(p.dtype == torch.float32 and p.grad is None for p in module.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    torch.testing.assert_close(
        single, ff.StatisticalManifold(module.double(), plane(3), engine=engine).riemann([0.1, 0.2]), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_promoted_with_a_note(dtype: torch.dtype, engine: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh()).to(dtype)
    with pytest.warns(PrecisionWarning, match="2 weights are in half precision and are promoted to torch.float64"):
        surface = ff.StatisticalManifold(module, plane(3), engine=engine)
    with pytest.warns(PrecisionWarning, match=f"u has dtype {dtype}") as noted:
        half = surface.at(torch.tensor([0.5, 0.25], dtype=dtype))
    assert len(noted) == 1
    exact = ff.StatisticalManifold(module.double(), plane(3), engine=engine).at([0.5, 0.25])
    torch.testing.assert_close(half.riemann, exact.riemann, rtol=1e-12, atol=0)


def test_results_carry_no_gradient_and_the_chart_is_left_alone(engine: str) -> None:
    chart = plane(3)
    point, basis = chart.point.clone(), chart.basis.clone()
    u = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
    for mean in (module, lambda x: x.mul_(2)):  # the second writes into its input
        surface = ff.StatisticalManifold(mean, chart, engine=engine)
        assert not surface.metric(u).requires_grad
        assert torch.equal(chart.point, point) and torch.equal(chart.basis, basis) and not chart.point.requires_grad
    with torch.inference_mode():
        inside = [ff.StatisticalManifold(module, c, engine=engine).metric([0.0, 0.0]) for c in (chart, plane(3))]
    for metric in inside:
        assert_same(metric.clone(), ff.StatisticalManifold(module, chart, engine=engine).metric(u))


def test_a_module_on_another_device_is_refused(engine: str) -> None:
    module = nn.Linear(3, 4, device="meta")
    with pytest.raises(MapError, match="weight 'weight' is on meta, the chart on cpu; move one of them"):
        ff.StatisticalManifold(module, plane(3), engine=engine)
    u = torch.zeros(2)
    assert torus(engine).metric(u).device == ff.charts.identity(2).to("cpu").point.device


# -- modules in training -----------------------------------------------------------------------------------------------


def test_a_module_in_training_is_evaluated_and_left_as_it_was(engine: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, 4)).double()
    for _ in range(3):
        module(torch.randn(8, 3, dtype=torch.float64))  # running statistics that are not the initial ones
    module[3].eval()  # one part is not in training
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}

    def row(x: Tensor) -> Tensor:
        return module(x[None])[0]

    chart = ff.charts.affine(random(1, 3), random(2, 1, 3, seed=1))
    found = ff.StatisticalManifold(module, chart, engine=engine).at([[0.1, 0.2], [0.3, 0.0]])
    assert [part.training for part in module] == [True, True, True, False, True] and module.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    module.eval()
    evaluated = ff.charts.affine(chart.point[0], chart.basis[:, 0])
    expected = ff.StatisticalManifold(row, evaluated, engine=engine).at([[0.1, 0.2], [0.3, 0.0]])
    torch.testing.assert_close(found.riemann, expected.riemann, rtol=1e-12, atol=1e-14)


def test_the_mode_is_restored_after_an_error(engine: str) -> None:
    module = nn.Sequential(nn.Dropout(), nn.Linear(5, 4))
    with pytest.raises(MapError):
        ff.StatisticalManifold(module, plane(3), engine=engine)
    assert all(part.training for part in module.modules())
    assert torch.backends.mha.get_fastpath_enabled()


def test_random_numbers_are_refused(engine: str) -> None:
    dropout = nn.Dropout(0.5)  # in a function, which is called as it is
    state = torch.get_rng_state()
    with pytest.raises(TraceError, match=r"random.*test_manifold.*eval mode"):
        ff.StatisticalManifold(lambda x: dropout(x), ff.charts.identity(2), engine=engine)
    assert torch.equal(torch.get_rng_state(), state)
