"""Ops without a rule: torch differentiates them alone, rightly, and says so once; or a clear error."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from cases.differences import dyadic, dyadic_series, mpmath_jet, taylor_jet, taylor_jet_in_blocks, torch_jet
from torch import Tensor

from fisherflat.errors import FallbackWarning, UnsupportedOpError
from fisherflat.jets.graph import Graph, Node, getitem
from fisherflat.parts import trace


@pytest.fixture(autouse=True)
def nothing_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fisherflat.jets.engines._fallback._warned", set())


def scalar(f: Callable[[Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
    return np.frompyfunc(f, 1, 1)


def ndtri(p: Any) -> Any:
    return -mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * p)


ZERO = torch.zeros((), dtype=torch.float64)
#: op -> (input shape, function, the same in mpmath)
CASES: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor], Callable[[np.ndarray], Any] | None]] = {
    "polygamma": ((4,), lambda x: torch.polygamma(0, x + 3), scalar(lambda x: mpmath.digamma(x + 3))),
    "pow": ((4,), lambda x: ZERO ** (x + 3) + x * x, lambda x: x * x),
    "mode": ((3, 4), lambda x: (x * x).mode(1)[0], None),
    "special_i0e": ((4,), lambda x: torch.special.i0e(x), scalar(lambda x: mpmath.besseli(0, x) * mpmath.exp(-abs(x)))),
    "special_erfcx": ((4,), lambda x: torch.special.erfcx(x), scalar(lambda x: mpmath.erfc(x) * mpmath.exp(x * x))),
    "special_log_ndtr": ((4,), lambda x: torch.special.log_ndtr(x), scalar(lambda x: mpmath.log(mpmath.ncdf(x)))),
    "special_ndtri": (
        (4,),
        lambda x: torch.special.ndtri(x / 8 + 0.5),
        scalar(lambda x: ndtri(x / 8 + mpmath.mpf(0.5))),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_fallback_is_right_and_says_so_once(name: str) -> None:
    shape, f, exact = CASES[name]
    graph = trace(f, dyadic(shape, 1, 2.0**-10))
    assert any(node.op == f"aten.{name}" for node in graph.nodes)
    for order, k, points in ((1, 2, 2), (2, 2, 1)):
        x = dyadic_series(shape, order, k, points, seed=k)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FallbackWarning)
            got = taylor_jet(graph, x, k)
        torch.testing.assert_close(taylor_jet_in_blocks(graph, x, k), got, rtol=1e-13, atol=1e-13)
        messages = [str(w.message) for w in caught if w.category is FallbackWarning]
        assert len(messages) == (order == 1)
        assert all(f"aten.{name}" in m and "test_fallback.py" in m for m in messages)
        want = torch_jet(f, x, k) if exact is None else mpmath_jet(exact, x, k)
        torch.testing.assert_close(
            got,
            want,
            rtol=0,
            atol=(1e-7 if exact is None else 1e-9 if "polygamma" in name else 1e-11) * want.abs().max().item(),
        )


def raised_by(f: Callable[[Tensor], Tensor]) -> str:
    x = dyadic_series((2, 3), 1, 2, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        with pytest.raises(UnsupportedOpError) as caught:
            taylor_jet(trace(f, x[0, 0]), x, 2)
    return str(caught.value)


@pytest.mark.parametrize(
    ("op", "f"),
    [
        ("special_bessel_j0", lambda x: torch.special.bessel_j0(x)),  # torch has no derivative
        ("special_zeta", lambda x: torch.special.zeta(x * x + 2, 1.0)),  # nor a second one here
    ],
)
def test_what_torch_cannot_differentiate_is_an_error_with_a_way_out(op: str, f: Callable[[Tensor], Tensor]) -> None:
    message = raised_by(f)
    assert f"aten.{op} at test_fallback.py" in message
    assert "write that step in simpler ops" in message


def formula(value: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]) -> Any:
    """A function with a derivative of our choice, as torch might have it."""

    class Formula(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return value(x)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * slope(*ctx.saved_tensors)

    return Formula.apply


def by_fallback(value: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The jet of an op with that derivative by the fallback."""
    start = Node(0, None, (), {}, tuple(x.shape[2:]))
    op = Node(1, formula(value, slope), (start,), {}, tuple(x.shape[2:]), source="here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        return taylor_jet(Graph([start, op], op, {}), x, 2)


SERIES = dyadic_series((4,), 2, 2, 3, seed=2)
AT_ZERO = torch.cat([torch.zeros(1, 3, 4, dtype=torch.float64), SERIES[1:]])


@pytest.mark.parametrize(
    ("value", "slope", "x"),
    [
        (lambda x: x**3, lambda x: x**2 * 2, SERIES),
        (lambda x: x**3, lambda x: x.detach() ** 2 * 3, SERIES),  # right to first order only
        (lambda x: x**2, lambda x: 2 * x + (x == 0) / (x == 0), SERIES),  # no number
        (torch.sinc, lambda x: x * 0, AT_ZERO),  # a removable singularity
        (lambda x: x.sin(), lambda x: x.cos() * (1 + (x > 1) * 0.01), SERIES),  # a little off, in some entries
    ],
)
def test_derivatives_that_are_not_those_of_the_values_are_refused(value: Any, slope: Any, x: Tensor) -> None:
    with pytest.raises(UnsupportedOpError, match="do not fit its values"):
        by_fallback(value, slope, x)


@pytest.mark.parametrize(
    ("value", "slope", "x"),
    [
        (lambda x: x**3, lambda x: x**2 * 3, SERIES),
        (lambda x: (x * 1e4).sin(), lambda x: (x * 1e4).cos() * 1e4, SERIES),  # steps on another scale see nothing
        (lambda x: (x + 1e-6).abs().log(), lambda x: 1 / (x + 1e-6), AT_ZERO),  # a pole nearby
        (lambda x: (x - 1e-4).relu(), lambda x: (x > 1e-4).to(x), AT_ZERO),  # a kink nearby
        (lambda x: x.abs(), lambda x: x.sign(), AT_ZERO),  # at a kink, where there is no derivative to compare with
        (lambda x: x * x.abs(), lambda x: 2 * x * x.sign(), AT_ZERO),
        (lambda x: x.exp(), lambda x: x.exp(), SERIES.float()),
        (lambda x: x * 0 + 2, lambda x: x * 0, SERIES),
    ],
)
def test_derivatives_that_may_be_those_of_the_values_are_not(value: Any, slope: Any, x: Tensor) -> None:
    assert torch.equal(by_fallback(value, slope, x)[:, 0], value(x[0]))


def test_an_output_without_derivatives_is_an_error_where_it_is_used() -> None:
    start = Node(0, None, (), {}, (4,))
    both = Node(1, lambda x: (x.sin(), x.detach() * 2), (start,), {}, ((4,), (4,)), source="here")
    outputs = [Node(2, getitem, (both, position), {}, (4,)) for position in (0, 1)]
    used = Node(3, torch.ops.aten.mul.Tensor, (outputs[1], start), {}, (4,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        taylor_jet(Graph([start, both, outputs[0]], outputs[0], {}), SERIES, 2)
        for nodes in ([start, both, outputs[1]], [start, both, outputs[1], used]):
            with pytest.raises(UnsupportedOpError, match=r"does not know the derivatives of an output of .* at here"):
                taylor_jet(Graph(nodes, nodes[-1], {}), SERIES, 2)


@pytest.mark.parametrize("at", [0.0, 1e-9, 1e-5, 0.3])
@pytest.mark.parametrize(
    "f",
    [
        lambda x: torch.special.i1(x) / 2,
        lambda x: torch.special.i0(x),
        lambda x: torch.special.i0e(x + 0.5),
        lambda x: torch.special.log_ndtr(x),
        lambda x: torch.special.spherical_bessel_j0(x),
    ],
)
def test_near_a_removable_singularity_it_is_right_or_refused(f: Callable[[Tensor], Tensor], at: float) -> None:
    point = torch.full((1,), at, dtype=torch.float64)
    series = torch.stack([point, torch.ones_like(point)])[:, None]
    try:
        got = taylor_jet(trace(f, point), series, 1)[0, 2]
    except UnsupportedOpError:
        return
    h = 2.0**-8
    ahead, behind = f(point + h), f(point - h)
    assert abs(got - (ahead - 2 * f(point) + behind) / h**2) < 1e-3
