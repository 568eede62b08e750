"""Laws of growth: found where they hold, and not found where they do not."""

from __future__ import annotations

import math

import pytest
import torch
from cases.stacks import paraboloid_stack

import fisherflat as ff
from fisherflat.errors import InputError

DEPTH = torch.arange(1, 13, dtype=torch.float64)[:, None]


def noisy(law, spread: float = 0.1, points: int = 40):
    generator = torch.Generator().manual_seed(3)
    level = torch.rand(points, generator=generator, dtype=torch.float64) * 3
    return law * (level + spread * torch.randn(12, points, generator=generator, dtype=torch.float64)).exp()


def test_a_power_law_is_found_with_its_interval() -> None:
    found = ff.growth(noisy(DEPTH**1.9))
    assert found.model == "power"
    assert found.low < 1.9 < found.high
    assert found.high - found.low < 0.1
    assert str(found).startswith("grows like depth^1.9 (95 % interval")
    assert "over 40 points" in str(found)


def test_an_exponential_law_is_told_from_a_power_law() -> None:
    found = ff.growth(noisy((0.4 * DEPTH).exp()))
    assert found.model == "exponential"
    assert found.low < 0.4 < found.high
    assert found.aic["exponential"] < found.aic["power"]


def test_decay_has_its_own_word_and_sign_does_not_matter() -> None:
    found = ff.growth(-noisy(DEPTH**-1.0))
    assert found.model == "power"
    assert str(found).startswith("decays like depth^-1")


def test_noise_is_no_growth() -> None:
    found = ff.growth(noisy(torch.ones_like(DEPTH), spread=1.0, points=8))
    assert found.model == "none"
    assert str(found).startswith("no systematic growth")


def test_residual_paraboloids_grow_with_exponent_two() -> None:
    blocks, chart = paraboloid_stack(16, 0.25)
    profile = ff.depth_profile(blocks, chart, torch.zeros(3, 2))
    found = ff.growth(profile.scalar_curvature[1:])
    assert found.model == "power"
    assert found.rate == pytest.approx(2, abs=1e-12)
    assert found.factor == pytest.approx(8 * 0.25**2)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        slopes = 1 + 0.5 * torch.randn(20, generator=generator, dtype=torch.float64)
        found = ff.growth(DEPTH**slopes, resamples=300)
        hits += found.low < 1 < found.high
    assert 85 <= hits <= 100


def test_flat_points_are_left_out_and_flat_stacks_have_no_law() -> None:
    values = noisy(DEPTH**2)
    values[3, :5] = 0
    assert ff.growth(values).trajectories == 35
    flat = ff.growth(torch.zeros(12, 4))
    assert flat.model == "none"
    assert math.isnan(flat.rate)


def test_depths_can_be_given() -> None:
    every_other = 2 * DEPTH
    assert ff.growth(noisy(every_other**2, spread=0.0), depth=every_other[:, 0]).rate == pytest.approx(2)


@pytest.mark.parametrize("depth", [None, torch.zeros(12), torch.ones(3)])
def test_bad_input_is_named(depth) -> None:
    with pytest.raises(InputError, match="depth"):
        ff.growth(torch.ones(2 if depth is None else 12, 4), depth=depth)
