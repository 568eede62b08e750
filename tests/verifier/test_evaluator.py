"""The verifier's evaluator, which knows no rules, against the rules in balls: what both enclose overlaps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flint
import numpy as np
import pytest
from cases.ball_jets import BITS, CASES, U, enclosed, on_a_plane
from flint import arb
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import EnclosureError, TraceError, UnsupportedOpError
from fisherflat.verifier import _evaluator as evaluator
from fisherflat.verifier import _polynomials as polynomials


def read(f: Callable[[Tensor], Tensor], chart: ff.charts.Chart) -> list[Any]:
    """The same by the verifier, as derivatives."""
    with flint.ctx.workprec(BITS):
        point, basis = polynomials.exact(chart.point), polynomials.exact(chart.basis)
        parts = [point + sum(arb(c) * row for c, row in zip(U, basis, strict=True)), *basis, None, None, None]
        y = evaluator.evaluate(ff.trace(f, chart.point), polynomials.Polynomial(parts, 2))
        zero = np.full(y.value.shape, arb(0), dtype=object)
        factors = (1, 1, 1, 2, 1, 2)
        return [
            np.ravel(zero if part is None else part * factor) for part, factor in zip(y.parts, factors, strict=True)
        ]


@pytest.mark.parametrize(("name", "shape", "f"), CASES, ids=[f"{name}-{i}" for i, (name, *_) in enumerate(CASES)])
def test_what_the_verifier_computes_overlaps_what_the_rules_do(
    name: str, shape: tuple[int, ...], f: Callable[[Tensor], Tensor]
) -> None:
    chart = on_a_plane(shape)
    try:
        balls, other = enclosed(f, chart), read(f, chart)
    except (UnsupportedOpError, EnclosureError, TraceError):
        return  # the verifier knows fewer ops, and tests/jets says which of them balls do not know
    assert all(x.overlaps(y) for row, same in zip(balls, other, strict=True) for x, y in zip(row, same, strict=True))
