"""Gradients through every rule, by what moves and by constants, against differences of jets without a tape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import composites
from cases import rules as rule_cases
from cases.decompositions import DECOMPOSED
from cases.differences import dyadic, dyadic_series
from cases.matrices import MATRICES
from cases.smooth import SMOOTH
from cases.transcendental import TRANSCENDENTAL
from torch import Tensor

from fisherflat.jets.engines import TensorAlgebra, evaluated, packed
from fisherflat.jets.graph import Graph
from fisherflat.jets.rules import Series
from fisherflat.parts import trace

TABLES: dict[str, list[Any]] = {
    **rule_cases.STRUCTURAL,
    **rule_cases.LINEAR,
    **rule_cases.PRODUCTS,
    **rule_cases.CHOICES,
    **rule_cases.CONSTANT,
    **DECOMPOSED,
    **{f"{name}, in parts": cases for name, cases in composites.POLYNOMIAL.items()},
    **TRANSCENDENTAL,
    **SMOOTH,
    **{f"{name}, of matrices": cases for name, cases in MATRICES.items()},
}
CASES = [case for cases in TABLES.values() for case in cases]
IDS = [f"{name}-{number}" for name, cases in TABLES.items() for number in range(len(cases))]

#: of a five-point difference: shifts and weights
STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))


def jet(graph: Graph, data: Tensor, k: int, constants: dict[int, Tensor], tape: bool) -> Tensor:
    algebra = TensorAlgebra(constants=constants, tape=tape)
    with torch.set_grad_enabled(tape):
        return packed(algebra, evaluated(algebra, graph, Series(data, k)))


def drawn(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("case", CASES, ids=IDS)
@pytest.mark.filterwarnings("ignore::fisherflat.errors.FallbackWarning")
def test_gradients_through_a_rule(case: Any) -> None:
    shape, f = case[:2]
    graph = trace(f, dyadic(shape, 0, 2.0**-9))
    constants = {id(c): c for _, c in graph.constants() if c.dtype == torch.float64 and c.numel()}
    for order, k, points in ((1, 2, 2), (2, 2, 1)):
        data = dyadic_series(shape, order, k, points, seed=k)
        given = {"x": data, **constants}
        along = {name: drawn(tensor, seed) for seed, (name, tensor) in enumerate(given.items())}
        leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in given.items()}
        found = jet(graph, leaves["x"], k, {i: leaves[i] for i in constants}, tape=True)
        want = jet(graph, data, k, {}, tape=False)
        assert torch.allclose(found, want, rtol=1e-12, atol=1e-12 * max(1.0, want.abs().max().item()), equal_nan=True)
        weights = drawn(found, 99) / want.abs().clamp_min(1.0)
        if not found.requires_grad:
            assert want.flatten().isfinite().all()
            slope = 0.0
        else:
            grads = torch.autograd.grad((found * weights).sum(), list(leaves.values()), allow_unused=True)
            pairs = zip(grads, along.values(), strict=True)
            slope = sum((g * v).sum().item() for g, v in pairs if g is not None)

        def moved(t: float, given: Any = given, along: Any = along, k: int = k, weights: Tensor = weights) -> float:
            there = {name: tensor + t * along[name] for name, tensor in given.items()}
            return (jet(graph, there["x"], k, {i: there[i] for i in constants}, tape=False) * weights).sum().item()

        h = 2.0**-11
        want_slope = sum(weight * moved(shift * h) for shift, weight in STENCIL) / h
        assert abs(slope - want_slope) <= 1e-6 * max(1.0, abs(want_slope)), (slope, want_slope)
