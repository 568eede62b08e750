"""The table of symmetries with its evidence, and reading bilinear MLPs from their weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from cases.gated_mlps import DEGREES, layer, normal

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.layers import MLP_ACTIVATIONS


@pytest.mark.parametrize("activation", MLP_ACTIVATIONS)
def test_the_table_says_what_holds_and_why(activation: str) -> None:
    table = ff.symmetry.symmetries(layer(activation, bias=activation == "silu")).set_index("symmetry")
    for always in ("output scaling", "output sign", "permutation"):
        assert table.preserved[always] and table.kind[always] == "identity"
    assert table.preserved["inverse scaling"] == (activation in DEGREES)
    assert table.preserved["exchange"] == (activation == "identity")
    assert table.preserved["factor sign"] == (activation in ("identity", "tanh"))
    broken = table[~table.preserved]
    assert set(broken.kind) <= {"ball"} and broken.evidence.str.contains("unit . at x = .* is .*, but ").all()
    if activation == "identity":
        assert (table.kind[["exchange", "inverse scaling", "factor sign"]] == "exact").all()


def test_counterexamples_are_those_of_the_layer() -> None:
    # 1 / (1 + e^-1) = 0.731058578630..., so that z w φ(z)/z at (1, -1) is its negative
    evidence = ff.symmetry.symmetries(layer("silu")).set_index("symmetry").evidence
    assert "(u·x) is -0.73105857863 ±" in evidence["exchange"] and "(g·x) is -0.26894142137 ±" in evidence["exchange"]


def test_strangers_are_refuted_in_balls_or_numbers_or_only_tested() -> None:
    mlp = layer("identity")

    def table(activation):
        return ff.symmetry.symmetries(lambda x: mlp.down(activation(mlp.gate(x)) * mlp.up(x)), normal(3, 5)).set_index(
            "symmetry"
        )

    swish = table(lambda z: z * torch.sigmoid(1.7 * z))
    assert swish.kind["exchange"] == swish.kind["inverse scaling"] == "ball" and not swish.preserved["exchange"]
    # without a rule in balls; odd, which no proof knows
    strange = replace(ff.symmetry.gated_units(mlp), activation=torch.special.bessel_j1, name="bessel")
    bessel = ff.symmetry.symmetries(strange).set_index("symmetry")
    assert bessel.kind["inverse scaling"] == "number" and not bessel.preserved["inverse scaling"]
    assert bessel.kind["factor sign"] == "test" and bessel.preserved["factor sign"]
    leaky = table(torch.nn.functional.leaky_relu)
    assert leaky.preserved["inverse scaling"] and leaky.kind["inverse scaling"] == "test"
    assert leaky.kind["exchange"] == "ball" and not leaky.preserved["exchange"]


@pytest.mark.parametrize("bias", [False, True])
def test_eigenfeatures_give_the_output(bias: bool) -> None:
    mlp, c, x = layer("identity", bias), normal(5, seed=50), normal(7, 5, seed=51)
    found = ff.symmetry.eigenfeatures(mlp, c)
    continued = torch.cat([x, torch.ones(7, 1).double()], 1) if bias else x
    expected = (mlp(x) - mlp.down.bias if bias else mlp(x)) @ c
    torch.testing.assert_close((continued @ found.vectors.T).square() @ found.eigenvalues, expected)
    assert (found.eigenvalues.abs().diff() <= 0).all()
    assert ff.symmetry.eigenfeatures(mlp, c, count=2).vectors.shape == (2, 5 + bias)


def test_the_constant_hessian_is_read_from_the_weights() -> None:
    mlp, c = layer("identity"), normal(5, seed=52)
    hessian = torch.func.hessian(lambda x: mlp(x) @ c)(normal(5, seed=53))
    torch.testing.assert_close(2 * ff.symmetry.interaction_matrix(mlp, c), hessian)


def test_what_is_no_quadratic_form_is_refused() -> None:
    with pytest.raises(InputError, match="activation silu"):
        ff.symmetry.interaction_matrix(layer("silu"), normal(5))
    with pytest.raises(InputError, match="direction has shape"):
        ff.symmetry.interaction_matrix(layer("identity"), normal(4))
