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
from cases.rules import GRID, c
from torch import Tensor

from fisherflat.errors import FallbackWarning, UnsupportedOpError
from fisherflat.jets.graph import Graph, Node, getitem
from fisherflat.parts import trace


@pytest.fixture(autouse=True)
def nothing_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fisherflat.jets.engines._fallback._warned", set())


def matrix(x: np.ndarray) -> mpmath.matrix:
    """A well-conditioned matrix in mpmath."""
    return mpmath.matrix((x + 3 * np.eye(len(x), dtype=int)).tolist())


def array(m: Any) -> np.ndarray:
    return np.array(m.tolist(), dtype=object)


def shifted(x: Tensor) -> Tensor:
    return x + 3 * torch.eye(3, dtype=x.dtype)


def scalar(f: Callable[[Any], Any]) -> Callable[[np.ndarray], np.ndarray]:
    return np.frompyfunc(f, 1, 1)


def ndtri(p: Any) -> Any:
    return -mpmath.sqrt(2) * mpmath.erfinv(1 - 2 * p)


B = c(3, 2)
B_ = mpmath.matrix(B.tolist())

#: op -> (input shape, function, the same in mpmath)
CASES: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor], Callable[[np.ndarray], Any] | None]] = {
    "_linalg_solve_ex": (
        (3, 3),
        lambda x: torch.linalg.solve(shifted(x), B),
        lambda x: array(mpmath.inverse(matrix(x)) * B_),
    ),
    "_linalg_det": ((3, 3), lambda x: torch.linalg.det(x), lambda x: mpmath.det(mpmath.matrix(x.tolist()))),
    "_linalg_slogdet": (
        (3, 3),
        lambda x: torch.linalg.slogdet(shifted(x))[1],
        lambda x: mpmath.log(abs(mpmath.det(matrix(x)))),
    ),
    "linalg_inv_ex": ((3, 3), lambda x: torch.linalg.inv(shifted(x)), lambda x: array(mpmath.inverse(matrix(x)))),
    "linalg_cholesky_ex": (
        (3, 3),
        lambda x: torch.linalg.cholesky(shifted(x @ x.T)),
        lambda x: array(mpmath.cholesky(matrix(x @ x.T))),
    ),
    "_linalg_eigh": (
        (3, 3),
        lambda x: torch.linalg.eigvalsh(x + x.T),
        lambda x: array(mpmath.eigsy(mpmath.matrix((x + x.T).tolist()), eigvals_only=True)),
    ),
    "_linalg_svd": (
        (3, 3),
        lambda x: torch.linalg.svdvals(x),
        lambda x: array(mpmath.svd_r(mpmath.matrix(x.tolist()), compute_uv=False)),
    ),
    "linalg_matrix_exp": (
        (3, 3),
        lambda x: torch.linalg.matrix_exp(x / 4),
        lambda x: array(mpmath.expm(mpmath.matrix((x / 4).tolist()), method="taylor")),
    ),
    "scatter_reduce": ((2, 4), lambda x: x.scatter_reduce(0, GRID[:, :3] // 2, x[:, 1:] * x[:, :3], "mean"), None),
    "convolution": ((2, 4), lambda x: torch.nn.functional.conv1d(x, x[None, :, :2] * 2, x[0, :1]), None),
    "huber_loss": ((4,), lambda x: torch.nn.functional.huber_loss(x, x * x, reduction="none", delta=0.5), None),
    "lgamma": ((4,), lambda x: (x + 3).lgamma(), scalar(lambda x: mpmath.loggamma(x + 3))),
    "digamma": ((4,), lambda x: (x + 3).digamma(), scalar(lambda x: mpmath.digamma(x + 3))),
    "special_i0e": ((4,), lambda x: torch.special.i0e(x), scalar(lambda x: mpmath.besseli(0, x) * mpmath.exp(-abs(x)))),
    "special_erfcx": ((4,), lambda x: torch.special.erfcx(x), scalar(lambda x: mpmath.erfc(x) * mpmath.exp(x * x))),
    "special_log_ndtr": ((4,), lambda x: torch.special.log_ndtr(x), scalar(lambda x: mpmath.log(mpmath.ncdf(x)))),
    "special_ndtri": (
        (4,),
        lambda x: torch.special.ndtri(x / 8 + 0.5),
        scalar(lambda x: ndtri(x / 8 + mpmath.mpf(0.5))),
    ),
    "sinc": ((4,), lambda x: torch.sinc(x), scalar(mpmath.sincpi)),
    "pow": ((4,), lambda x: (x + 3) ** x.flip(0), lambda x: np.frompyfunc(mpmath.power, 2, 1)(x + 3, x[::-1])),
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
            atol=(1e-7 if exact is None else 1e-9 if "gamma" in name else 1e-11) * want.abs().max().item(),
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
        ("bincount", lambda x: x * x.argmax(1).bincount().sum()),  # whose length depends on values
        ("scatter_reduce", lambda x: x.scatter_reduce(0, GRID[:1, :3] * 0, x[1:], "prod")),  # whose gradient branches
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
