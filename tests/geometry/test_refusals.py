"""Points without geometry, and input and maps that are refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases.closeness import assert_same
from cases.maps import double
from cases.surfaces import folded, random, torus
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import (
    DegenerateImmersionError,
    DegenerateImmersionWarning,
    FisherflatError,
    InputError,
    MapError,
    TraceError,
)
from fisherflat.geometry import Geometry
from fisherflat.jets import Jet

ENGINES = ("taylor", "autodiff")


# -- points without geometry -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_degenerate_points_are_named(engine: str) -> None:
    message = r"rank 1 < k = 2 at u = \[0, 0\], singular values \[1, 0\]: the metric is singular.*degenerate=\"nan\""
    for memory in (None, folded(engine).engine.bytes_per_point):
        with pytest.raises(DegenerateImmersionError, match=message) as refused:
            folded(engine, memory=memory).scalar_curvature([[1.0, 0.5], [0.0, 0.0]])
    assert isinstance(refused.value, ArithmeticError)
    with pytest.raises(DegenerateImmersionError, match=r"u = \[0, 0\] \(and at 2 more\)"):
        folded(engine).at([[0.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    assert folded(engine).jet([0.0, 0.0]).value.tolist() == [0, 0, 0]  # a jet is there nevertheless


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("chunked", [False, True])
def test_degenerate_points_are_nan_on_request_with_one_count(chunked: bool, engine: str) -> None:
    u = double([[[1.0, 0.5], [0.0, 0.0]], [[0.0, 0.0], [0.2, 0.1]]])
    memory = folded(engine).engine.bytes_per_point if chunked else None  # a point at a time
    surface = folded(engine, degenerate="nan", memory=memory)
    expected = folded(engine).scalar_curvature(u.reshape(4, 2)[[0, 3]])
    measures: list[Callable[[], Tensor]] = [
        lambda: surface.scalar_curvature(u),
        lambda: surface.at(u).scalar_curvature,
        lambda: 2 * surface.sectional_curvature(u, [1.0, 0.0], [0.0, 1.0]),
    ]
    for measure in measures:
        with pytest.warns(DegenerateImmersionWarning, match="2 of 4 points are degenerate") as noted:
            curvature = measure()
        assert len(noted) == 1
        assert curvature.isnan().tolist() == [[False, True], [True, False]]
        torch.testing.assert_close(curvature[[0, 1], [0, 1]], expected, rtol=1e-12, atol=1e-14)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surface.scalar_curvature([1.0, 1.0])  # nothing to say where all is well


@pytest.mark.parametrize("engine", ENGINES)
def test_points_outside_the_domain_are_named_or_nan(engine: str) -> None:
    def f(x: Tensor) -> Tensor:
        return torch.stack([x[0].log(), x[1], x.prod()])

    chart = ff.charts.affine([1.0, 0.0], torch.eye(2))
    with pytest.raises(MapError, match=r"not finite at u = \[-2, 0.5\]; is the point in the map's domain"):
        ff.StatisticalManifold(f, chart, engine=engine).metric([[0.0, 0.0], [-2.0, 0.5]])
    surface = ff.StatisticalManifold(f, chart, engine=engine, degenerate="nan")
    with pytest.warns(DegenerateImmersionWarning, match="1 of 2 points"):
        assert surface.scalar_curvature([[0.0, 0.0], [-2.0, 0.5]]).isnan().tolist() == [False, True]


# -- bad input ---------------------------------------------------------------------------------------------------------

nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("u", "words"),
    [
        ([0.0, nan], r"u holds 1 NaN or infinite entries, the first at index \[1\]"),
        ([[0.0, inf], [nan, 0.0]], r"u holds 2 NaN or infinite entries, the first at index \[0, 1\]"),
        ([0.0, 0.0, 0.0], r"u must end in an axis of length k = 2; it has shape \[3\]"),
        (0.0, r"u must end in an axis of length k = 2; it has shape \[\]"),
        (torch.zeros(0, 2), "u .*(empty|no points)"),
        (torch.tensor([0, 1]), r"u has dtype torch.int64.*u.double\(\)"),
        (np.array([0, 1]), "u has dtype torch.int64"),
        (torch.tensor([True, False]), "u has dtype torch.bool"),
        ("origin", "u cannot be read as numbers"),
        (None, "u cannot be read as numbers"),
        ([[0.0, 1.0], [0.0]], "u cannot be read as numbers"),
    ],
)
def test_bad_points_are_refused(u: Any, words: str, engine: str) -> None:
    surface = torus(engine)
    for method in (surface.scalar_curvature, surface.at, surface.jet):
        with pytest.raises(InputError, match=words):
            method(u)


@pytest.mark.parametrize("engine", ENGINES)
def test_numbers_of_python_and_numpy_are_taken(engine: str) -> None:
    surface = torus(engine)
    expected = surface.metric(double([0.0, 1.0]))
    for u in ([0, 1], (0.0, 1.0), np.array([0.0, 1.0]), np.array([0.0, 1.0], dtype=np.float32)):
        assert_same(surface.metric(u), expected)


TWO = ff.charts.identity(2)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (
            lambda e: ff.StatisticalManifold(lambda x: (x, x), TWO, engine=e),
            MapError,
            r"one tensor, it returned tuple.*\[0\]",
        ),
        (
            lambda e: ff.StatisticalManifold(lambda x: 1.0, TWO, engine=e),
            MapError,
            "one tensor, it returned float; make",
        ),
        (
            lambda e: ff.StatisticalManifold(lambda x: {"mean": x}, TWO, engine=e),
            MapError,
            r"returned dict; wrap it, e.g. lambda x: module\(x\)\['mean'\]",
        ),
        (lambda e: ff.StatisticalManifold(lambda x: (x, x), TWO, engine=e), MapError, r"tuple.*DiagonalGaussian\(\)"),
        (lambda e: ff.StatisticalManifold(lambda x: x.long(), TWO, engine=e), MapError, "returned torch.int64"),
        (lambda e: ff.StatisticalManifold(lambda x: x + 1j, TWO, engine=e), MapError, "returned torch.complex128"),
        (
            lambda e: ff.StatisticalManifold(nn.Linear(3, 3), TWO, engine=e),
            MapError,
            r"failed on the chart's point, of shape \[2\].*Chart and map must fit",
        ),
        (
            lambda e: ff.StatisticalManifold(ff.layers.GatedMLP(3, 3), TWO, engine=e),
            MapError,
            r"chart's point, of shape \[2\].*a gated MLP of width 3 expects.*Chart and map must fit",
        ),
        (
            lambda e: ff.StatisticalManifold(lambda x: x @ torch.ones(2, 2, dtype=torch.float32), TWO, engine=e),
            MapError,
            r"(Double and Float|double != float).*module.double\(\)",
        ),
        (
            lambda e: ff.StatisticalManifold(ff.freeze(nn.Tanh(), torch.zeros(3)), TWO, engine=e),
            MapError,
            r"traced for an input of .*\[3\], not \[2\]",
        ),
        (
            lambda e: ff.StatisticalManifold(lambda x: x[:1], TWO, engine=e),
            InputError,
            "k = 2 .* only D = 1 outputs.*at most",
        ),
        (lambda e: torus(e, dtype=torch.float16), InputError, "dtype must be torch.float64 or torch.float32"),
        (lambda e: torus(e, degenerate="skip"), InputError, "degenerate must be one of"),
        (lambda e: torus(e + "s"), InputError, "engine must be one of 'autodiff', 'cudagraphs', 'taylor', 'xla'"),
    ],
)
def test_bad_manifolds_are_refused_at_construction(
    make: Callable[[str], Any], kind: type[Exception], words: str, engine: str
) -> None:
    with pytest.raises(kind, match=words):
        make(engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_dependence_on_the_coordinates_is_refused(engine: str) -> None:
    constant = torch.ones(3, dtype=torch.float64)
    with pytest.raises(FisherflatError, match="does not depend on"):
        ff.StatisticalManifold(lambda x: constant, TWO, engine=engine).metric([0.0, 0.0])
    # on the input, but not on what the chart moves
    chart = ff.charts.token(random(3, 2), 0, torch.eye(2))
    with pytest.raises(DegenerateImmersionError, match=r"rank 0 < k = 2 .*does not depend on the coordinates there"):
        ff.StatisticalManifold(lambda x: x[1:] ** 2, chart, engine=engine).metric([0.0, 0.0])
    with pytest.raises(DegenerateImmersionError, match="rank 1 < k = 2"):
        ff.StatisticalManifold(lambda x: x[0, :1] * constant, chart, engine=engine).scalar_curvature([0.1, 0.2])


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_not_torch_is_refused(engine: str) -> None:
    def through_numpy(x: Tensor) -> Tensor:
        return torch.from_numpy(np.sin(x.numpy()))

    def branching(x: Tensor) -> Tensor:
        return 2 * x if x[0] > 0 else x

    for f in (through_numpy, branching):
        with pytest.raises(TraceError):
            ff.StatisticalManifold(f, TWO, engine=engine).metric([0.1, 0.2])


# -- of jets -----------------------------------------------------------------------------------------------------------


def folded_jets(degenerate: str) -> Geometry:
    """Of `(u², v, u v)`, which is singular along (0, 0); one more point is not finite."""
    u = double([[1.0, 0.5], [0.0, 0.0], [0.5, 1.0], [0.2, 0.3]])
    jacobian = torch.zeros(4, 2, 3, dtype=torch.float64)
    jacobian[:, 0, 0], jacobian[:, 0, 2], jacobian[:, 1, 1], jacobian[:, 1, 2] = 2 * u[:, 0], u[:, 1], 1, u[:, 0]
    second = double([[[2, 0, 0], [0, 0, 1], [0, 0, 0]]] * 4)
    value = torch.stack([u[:, 0] ** 2, u[:, 1], u[:, 0] * u[:, 1]], -1)[:, None]
    second[2, 1, 1] = math.inf
    points = u if degenerate == "raise" else None
    return Geometry(Jet(torch.cat([value, jacobian, second], 1), 2), degenerate, points)


def test_without_geometry_is_nan_on_request_and_only_there() -> None:
    geometry = folded_jets("nan")
    assert geometry.degenerate.tolist() == [False, True, True, False]
    for name in ("scalar_curvature", "riemann", "ricci", "christoffel", "second_fundamental_form", "mean_curvature"):
        flat = (
            getattr(geometry, name).flatten(1)
            if getattr(geometry, name).dim() > 1
            else getattr(geometry, name)[:, None]
        )
        assert flat[[1, 2]].isnan().all(), name
        assert flat[[0, 3]].isfinite().all(), name
    assert geometry.volume_density.isnan().tolist() == [False, True, True, False]
    assert geometry.condition_number.isnan().tolist() == [False, True, True, False]
    assert geometry.metric[[0, 1, 3]].isfinite().all()  # a metric there is, if a singular one


def test_points_without_geometry_are_named() -> None:
    with pytest.raises(MapError, match=r"not finite at u = \[0.5, 1\].*domain"):
        folded_jets("raise")
    with pytest.raises(InputError, match="degenerate must be one of"):
        folded_jets("ignore")
    flat = Jet(double([[[0, 0, 0], [1, 2, 3], [2, 4, 6], [0, 0, 1], [0, 0, 0], [1, 0, 0]]]), 2)
    with pytest.raises(
        DegenerateImmersionError, match=r"rank 1 < k = 2 at point 0, singular values \[8.37, .*singular"
    ):
        Geometry(flat)
    with pytest.raises(DegenerateImmersionError, match=r"rank 0 < k = 2 .*does not depend on the coordinates"):
        Geometry(Jet(torch.zeros(6, 3, dtype=torch.float64), 2))


@pytest.mark.parametrize(("x", "y"), [([1.0, 1.0], [2.0, 2.0]), ([0.0, 0.0], [0.0, 1.0]), ([1.0, 0.0], [0.0, 0.0])])
def test_vectors_that_span_no_plane_are_refused(x: list[float], y: list[float]) -> None:
    geometry = Geometry(Jet(random(6, 3), 2))
    with pytest.raises(InputError, match="span no plane; pass two independent"):
        geometry.sectional_curvature(double(x), double(y))
