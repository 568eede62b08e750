"""Every rule against differences of the op: exact ones for piecewise polynomials, 40-digit ones for the others."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import Any

import pytest
import torch
from cases import composites
from cases import rules as rule_cases
from cases.decompositions import DECOMPOSED
from cases.differences import (
    collapsed,
    collapsed_taylor_jet,
    dyadic,
    dyadic_series,
    first_taylor_jet,
    mpmath_jet,
    taylor_jet,
    taylor_jet_in_blocks,
    torch_jet,
)
from cases.matrices import COMPOSITE, MATRICES
from cases.smooth import SMOOTH, SUMMANDS
from cases.transcendental import TRANSCENDENTAL
from cases.transcendental import Case as Hard
from torch import Tensor

from fisherflat.errors import UnsupportedOpError
from fisherflat.jets.graph import Graph
from fisherflat.jets.ops import OPS
from fisherflat.jets.recording import decompositions
from fisherflat.jets.rules import FUNCTIONS
from fisherflat.parts import trace

pytestmark = pytest.mark.filterwarnings("error::fisherflat.errors.FallbackWarning")

aten = torch.ops.aten
F = torch.nn.functional

POLYNOMIAL = {
    **rule_cases.STRUCTURAL,
    **rule_cases.LINEAR,
    **rule_cases.PRODUCTS,
    **rule_cases.CHOICES,
    **rule_cases.CONSTANT,
    **DECOMPOSED,
    **{f"{name}, in parts": cases for name, cases in composites.POLYNOMIAL.items()},
}
CASES = [(name, case) for name, cases in POLYNOMIAL.items() for case in cases]
IDS = [f"{name}-{number}" for name, cases in POLYNOMIAL.items() for number in range(len(cases))]


def assert_close(got: Tensor, want: Tensor, tolerance: float) -> None:
    """The largest error is at most `tolerance` times the largest entry (or one, where that is smaller)."""
    assert got.shape == want.shape
    error = (got.double() - want).abs().max().item() / max(1.0, want.abs().max().item())
    assert error <= tolerance, f"off by {error:.1e}"


def assert_collapsed(graph: Graph, x: Tensor, k: int, want: Tensor, tolerance: float) -> None:
    """Rules that carry one sum of second derivatives, or none, give what the true jets have of these."""
    judged = any(node.op in ("aten.eq", "aten.ne", "aten.isnan") for node in graph.nodes)  # by whole jets alone
    with suppress(UnsupportedOpError) if judged else nullcontext():
        assert_close(collapsed_taylor_jet(graph, x, k), collapsed(want, k), k * tolerance)
        assert_close(first_taylor_jet(graph, x, k), want[:, : 1 + k], tolerance)


@pytest.mark.parametrize(("name", "case"), CASES, ids=IDS)
def test_affine_and_bilinear_ops(name: str, case: rule_cases.Case) -> None:
    shape, f = case
    graph = trace(f, dyadic(shape, 0, 2.0**-9))
    folded = name in DECOMPOSED or name in rule_cases.OF_KIND or name.endswith(", in parts")
    assert folded or any(node.op == f"aten.{name}" for node in graph.nodes)
    for order, k, points in ((1, 2, 2), (2, 3, 1)):
        x = dyadic_series(shape, order, k, points, seed=k)
        want = torch_jet(f, x, k)
        assert_close(taylor_jet(graph, x, k), want, 1e-8)
        assert_collapsed(graph, x, k, want, 1e-8)
    assert_close(taylor_jet_in_blocks(graph, x, k), taylor_jet(graph, x, k), 1e-14)
    x = dyadic_series(shape, 2, 1, 2, seed=5)
    got = taylor_jet(graph, x.float(), 1)
    assert got.dtype == torch.float32
    assert_close(got, torch_jet(f, x, 1), 1e-5)


def test_each_op_with_a_rule_is_tested() -> None:
    tested = {*POLYNOMIAL, *FUNCTIONS, *TRANSCENDENTAL, *SMOOTH, *MATRICES, *composites.POLYNOMIAL}
    names = {op.name for op in OPS.values() if not op.stands}  # such are in no trace, see test_divided.py
    assert names <= tested
    written_out: dict[Any, set[str]] = {}
    for op, function in decompositions.TABLE.items():
        name = str(op).removeprefix("aten.")
        written_out.setdefault(function, set()).update({name, name.partition(".")[0]})
    assert [names for names in written_out.values() if not names & tested] == []


# -- ops that are not polynomial -----------------------------------------------------------------------------------

HARD = [(name, case) for name, cases in {**TRANSCENDENTAL, **SMOOTH}.items() for case in cases]
HARD_IDS = [f"{name}-{number}" for number, (name, _) in enumerate(HARD)]


@pytest.mark.parametrize(("name", "case"), HARD, ids=HARD_IDS)
def test_other_ops(name: str, case: Hard) -> None:
    shape, f, exact = case
    graph = trace(f, dyadic(shape, 0, 2.0**-9))
    for order, k, points in ((1, 2, 2), (2, 1, 1), (2, 3, 1)):
        x = dyadic_series(shape, order, k, points, seed=k)
        got, want = taylor_jet(graph, x, k), mpmath_jet(exact, x, k)
        assert_close(got[:, 0], want[:, 0], 1e-15 * SUMMANDS.get(name, 1))
        assert_close(got[:, 1 : 1 + k], want[:, 1 : 1 + k], 1e-14)
        assert_close(got, want, 1e-13)
        assert_collapsed(graph, x, k, want, 1e-13)
        assert_close(taylor_jet_in_blocks(graph, x, k), got, 1e-14)
        assert_close(taylor_jet(graph, x.float(), k), want, 1e-4)


OF_MATRICES = [(name, case) for name, cases in MATRICES.items() for case in cases]
OF_MATRICES_IDS = [f"{name}-{number}" for name, cases in MATRICES.items() for number in range(len(cases))]


@pytest.mark.parametrize(("name", "case"), OF_MATRICES, ids=OF_MATRICES_IDS)
def test_matrices(name: str, case: Hard) -> None:
    shape, f, exact = case
    graph = trace(f, dyadic(shape, 0, 2.0**-9))
    assert any(node.op.removeprefix("aten.") == name for node in graph.nodes) or name in COMPOSITE
    for order, k, points in ((1, 2, 2), (2, 1, 1), (2, 3, 1)):
        x = dyadic_series(shape, order, k, points, seed=k)
        got, want = taylor_jet(graph, x, k), mpmath_jet(exact, x, k)
        for rows in (slice(0, 1), slice(1, 1 + k), slice(1 + k, None)):
            assert_close(got[:, rows], want[:, rows], 1e-11)
        assert_collapsed(graph, x, k, want, 1e-11)
        assert_close(taylor_jet_in_blocks(graph, x, k), got, 1e-12)
        assert_close(taylor_jet(graph, x.float(), k), want, 2e-3)
