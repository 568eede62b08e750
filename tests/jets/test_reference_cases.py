"""Every reference case, in every engine, in torch functions and in modules: all tensors, in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases.maps import Case, as_functions, as_layers, has_layers
from conftest import ROOT, load_cases

import fisherflat as ff
from fisherflat.geometry import Geometry

#: of the size of the terms that cancel
RELATIVE = 1e-11
#: where second derivatives vanish there are no such terms: then a curvature may be a product of two roundings
ABSOLUTE = 1e-24


def numbers(nested: Any) -> np.ndarray:
    return np.array(nested, dtype=np.float64)


def scales(geometry: Geometry) -> dict[str, float]:
    """The size of the terms whose sum each tensor is; for the scalar curvature `|tr II|² + |II|²`."""
    jet, metric = geometry.jet, geometry.metric.numpy()
    second, inverse = geometry.second_fundamental_form.numpy(), np.linalg.inv(metric)
    trace = np.einsum("ij,ijd->d", inverse, second)
    cancelling = trace @ trace + np.einsum("il,jm,ijd,lmd->", inverse, inverse, second, second)
    slope = 1 / np.linalg.svd(jet.jacobian.numpy(), compute_uv=False).min()
    return {
        "metric": np.abs(metric).max(),
        "christoffel": slope * (np.abs(jet.hessian.numpy()).max() + np.abs(jet.jacobian.numpy()).max()),
        "riemann": cancelling * np.abs(metric).max() ** 2,
        "ricci": cancelling * np.abs(metric).max(),
        "scalar_curvature": cancelling,
    }


def named(name: str) -> dict[str, Any]:
    return next(case for case in load_cases() if case["name"] == name)


FORMS = [(case, as_functions) for case in load_cases()]
FORMS += [(case, as_layers) for case in load_cases() if has_layers(case)]


@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
@pytest.mark.parametrize(("case", "form"), FORMS, ids=[f"{case['name']}-{form.__name__}" for case, form in FORMS])
def test_geometry_of_a_reference_case(case: dict[str, Any], form: Callable[..., Case], engine: str) -> None:
    mean, chart, family, at = form(case)
    manifold, expected = ff.StatisticalManifold(mean, chart, family, engine=engine), case["expected"]
    value = manifold.jet(at).value.numpy()
    assert np.abs(value - numbers(expected["value"])).max() <= 1e-14 * np.abs(value).max()
    assert manifold.ambient_dim == expected["ambient_dim"]
    geometry = manifold.at(at)
    for quantity, scale in scales(geometry).items():
        if expected[quantity] is not None:  # there is no Riemann tensor for k = 3, but Ricci, which determines it
            error = np.abs(getattr(geometry, quantity).numpy() - numbers(expected[quantity])).max()
            assert error <= RELATIVE * scale + ABSOLUTE, f"{quantity}: off by {error:.2e}, scale {scale:.2e}"


@pytest.mark.parametrize("name", ["three_sphere", "graph_3d_in_5d", "rms_norm_three_dim", "sigmoid_gate_live_3d"])
def test_riemann_tensor_in_three_dimensions_follows_from_the_reference_ricci_tensor(name: str) -> None:
    # k = 3: R_ijlm is P_im g_jl + g_im P_jl - P_il g_jm - g_il P_jm with the Schouten tensor P = Ric - scal g / 4
    case = named(name)
    mean, chart, family, at = as_functions(case)
    g, ricci = numbers(case["expected"]["metric"]), numbers(case["expected"]["ricci"])
    schouten = ricci - float(case["expected"]["scalar_curvature"]) * g / 4
    product = np.einsum("im,jl->ijlm", schouten, g) + np.einsum("im,jl->ijlm", g, schouten)
    expected = product - product.transpose(0, 1, 3, 2)
    geometry = ff.StatisticalManifold(mean, chart, family).at(at)
    error = np.abs(geometry.riemann.numpy() - expected).max()
    assert error <= 1e-13 * scales(geometry)["riemann"]


IN_FLOAT32 = ["veronese", "paraboloid_full_covariance", "layer_norm_eps", "rms_norm_sphere", "gated_mlp_gelu"]
IN_FLOAT32 += ["ungated_frozen_pattern", "headwise_sigmoid_gate_live", "sigmoid_gate_live_3d", "two_block_stack"]


@pytest.mark.parametrize("name", IN_FLOAT32)
def test_scalar_curvature_in_float32_is_right_to_its_rounding(name: str) -> None:
    case = named(name)
    mean, chart, family, at = (as_layers if has_layers(case) else as_functions)(case)
    # a graph's constants follow the working precision, those in a function do not
    graph = ff.trace(mean, chart.point)
    geometry = ff.StatisticalManifold(graph, chart, family, dtype=torch.float32).at(at)
    assert geometry.scalar_curvature.dtype == torch.float32
    error = abs(geometry.scalar_curvature.item() - float(case["expected"]["scalar_curvature"]))
    # six digits of float32 times the condition numbers of these Jacobians, up to 16, and a few dozen steps
    assert error <= 1e-5 * scales(geometry)["scalar_curvature"] + 1e-12


@pytest.mark.parametrize(("file", "count"), [("cases.json", 33), ("families.json", 14)])
def test_the_copies_are_the_originals_and_whole(file: str, count: int) -> None:
    copy = json.loads((ROOT / "tests" / "data" / file).read_text())
    assert copy == load_cases(file)
    assert len({case["name"] for case in copy}) == len(copy) == count
