"""QR of many matrices at once, as a GPU does it, against LAPACK's."""

from __future__ import annotations

import pytest
import torch

from fisherflat.geometry import Geometry, _frame
from fisherflat.geometry._factored import gram_schmidt
from fisherflat.jets import Jet


def columns(k: int, condition: float = 1.0) -> torch.Tensor:
    torch.manual_seed(0)
    drawn = torch.randn(7, 40, k, dtype=torch.float64)
    if condition == 1:
        return drawn
    left, _, right = torch.linalg.svd(drawn, full_matrices=False)
    return left * torch.logspace(0, -torch.tensor(condition).log10().item(), k, dtype=torch.float64) @ right


@pytest.mark.parametrize("k", [1, 2, 5, 16])
@pytest.mark.parametrize("condition", [1.0, 1e6, 1e12])
def test_of_any_condition(k: int, condition: float) -> None:
    a = columns(k, condition)
    q, r = gram_schmidt(a)
    assert (q.mT @ q - torch.eye(k, dtype=torch.float64)).abs().max() < 64 * torch.finfo(torch.float64).eps
    assert (q @ r - a).abs().max() < 64 * torch.finfo(torch.float64).eps * a.abs().max()
    assert r.tril(-1).count_nonzero() == 0
    expected = torch.linalg.qr(a)[1]
    # the factor of a matrix moves with it as its condition, Stewart, Perturbation bounds for the QR factorization
    margin = 1e3 * torch.finfo(torch.float64).eps * condition * expected.abs().max()
    assert (r - expected * expected.diagonal(dim1=-2, dim2=-1).sign()[..., None]).abs().max() < margin


def test_a_column_that_depends_on_others_is_zero_to_rounding() -> None:
    a = columns(3)
    a[:, :, 2] = a[:, :, 0] - 2 * a[:, :, 1]
    a[3] = torch.randn(40, 3, dtype=torch.float64)
    a[3, :, 1] = 0.0
    q, r = gram_schmidt(a)
    assert torch.isfinite(q).all()
    assert (r[:3, 2, 2] / r[:3, 0, 2].abs()).max() < 1e-14
    assert r[3, 1, 1] == 0
    assert (q[3, :, 1] == 0).all()


def test_its_gradient() -> None:
    assert torch.autograd.gradcheck(gram_schmidt, columns(3).requires_grad_(True))


def test_geometry_does_not_depend_on_which(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    jet = Jet(torch.randn(5, 1 + 3 + 6, 20, dtype=torch.float64), 3)
    expected = Geometry(jet)
    monkeypatch.setattr(_frame, "factored", gram_schmidt)
    found = Geometry(jet)
    for name in ("metric", "christoffel", "riemann", "scalar_curvature", "second_fundamental_form", "mean_curvature"):
        assert torch.allclose(getattr(found, name), getattr(expected, name), rtol=1e-11, atol=1e-12)
