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
        ("_pdist_forward", lambda x: torch.nn.functional.pdist(x)),
        ("scatter_reduce", lambda x: x.scatter_reduce(0, GRID[:1, :3] * 0, x[1:], "prod")),  # whose gradient branches
    ],
)
def test_what_torch_cannot_differentiate_is_an_error_with_a_way_out(op: str, f: Callable[[Tensor], Tensor]) -> None:
    message = raised_by(f)
    assert f"aten.{op} at test_fallback.py" in message
    assert "write that step in simpler ops" in message
