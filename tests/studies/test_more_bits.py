"""Analyses whose poor points are computed in more bits."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from cases.tiny_models import tiny_model
from torch import Tensor, nn

import fisherflat as ff
from fisherflat.errors import InputError, PrecisionWarning
from fisherflat.studies.depth import _depths
from fisherflat.studies.layers import _measure


class Swamped(nn.Module):
    """A block with or without a term that cancels and takes most digits with it: the same map."""

    def __init__(self, large: float) -> None:
        super().__init__()
        self.up, self.down, self.large = nn.Linear(6, 12), nn.Linear(12, 6), large

    def forward(self, x: Tensor) -> Tensor:
        y = x + self.down(torch.tanh(self.up(x)))
        if not self.large:
            return y
        term = self.large * torch.tanh(x.sum(-1, keepdim=True) / 9)
        return (y + term) - term


class Chain(nn.Module):
    def __init__(self, large: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Swamped(large), Swamped(large)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def model(large: float) -> nn.Module:
    torch.manual_seed(0)
    return Chain(large).double()


STATES = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
SETTINGS = {"layers": [0], "parts": ["block"], "positions": "last", "points": 3, "progress": False}


def test_poor_points_of_an_analysis_are_right_in_more_bits() -> None:
    # the unit is that of the outputs, whose roundings differ; so all but one factor is the same as without the term
    truth, poor, auto = (
        ff.analyze(model(large), STATES, precision=precision, **SETTINGS).table
        for large, precision in ((0.0, "working"), (1e13, "working"), (1e13, "auto"))
    )
    ratios = [(table.scalar_curvature / table.scalar_curvature[0]).tolist() for table in (truth, poor, auto)]
    assert ratios[2] == pytest.approx(ratios[0], rel=1e-9) and ratios[1] != pytest.approx(ratios[0], rel=1e-7)
    assert (auto.scalar_curvature_error < 1e-12 * auto.scalar_curvature.abs()).all()
    assert (poor.scalar_curvature_error > 1e-6 * poor.scalar_curvature.abs()).all()
    off = (auto.scalar_curvature - poor.scalar_curvature).abs()
    assert (off <= auto.scalar_curvature_error + poor.scalar_curvature_error).all()
    assert set(auto.verdict) == {"curved"}
    norms = (auto.second_fundamental_form_norm / auto.second_fundamental_form_norm[0]).tolist()
    expected = (truth.second_fundamental_form_norm / truth.second_fundamental_form_norm[0]).tolist()
    assert norms == pytest.approx(expected, rel=1e-9)


def test_heads_are_computed_in_more_bits_each_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SETTINGS, "parts": ["attention"], "heads": "all", "points": 2}
    plain = ff.analyze(tiny_model("bert"), [5, 6, 7], **settings).table
    monkeypatch.setattr(_measure, "poor", lambda value, *_: torch.ones_like(value, dtype=torch.bool))
    found = ff.analyze(tiny_model("bert"), [5, 6, 7], precision="auto", **settings).table
    assert not found.scalar_curvature.equals(plain.scalar_curvature) and list(found.part) == list(plain.part)
    for name in ("scalar_curvature", "second_fundamental_form_norm", "volume_density", "condition_number"):
        assert found[name].tolist() == pytest.approx(plain[name].tolist(), rel=1e-9, abs=1e-18)


def test_where_there_are_no_balls_an_analysis_says_so_and_keeps_its_errors() -> None:
    with pytest.warns(PrecisionWarning, match="3 of 3 points could not be computed in more bits.*graph"):
        found = ff.analyze(model(1e13), STATES, precision="auto", engine="autodiff", **SETTINGS).table
    assert (found.scalar_curvature_error > 1e-6 * found.scalar_curvature.abs()).all()
    with pytest.raises(InputError, match="precision must be one of"):
        ff.analyze(model(0.0), STATES, precision="quad", **SETTINGS)


def test_points_with_digits_are_left_as_they_are() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", PrecisionWarning)
        plain, auto = (ff.analyze(model(0.0), STATES, precision=p, **SETTINGS).table for p in ("working", "auto"))
    assert plain.scalar_curvature.equals(auto.scalar_curvature)


def test_poor_points_along_the_depth_are_right_in_more_bits() -> None:
    """In one unit for all depths, the spread of what enters, of which nothing has been rounded."""
    options: dict[str, Any] = {"points": 3, "budget_points": 0, "resolution": 0, "errors": "all", "progress": False}
    truth, poor, auto = (
        ff.study_depth(model(large), STATES, precision=precision, **options).fixed_profiles["live"]
        for large, precision in ((0.0, "working"), (1e13, "working"), (1e13, "auto"))
    )
    for name in ("scalar_curvature", "largest_sectional_curvature", "mean_curvature_norm", "condition_number"):
        expected, near, far = (getattr(one, name)[1:].flatten().tolist() for one in (truth, auto, poor))
        assert near == pytest.approx(expected, rel=1e-9) and far != pytest.approx(expected, rel=1e-7)
    assert auto.scalar_curvature_error is not None and poor.scalar_curvature_error is not None
    assert (auto.scalar_curvature_error[1:] < 1e-12 * auto.scalar_curvature[1:].abs()).all()
    assert (poor.scalar_curvature_error[1:] > 1e-6 * poor.scalar_curvature[1:].abs()).all()


def test_where_there_are_no_balls_a_study_of_depth_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_depths, "poor", lambda value, *_: torch.ones_like(value, dtype=torch.bool))
    blocks, chart = model(0.0).blocks, ff.charts.affine(STATES[0], torch.eye(6, dtype=torch.float64)[:2])
    with pytest.warns(PrecisionWarning, match="3 of 3 points could not .* and Poisson is another"):
        ff.depth_profile(blocks, chart, family=ff.families.Poisson(), precision="auto")
    with pytest.raises(InputError, match="precision must be one of"):
        ff.depth_profile(blocks, chart, precision="quad")
    with pytest.raises(InputError, match="precision='auto' needs a few directions"):
        ff.study_depth(model(0.0), STATES, k="full", precision="auto", progress=False)


def test_families_without_balls_say_why() -> None:
    weights = torch.randn(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    point = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    point[2] = 1e4
    chart = ff.charts.affine(point, torch.stack([point / 8, torch.ones(6, dtype=torch.float64)]))
    M = ff.StatisticalManifold(
        lambda x: torch.tanh(nn.functional.rms_norm(x, (6,), eps=1e-5) @ weights), chart, ff.families.Poisson()
    )
    with pytest.warns(PrecisionWarning, match="Gaussians of one covariance, and Poisson is another"):
        found = M.measure([0.0, 0.0], ["scalar_curvature"], error=True, precision="auto")
    assert found["scalar_curvature_error"] > 1e-6 * found["scalar_curvature"].abs()
