"""Symbolic proofs, by sympy, of what the library takes for granted about gated MLPs: for two units of width two."""

from __future__ import annotations

from typing import Any

import pytest
import sympy
import torch

import fisherflat as ff
from fisherflat.layers import MLP_ACTIVATIONS

UNITS = WIDTH = 2
X = sympy.Matrix(sympy.symbols("x:2", real=True))
G, U, V = (sympy.Matrix(UNITS, WIDTH, sympy.symbols(f"{name}:4", real=True)) for name in "guv")
SCALE = sympy.symbols("lambda", positive=True)
PHI = sympy.Function("phi")
#: on the ray where they do not vanish
POWERS = {"identity": (lambda z: z, 1), "relu": (lambda z: z, 1), "relu2": (lambda z: z**2, 2)}


def output(phi: Any, g: Any = G, u: Any = U, v: Any = V) -> Any:
    z, w = g * X, u * X
    return sum((v[i, :].T * phi(z[i]) * w[i] for i in range(UNITS)), sympy.zeros(WIDTH, 1))


def equal(a: Any, b: Any) -> bool:
    return (a - b).applyfunc(sympy.expand) == sympy.zeros(*a.shape)


def test_output_scaling_sign_and_permutation_hold_for_any_function() -> None:
    assert equal(output(PHI, u=SCALE * U, v=V / SCALE), output(PHI))
    assert equal(output(PHI, u=-U, v=-V), output(PHI))
    swap = sympy.Matrix([[0, 1], [1, 0]])
    assert equal(output(PHI, swap * G, swap * U, swap * V), output(PHI))


@pytest.mark.parametrize("name", POWERS)
def test_inverse_scaling_holds_with_the_degree_and_its_generator_is_null(name: str) -> None:
    phi, degree = POWERS[name]
    assert equal(output(phi, SCALE * G, SCALE**-degree * U), output(phi))
    assert not equal(output(phi, SCALE * G, SCALE ** (1 - degree) * U), output(phi))
    weights = [*G, *U, *V]
    jacobian = output(phi).jacobian(weights)
    inverse = sympy.Matrix([*G, *(-degree * U), *sympy.zeros(UNITS, WIDTH)])
    outer = sympy.Matrix([*sympy.zeros(UNITS, WIDTH), *U, *(-V)])
    for generator in (inverse, outer):
        assert equal(jacobian * generator, sympy.zeros(WIDTH, 1))
    # so that the charges do not change under the gradient flow of any loss of the outputs
    gradient = jacobian.T * sympy.Matrix(sympy.symbols("l:2"))
    for unit in range(UNITS):
        gate, up, value = (matrix[unit, :].dot(matrix[unit, :]) for matrix in (G, U, V))
        for charge in (gate - degree * up, up - value):
            assert sympy.expand(sum(sympy.diff(charge, w) * s for w, s in zip(weights, gradient, strict=True))) == 0


def test_exchange_holds_for_the_bilinear_layer_alone() -> None:
    assert equal(output(lambda z: z, U, G), output(lambda z: z))
    assert not equal(output(lambda z: z**2, U, G), output(lambda z: z**2))


def test_one_unit_is_an_indefinite_form_of_rank_two() -> None:
    g, u = (sympy.Matrix(sympy.symbols(f"{name}:3", real=True)) for name in "gu")
    form = (g * u.T + u * g.T) / 2
    t = sympy.symbols("t")
    dot, norms = g.dot(u), g.dot(g) * u.dot(u)  # the latter squared
    expected = t * (t**2 - t * dot + (dot**2 - norms) / 4)  # roots 0 and (g·u ± |g||u|)/2
    assert sympy.expand((t * sympy.eye(3) - form).det() - expected) == 0
    assert sympy.expand((g * u.T).applyfunc(sympy.expand).det()) == 0


@pytest.mark.parametrize("name", MLP_ACTIVATIONS)
def test_layers_and_their_rewriting_are_the_symbolic_formula(name: str) -> None:
    formulas = {
        "identity": lambda z: z, "sigmoid": lambda z: 1 / (1 + sympy.exp(-z)), "tanh": sympy.tanh,
        "silu": lambda z: z / (1 + sympy.exp(-z)), "gelu": lambda z: z / 2 * (1 + sympy.erf(z / sympy.sqrt(2))),
        "relu": lambda z: sympy.Max(z, 0), "relu2": lambda z: sympy.Max(z, 0) ** 2,
        "softplus": lambda z: sympy.log(1 + sympy.exp(z)),
    }  # fmt: skip
    numbers = torch.randn(3, UNITS, WIDTH, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = torch.tensor([0.7, -1.3], dtype=torch.float64)
    mlp = ff.layers.GatedMLP(WIDTH, UNITS, name).double()
    for linear, weight in zip((mlp.gate, mlp.up, mlp.down), (numbers[0], numbers[1], numbers[2].T), strict=True):
        linear.weight.data = weight.clone()
    values = dict(zip([*G, *U, *V, *X], [*numbers.flatten().tolist(), *x.tolist()], strict=True))
    exact = [float(entry.subs(values).evalf(30)) for entry in output(formulas[name])]
    expected = torch.tensor(exact, dtype=torch.float64)
    torch.testing.assert_close(mlp(x), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(mlp.as_bilinear_attention()(x), expected, rtol=1e-12, atol=1e-14)
