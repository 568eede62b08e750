"""2-jets in ball arithmetic of all ops that are tested."""

from __future__ import annotations

from collections.abc import Callable

import flint
import numpy as np
import torch
from flint import arb
from torch import Tensor

import fisherflat as ff
from cases import composites
from cases import rules as rule_cases
from cases.decompositions import DECOMPOSED
from cases.matrices import MATRICES
from cases.smooth import SMOOTH
from cases.transcendental import TRANSCENDENTAL
from fisherflat.jets import size
from fisherflat.jets.balls import BallAlgebra, BallArray, balls
from fisherflat.jets.ops import evaluate
from fisherflat.jets.rules import Series

BITS = 128
#: a point of the plane
U = (0.01, -0.02)

POLYNOMIAL = {
    **rule_cases.STRUCTURAL,
    **rule_cases.LINEAR,
    **rule_cases.PRODUCTS,
    **rule_cases.CHOICES,
    **rule_cases.CONSTANT,
    **DECOMPOSED,
    **composites.POLYNOMIAL,
}
CASES = [(name, shape, f) for name, cases in POLYNOMIAL.items() for shape, f in cases]
CASES += [(name, shape, f) for name, cases in {**TRANSCENDENTAL, **SMOOTH, **MATRICES}.items() for shape, f, _ in cases]


def on_a_plane(shape: tuple[int, ...]) -> ff.charts.Chart:
    """Points about which no test function has a kink, a tie or a pole."""
    generator = torch.Generator().manual_seed(3)
    point = torch.rand(shape, generator=generator, dtype=torch.float64) * 1.6 - 0.8
    return ff.charts.affine(point, torch.randn(2, *shape, generator=generator, dtype=torch.float64) / 4)


def enclosed(f: Callable[[Tensor], Tensor], chart: ff.charts.Chart) -> np.ndarray:
    """Value, first and second derivatives at `U`, `[S, D]` balls."""
    graph = ff.trace(f, chart.point)
    with flint.ctx.workprec(BITS):
        if isinstance(graph.output, Tensor):
            found = balls(graph.output)[None, None]
        else:
            point, basis = balls(chart.point), balls(chart.basis)
            x = np.stack([point + sum(arb(c) * row for c, row in zip(U, basis, strict=True)), *basis])[:, None]
            found = evaluate(graph, BallAlgebra(), Series(BallArray(x), chart.k)).data.balls  # type: ignore[union-attr]
        jet = np.full((size(chart.k), found[0].size), arb(0), dtype=object)
        jet[: len(found)] = found.reshape(len(found), -1)
        return jet
