"""A family of one's own: what `fisherflat.families.Family` promises."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import fisherflat as ff

D = torch.float64


class StudentT:
    """Location family of the t distribution with unit scale matrix and nu degrees of freedom.

    Its Fisher information is (nu + D) / (nu + D + 2) times the identity (Lange, Little & Taylor 1989, appendix B).
    """

    def __init__(self, nu: float) -> None:
        self.nu = nu

    def check(self, ambient_dim: int) -> None:
        pass

    def whiten(self, vectors: torch.Tensor) -> torch.Tensor:
        d = vectors.shape[-1]
        return vectors * ((self.nu + d) / (self.nu + d + 2)) ** 0.5


def test_a_family_of_ones_own_measures() -> None:
    """A sphere of radius 2 where lengths are sqrt(information) times as long: scal = 2 / (4 information)."""
    sphere = lambda u: torch.cat([u, (4 - u @ u).sqrt()[None]])  # noqa: E731
    chart, family = ff.charts.identity(2), StudentT(3.0)
    assert isinstance(family, ff.families.Family) and isinstance(ff.Gaussian(), ff.families.Family)
    information = 6 / 8
    found = ff.StatisticalManifold(sphere, chart, family).scalar_curvature([0.3, 0.2])
    assert found.item() == pytest.approx(0.5 / information, rel=1e-12)
    # sampled from the density: the covariance of the score of the location
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(200_000, 3, dtype=D, generator=generator)
    chi2 = torch.distributions.Chi2(torch.tensor(3.0, dtype=D))
    torch.manual_seed(0)
    x = normal / (chi2.sample((200_000, 1)) / 3).sqrt()
    score = (3 + 3) * x / (3 + x.square().sum(-1, keepdim=True))
    assert torch.allclose(score.T @ score / len(x), information * torch.eye(3, dtype=D), atol=0.01)


REFUSED = """
import fisherflat as ff, torch

class Other:
    def check(self, ambient_dim): pass
    def whiten(self, vectors): return vectors

saddle, chart = lambda u: torch.cat([u, u.prod()[None]]), ff.charts.identity(2)
for call, family in [(ff.StatisticalManifold, 0.5), (ff.StatisticalManifold, ff.Gaussian), (ff.certify, Other())]:
    try:
        call(saddle, chart, family)
    except ff.errors.InputError as error:
        print(error)
"""


def test_what_is_no_family_is_refused() -> None:
    """In an interpreter of its own, where no types are checked before the library looks."""
    said = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said[0].endswith("got float") and said[1].endswith("got the class Gaussian") and said[2].endswith("Other")
