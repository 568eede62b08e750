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
CASES = [(name, case) for name, cases in TABLES.items() for case in cases]
#: they write twice to one place, and torch gives a gradient to both of what it wrote
TWICE = {"put, in parts"}
IDS = [f"{name}-{number}" for name, cases in TABLES.items() for number in range(len(cases))]

#: of a five-point difference: shifts and weights
STENCIL = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))
#: a step within which no entry crosses a kink, which lie at multiples of 2^-9
H = 2.0**-16


def jet(graph: Graph, data: Tensor, k: int, constants: dict[int, Tensor], tape: bool) -> Tensor:
    algebra = TensorAlgebra(constants=constants, tape=tape)
    with torch.set_grad_enabled(tape):
        return packed(algebra, evaluated(algebra, graph, Series(data, k)))


def drawn(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("name", "case"), CASES, ids=IDS)
@pytest.mark.filterwarnings("ignore::fisherflat.errors.FallbackWarning")
def test_gradients_through_a_rule(name: str, case: Any) -> None:
    shape, f = case[:2]
    graph = trace(f, dyadic(shape, 0, 2.0**-9))
    fixed = [c for _, c in graph.constants() if c.dtype == torch.float64 and c.numel()]
    for order, k, points in ((1, 2, 2), (2, 2, 1)):
        data = dyadic_series(shape, order, k, points, seed=k)
        # constants off the kinks; where that leaves the domain (a power of a negative number), they stay as they are
        for shift in (2.0**-7, 0.0):
            given = {"x": data, **{id(c): c + shift * drawn(c, 7) for c in fixed}}
            moving = list(given) if shift and name not in TWICE else ["x"]
            if check(graph, given, moving, k):
                break
        else:
            pytest.fail("nothing could be compared")


def check(graph: Graph, given: dict[Any, Tensor], moving: list[Any], k: int) -> bool:
    """Compares a gradient with differences along a direction; whether these are numbers."""

    def found(there: dict[Any, Tensor], tape: bool = False) -> Tensor:
        return jet(graph, there["x"], k, {i: c for i, c in there.items() if i != "x"}, tape)

    want = found(given)
    along = {name: drawn(given[name], seed) for seed, name in enumerate(moving)}
    weights = drawn(want, 99) / want.abs().clamp_min(1.0)

    def moved(t: float) -> Tensor:
        return (found({**given, **{name: given[name] + t * v for name, v in along.items()}}) * weights).sum()

    slope = sum((weight * moved(shift * H) for shift, weight in STENCIL), torch.zeros(())) / H
    if not slope.isfinite():
        return False
    leaves = {name: given[name].clone().requires_grad_() for name in moving}
    got = found({**given, **leaves}, tape=True)
    assert torch.allclose(got, want, rtol=1e-12, atol=1e-12 * max(1.0, want.abs().max().item()))
    own = 0.0
    if got.requires_grad:
        grads = torch.autograd.grad((got * weights).sum(), list(leaves.values()), allow_unused=True)
        own = sum((g * v).sum().item() for g, v in zip(grads, along.values(), strict=True) if g is not None)
    assert abs(own - slope.item()) <= 1e-6 * max(1.0, abs(slope.item())), (own, slope.item())
    return True
