"""Numbers that decompositions add are the real ones in proofs, not their floats."""

from __future__ import annotations

from collections.abc import Callable

import flint
import numpy as np
import pytest
import torch
from cases.ball_jets import BITS, U, enclosed
from flint import arb
from torch import Tensor

import fisherflat as ff

CHART = ff.charts.affine([0.5, 0.25, 2.0], torch.eye(3)[:2])


def parts(z: Tensor) -> Tensor:
    return torch.view_as_real(z).reshape(-1)


def the_point() -> list[arb]:
    return [arb(0.5) + arb(U[0]), arb(0.25) + arb(U[1]), arb(2)]


def circle(j: int, n: int) -> tuple[arb, arb]:
    return arb.cos_pi(arb(2 * j) / n), arb.sin_pi(arb(2 * j) / n)


def transform(x: list[arb], scale: Callable[[arb], arb] = lambda n: arb(1)) -> list[arb]:
    """Real and imaginary parts of the Fourier transform, by its definition."""
    n, found = len(x), []
    for j in range(n):
        turns = [circle(j * m % n, n) for m in range(n)]
        found += [sum(a * t[0] for a, t in zip(x, turns, strict=True)) * scale(arb(n)),
                  -sum(a * t[1] for a, t in zip(x, turns, strict=True)) * scale(arb(n))]  # fmt: skip
    return found


#: map, and its value in balls
IDEAL: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[list[arb]], list[arb]]]] = {
    "fft": (lambda x: parts(torch.fft.fft(x)), transform),
    "fft_of_five": (lambda x: parts(torch.fft.fft(torch.cat([x, x[:2]]))), lambda x: transform(x + x[:2])),
    "fft_of_unit_size": (
        lambda x: parts(torch.fft.fft(x, norm="ortho")), lambda x: transform(x, lambda n: 1 / n.sqrt())
    ),
    "fft_forward": (lambda x: parts(torch.fft.fft(x, norm="forward")), lambda x: transform(x, lambda n: 1 / n)),
    "atan2": (lambda x: torch.atan2(x, x - 5), lambda x: [arb.pi() - (a / (5 - a)).atan() for a in x]),
    "angle": (lambda x: torch.complex(x - 5, x).angle(), lambda x: [arb.pi() - (a / (5 - a)).atan() for a in x]),
    "angle_of_real": (lambda x: (x - 3).angle() * x, lambda x: [arb.pi() * a for a in x]),
    "mvlgamma": (
        lambda x: torch.mvlgamma(x + 3, 3),
        lambda x: [arb.pi().log() * 3 / 2 + sum(((a + 3) - arb(j) / 2).lgamma() for j in range(3)) for a in x],
    ),
    "xlogy": (lambda x: torch.xlogy(x, 3), lambda x: [a * arb(3).log() for a in x]),
    "deg2rad": (torch.deg2rad, lambda x: [a * arb.pi() / 180 for a in x]),
    "rad2deg": (torch.rad2deg, lambda x: [a * 180 / arb.pi() for a in x]),
    "sinc": (torch.sinc, lambda x: [(a * arb.pi()).sin() / (a * arb.pi()) for a in x]),
    "log2": (torch.log2, lambda x: [a.log() / arb(2).log() for a in x]),
    "exp2": (torch.exp2, lambda x: [(a * arb(2).log()).exp() for a in x]),
    "log10": (torch.log10, lambda x: [a.log() / arb(10).log() for a in x]),
    "logaddexp2": (
        lambda x: torch.logaddexp2(x, -x), lambda x: [(arb(2) ** a + arb(2) ** -a).log() / arb(2).log() for a in x]
    ),
    "gelu": (torch.nn.functional.gelu, lambda x: [a * (1 + (a / arb(2).sqrt()).erf()) / 2 for a in x]),
}  # fmt: skip


@pytest.mark.parametrize("name", IDEAL)
def test_values_are_those_of_the_real_numbers(name: str) -> None:
    f, truth = IDEAL[name]
    value = enclosed(f, CHART)[0]
    with flint.ctx.workprec(4 * BITS):
        right = truth(the_point())
    assert len(value) == len(right)
    for found, exact in zip(value, right, strict=True):
        assert found.overlaps(exact)
        assert found.rad() < 1e-30, "a float's error would not show"


@pytest.mark.parametrize("name", IDEAL)
def test_engines_round_them(name: str) -> None:
    f, truth = IDEAL[name]
    found = (
        ff.StatisticalManifold(lambda x: torch.cat([x, f(x).reshape(-1)]), CHART)
        .jet(torch.tensor(U, dtype=torch.float64))
        .value[3:]
    )
    with flint.ctx.workprec(BITS):
        right = np.array([float(x) for x in truth(the_point())])
    assert np.allclose(found.numpy(), right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["fft_of_five", "atan2", "mvlgamma", "angle", "fft_of_unit_size"])
def test_the_verifier_knows_them_too(name: str) -> None:
    def bent(x: Tensor) -> Tensor:
        return torch.cat([x, IDEAL[name][0](x + x[0] * x[1] / 8).reshape(-1)])

    found = ff.certify(bent, CHART, at=torch.tensor(U, dtype=torch.float64))
    assert found.verdict == "curved"
    assert ff.verify(found, bent, CHART).ok


def test_a_fourier_transform_is_linear() -> None:
    """Its matrix depends on no number of the input: proved by structure, and seen by the verifier."""
    found = ff.certify(IDEAL["fft_of_five"][0], CHART)
    assert found.verdict == "flat"
    assert ff.verify(found, IDEAL["fft_of_five"][0], CHART).ok
