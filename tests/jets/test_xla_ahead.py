"""What is compiled by XLA: what it computes once and for all, and gates far out, where a sum would lose a tail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import torch

import fisherflat as ff
from fisherflat.jets.xla import Program
from fisherflat.jets.xla._ahead import ahead

WEIGHT = np.random.default_rng(0).standard_normal((5, 5))
X = np.random.default_rng(1).standard_normal((3, 5))


@pytest.fixture(autouse=True)
def doubles() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def parted(function: Callable[..., Any]) -> tuple[list[Any], list[str]]:
    """What is known of WEIGHT alone, and the steps that are left; the two parts give what the function gives."""
    weight = jnp.asarray(WEIGHT)
    known, rest = ahead(function, [weight], [jax.ShapeDtypeStruct(X.shape, X.dtype)])
    np.testing.assert_allclose(rest(*known, X), function(WEIGHT, X), rtol=1e-14)
    assert all(array is weight for array in known if array.shape == weight.shape and (array == weight).all())
    return known, [step.primitive.name for step in jax.make_jaxpr(rest)(*known, X).eqns]


def test_what_the_weights_give_alone_is_computed_once() -> None:
    known, steps = parted(lambda weight, x: x @ jnp.exp(weight @ weight.T) + weight[1:3].sum(0))
    assert sorted(array.shape for array in known) == [(5,), (5, 5)]
    assert steps.count("dot_general") == 1 and not {"exp", "slice", "reduce_sum"} & set(steps)


def test_weights_are_not_copied_and_nothing_is_kept_that_only_repeats_them() -> None:
    known, steps = parted(lambda weight, x: x @ weight.T.reshape(5, 5) + jnp.broadcast_to(weight[0], (3, 5)))
    assert [array.shape for array in known] == [(5, 5), (5,)]
    assert steps.count("dot_general") == 1 and "broadcast_in_dim" in steps


def test_a_result_of_weights_alone_and_one_of_nothing() -> None:
    known, steps = parted(lambda weight, x: jnp.exp(weight))
    assert len(known) == 1 and not steps
    assert parted(lambda weight, x: x * 2)[0] == []


FAR = torch.tensor([1e-300, 1e-9, 1e-3, 0.3, 2.0, 19.0, 40.0, 300.0, 700.0], dtype=torch.float64)


def test_both_tails_of_a_sigmoid() -> None:
    x = torch.cat([FAR, -FAR, torch.zeros(1, dtype=torch.float64)])
    found = torch.stack(Program(lambda x: (x.sigmoid(), (-x).sigmoid()), (x,))(x))
    with mpmath.workdps(40):
        exact = [[float(1 / (1 + mpmath.exp(-sign * mpmath.mpf(float(v))))) for v in x] for sign in (1, -1)]
    np.testing.assert_allclose(found.numpy(), exact, rtol=1e-15)
    ends = torch.tensor([torch.inf, -torch.inf, torch.nan], dtype=torch.float64)
    np.testing.assert_array_equal(Program(lambda x: (x.sigmoid(),), (ends,))(ends)[0].numpy(), [1.0, 0.0, np.nan])


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "silu", "mish"])
def test_derivatives_of_gates_far_out(name: str) -> None:
    """Entry by entry, and not relative to the largest: a gate that is nearly shut has derivatives of its own size."""
    function: Callable[[torch.Tensor], torch.Tensor] = getattr(torch, name, getattr(torch.nn.functional, name, None))
    chart = ff.charts.affine(torch.cat([FAR[1:7], -FAR[1:7]]), torch.ones(1, 12, dtype=torch.float64))
    ours, compiled = (
        ff.StatisticalManifold(function, chart, engine=engine).jet([[0.0], [0.1]]).coefficients
        for engine in ("taylor", "xla")
    )
    np.testing.assert_allclose(compiled.numpy(), ours.numpy(), rtol=2e-14, atol=0)
