"""Maps that try to get past the recorder: each engine, the prover and the verifier are right about them or refuse."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from cases import adversarial, detours
from cases.adversarial import NO_FUNCTIONS, A, D
from cases.differences import by_differences
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import FisherflatError

FUNCTIONS = adversarial.FUNCTIONS | detours.FUNCTIONS
POINT = torch.tensor([0.3, -0.7, 1.4, 2.3], dtype=D)
CHART = ff.charts.affine(POINT, torch.randn(2, 4, dtype=D, generator=torch.Generator().manual_seed(3)))
U = torch.tensor([0.25, -0.5], dtype=D)

pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def value(f: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    with torch.no_grad():
        return f(CHART(u).clone()).detach().double().reshape(-1).clone()


def truth(f: Callable[[Tensor], Tensor]) -> Tensor:
    """The jet `[S, D]` at `U` by differences of the map's own values."""
    return torch.stack(by_differences(lambda u: value(f, u), U, 2.0**-10))


def close(found: Tensor, right: Tensor, low: bool) -> bool:
    """Whether two jets agree where they are finite, as far as differences of the map's values tell.

    Torch gives NaN for the derivative of what `where` does not choose: that is no number, and none that is wrong.
    """
    finite = right.isfinite() & ~found.isnan()
    scale = right[finite].abs().max()
    return bool(((found - right)[finite].abs() <= (3e-2 if low else 2e-5) * scale).all())


def curvature(jet: Tensor) -> float:
    d, h = jet[1:3], jet[3:6]
    g = d @ d.T
    a, x, b = (v - torch.linalg.solve(g, d @ v) @ d for v in h)
    return float((a @ b - x @ x) / torch.linalg.det(g))


#: rounded on their way, so that differences of values tell nothing of their derivatives
ROUNDED = ("half", "autocast", "single", "lower_precision", "bits", "bytes")


@pytest.mark.parametrize("engine", ["taylor", "autodiff"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_engines_are_right_or_refuse(name: str, engine: str) -> None:
    f = FUNCTIONS[name]
    try:
        found = ff.StatisticalManifold(f, CHART, engine=engine).jet(U).coefficients
    except FisherflatError:
        return
    rounded = any(word in name for word in ROUNDED)
    right = truth(f)
    rows = slice(0, 1 if rounded else None)
    assert close(found[rows], right[rows], rounded)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_provers_and_verifiers_are_right_or_refuse(name: str) -> None:
    f = FUNCTIONS[name]
    try:
        certificate = ff.certify(f, CHART, at=U)
    except FisherflatError:
        return
    if any(word in name for word in ROUNDED):
        return
    affine = all(
        torch.allclose(value(f, (a + b) / 2), (value(f, a) + value(f, b)) / 2, rtol=1e-9, atol=1e-9)
        for a, b in torch.randn(8, 2, 2, dtype=D, generator=torch.Generator().manual_seed(4))
    )
    if certificate.verdict == "flat":
        assert affine or (certificate.scope == "off kinks" and abs(curvature(truth(f))) < 1e-8)
    elif certificate.verdict == "curved":
        low, high = map(float, certificate.enclosure)
        right = curvature(truth(f)[:, value(f, U).isfinite()])
        assert low - 1e-4 * abs(right) <= right <= high + 1e-4 * abs(right)
    flat = ff.certify(lambda x: A @ x, CHART)
    assert affine or not ff.verify(flat, f, CHART).ok


@pytest.mark.parametrize("name", NO_FUNCTIONS)
def test_what_is_no_function_is_refused(name: str) -> None:
    for engine in ("taylor", "autodiff"):
        with pytest.raises(FisherflatError):
            ff.StatisticalManifold(NO_FUNCTIONS[name](), CHART, engine=engine).jet(U)
    with pytest.raises(FisherflatError):
        ff.certify(NO_FUNCTIONS[name](), CHART, at=U)
    assert not ff.verify(ff.certify(lambda x: A @ x, CHART), NO_FUNCTIONS[name](), CHART).ok
