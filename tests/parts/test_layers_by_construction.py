"""Roles against layers whose parts are known by construction: what is held, and that nothing else is."""

from __future__ import annotations

import pytest
import torch
from cases.differences import by_differences
from cases.model_layers import LAYERS as MODEL_LAYERS
from cases.roles import LAYERS as SMALL_LAYERS
from cases.roles import Base, Layer, nothing, point, weight
from torch import Tensor

import fisherflat as ff
from fisherflat.parts import readings

LAYERS = SMALL_LAYERS | MODEL_LAYERS
ROLES = tuple(readings.WORDS)

every_layer = pytest.mark.parametrize("name", LAYERS)


def given(layer: Layer) -> object:
    """The layer as the library sees it."""
    return lambda x: layer(x, nothing)


def moved(x: Tensor, seed: int) -> Tensor:
    return x + 0.3 * weight(*x.shape, seed=seed)


@every_layer
def test_freezing_a_role_holds_what_the_layer_says_and_nothing_else(name: str) -> None:
    layer, x = LAYERS[name], point(name)
    graph = ff.trace(given(layer), x)
    for role in ROLES:
        frozen, truth = ff.freeze(graph, x, role), Base(layer, x, (role,))
        assert frozen.frozen == ((role,) if role in truth.seen else ())
        assert bool(frozen.held) is (role in truth.seen)
        for y in (x, moved(x, 200), moved(x, 201)):
            expected = truth.held(y)
            assert float((frozen(y) - expected).abs().max()) <= 1e-12 * (1 + float(expected.abs().max()))


@every_layer
def test_the_curvature_of_a_reading_is_that_of_the_layer_with_those_parts_held(name: str) -> None:
    """Against differences of the values of the layer written by hand, in two directions."""
    layer, x = LAYERS[name], point(name)
    basis = weight(2, *x.shape, seed=202) / x.numel() ** 0.5
    truth = Base(layer, x, ROLES[:1])
    frozen = ff.freeze(given(layer), x, ROLES[:1])
    jet = ff.StatisticalManifold(frozen, ff.charts.affine(x, basis)).jet([0.1, -0.2])

    def along(u: Tensor) -> Tensor:
        return truth.held(x + torch.tensordot(u, basis, 1)).reshape(-1)

    _, first, second, twice, mixed, again = by_differences(along, torch.tensor([0.1, -0.2]).double(), 2.0**-8)
    size = 1 + float(jet.hessian.abs().max())
    assert torch.allclose(jet.jacobian, torch.stack([first, second]), rtol=0, atol=1e-7 * size)
    expected = torch.stack([torch.stack([twice, mixed]), torch.stack([mixed, again])])
    assert torch.allclose(jet.hessian, expected, rtol=0, atol=1e-6 * size)


@every_layer
def test_all_roles_together(name: str) -> None:
    layer, x = LAYERS[name], point(name)
    frozen, truth = ff.freeze(given(layer), x, ROLES), Base(layer, x, ROLES)
    assert set(frozen.frozen) <= truth.seen
    assert float((frozen(x) - truth.held(x)).abs().max()) < 1e-12


def test_there_are_layers_of_every_kind() -> None:
    seen = [Base(layer, point(name), ()).seen for name, layer in LAYERS.items()]
    assert len(LAYERS) >= 140
    for role in ROLES:
        assert sum(role in roles for roles in seen) >= 5
    assert sum(not roles for roles in seen) >= 10
