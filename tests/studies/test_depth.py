"""The geometry after every block, against stacks cut short and against closed forms."""

from __future__ import annotations

import gc
import warnings
import weakref
from pathlib import Path

import pytest
import torch
from cases.stacks import linear_stack, paraboloid_stack, residual_stack

import fisherflat as ff
from fisherflat.errors import InputError, MapError
from fisherflat.studies.depth import QUANTITIES, Stack, budget, profile


def composed(blocks):
    def stack(x):
        for block in blocks:
            x = block(x)
        return x

    return stack


@pytest.fixture
def setting():
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    chart = ff.charts.token(hidden, 2, torch.randn(3, 8, generator=generator, dtype=torch.float64))
    return chart, 0.3 * torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("gate", [None, ff.layers.Gate("silu")])
def test_each_depth_is_the_stack_cut_short(setting, gate) -> None:
    chart, u = setting
    blocks = residual_stack(4, gate=gate)
    found = ff.depth_profile(blocks, chart, u)
    assert found.depth == 4
    for depth in range(5):
        geometry = ff.StatisticalManifold(composed(blocks[:depth]), chart).at(u)
        scale = geometry.cancellation_scale.max() if depth else 1.0
        torch.testing.assert_close(
            found.scalar_curvature[depth] / scale, geometry.scalar_curvature / scale, rtol=0, atol=1e-12
        )
        extremes = geometry.sectional_extremes.unbind(-1)
        torch.testing.assert_close(found.smallest_sectional_curvature[depth], extremes[0], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.largest_sectional_curvature[depth], extremes[1], rtol=1e-9, atol=1e-12)
        for name in QUANTITIES[3:]:
            torch.testing.assert_close(getattr(found, name)[depth], getattr(geometry, name), rtol=1e-10, atol=1e-12)


def test_the_other_engine_agrees_on_the_last_depth(setting) -> None:
    chart, u = setting
    blocks = residual_stack(2, gate=ff.layers.Gate())
    found = ff.depth_profile(blocks, chart, u[0, 0])
    other = ff.StatisticalManifold(composed(blocks), chart, engine="autodiff").scalar_curvature(u[0, 0])
    torch.testing.assert_close(found.scalar_curvature[-1], other, rtol=1e-9, atol=0)


def test_residual_paraboloids_amplify_with_the_square_of_depth() -> None:
    a = 0.3
    blocks, chart = paraboloid_stack(32, a)
    found = ff.depth_profile(blocks, chart, torch.zeros(2))
    depth = torch.arange(33, dtype=torch.float64)
    torch.testing.assert_close(found.scalar_curvature / 2, 4 * a**2 * depth**2, rtol=1e-12, atol=1e-12)


def test_affine_layers_are_flat_at_every_depth(setting) -> None:
    chart, u = setting
    found = ff.depth_profile(linear_stack(5), chart, u)
    assert (found.scalar_curvature == 0).all()
    assert (found.second_fundamental_form_norm == 0).all()


def test_ungated_attention_with_frozen_patterns_is_flat_at_every_depth(setting) -> None:
    chart, u = setting
    blocks = residual_stack(4, mlp=False)
    live = ff.depth_profile(blocks, chart, u)
    frozen = ff.depth_profile(ff.freeze_stack(blocks, chart.point), chart, u)
    assert (frozen.second_fundamental_form_norm == 0).all()
    assert (live.scalar_curvature[1:].abs() > 1e-6).all()


def test_ungated_attention_with_frozen_patterns_is_flat_by_certificate(setting) -> None:
    """Proved, not measured, at every depth: the composed frozen stack is affine. A gate refutes it."""
    chart, _ = setting
    frozen = ff.freeze_stack(residual_stack(3, mlp=False), chart.point)
    for depth in (1, 2, 3):
        stack = composed(frozen[:depth])
        certificate = ff.certify(stack, chart)
        assert certificate.verdict == "flat"
        assert ff.verify(certificate, stack, chart).ok
    gated = composed(ff.freeze_stack(residual_stack(3, gate=ff.layers.Gate(), mlp=False), chart.point))
    assert ff.certify(gated, chart).verdict == "curved"
    assert not ff.verify(certificate, gated, chart).ok


@pytest.mark.parametrize("reading", ["live", "frozen pattern", "frozen pattern+gate"])
def test_a_reading_holds_the_same_as_freezing_by_hand(setting, reading: str) -> None:
    chart, u = setting
    blocks = residual_stack(3, gate=ff.layers.Gate())
    roles = {"live": (), "frozen pattern": ("pattern",), "frozen pattern+gate": ("pattern", "attention_gate")}[reading]
    by_hand = ff.depth_profile(ff.freeze_stack(blocks, chart.point, roles) if roles else blocks, chart, u)
    found = ff.depth_profile(blocks, chart, u, reading=reading)
    assert found.reading == reading and by_hand.reading == "live"
    torch.testing.assert_close(found.scalar_curvature, by_hand.scalar_curvature, rtol=1e-12, atol=0)


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("reading", ["live", "frozen pattern"])
def test_graphs_need_not_be_kept(setting, halves: bool, reading: str) -> None:
    """What is traced anew in each pass gives the same numbers, and only one block's graph is alive at a time."""
    chart, u = setting
    blocks = residual_stack(3)
    kept, anew = (Stack(blocks, chart, halves=halves, keep=keep).read(reading) for keep in (True, False))
    torch.testing.assert_close(profile(anew, u).scalar_curvature, profile(kept, u).scalar_curvature, rtol=1e-12, atol=0)
    torch.testing.assert_close(budget(anew, u).matrix, budget(kept, u).matrix, rtol=1e-12, atol=0)
    seen = [weakref.ref(graph) for graph in anew.graphs()]
    gc.collect()
    assert sum(ref() is not None for ref in seen) <= 1
    alive = [ref for ref in seen[:-1] if ref() is not None]
    assert not alive


def test_a_frozen_stack_agrees_with_the_live_one_at_its_base(setting) -> None:
    chart, _ = setting
    blocks = residual_stack(3, gate=ff.layers.Gate())
    frozen = ff.freeze_stack(blocks, chart.point, ("pattern", "attention_gate"))
    torch.testing.assert_close(composed(frozen)(chart.point), composed(blocks)(chart.point))
    assert all(graph.frozen == ("pattern", "attention_gate") for graph in frozen)


def test_calibrated_profiles_do_not_change_when_the_model_is_scaled(setting) -> None:
    chart, u = setting
    blocks = residual_stack(3)
    scaled = [*blocks[:-1], lambda x: 7.0 * blocks[-1](x)]
    one, two = (ff.depth_profile(b, chart, u, family="calibrated") for b in (blocks, scaled))
    torch.testing.assert_close(one.scalar_curvature, two.scalar_curvature, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(two.covariance[-1] / one.covariance[-1], torch.tensor(49.0, dtype=torch.float64))


def test_the_covariance_scales_curvature(setting) -> None:
    chart, u = setting
    blocks = residual_stack(2)
    one, four = (ff.depth_profile(blocks, chart, u, family=ff.Gaussian(c)).scalar_curvature for c in (1.0, 4.0))
    torch.testing.assert_close(4 * one, four, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("family", [ff.Gaussian(0.3), "calibrated"])
def test_a_profile_converts_to_another_covariance(setting, family) -> None:
    chart, u = setting
    converted = ff.depth_profile(residual_stack(2), chart, u, family=family).with_covariance(2.0)
    expected = ff.depth_profile(residual_stack(2), chart, u, family=ff.Gaussian(2.0))
    for name in (*QUANTITIES, "covariance", "mean_sectional_curvature"):
        torch.testing.assert_close(getattr(converted, name), getattr(expected, name), rtol=1e-9, atol=1e-12)
    full = ff.depth_profile(
        [lambda x: x + x**2], ff.charts.identity(3), torch.zeros(3), family=ff.Gaussian([1.0, 2.0, 3.0])
    )
    with pytest.raises(InputError, match="are numbers"):
        full.with_covariance(1.0)


def test_a_small_memory_budget_changes_nothing(setting) -> None:
    chart, u = setting
    blocks = residual_stack(2)
    torch.testing.assert_close(
        ff.depth_profile(blocks, chart, u, memory=50_000).scalar_curvature,
        ff.depth_profile(blocks, chart, u).scalar_curvature,
    )


def test_the_table_has_a_row_for_each_depth_and_point(setting) -> None:
    chart, u = setting
    found = ff.depth_profile(residual_stack(2), chart, u)
    table = found.table
    assert len(table) == 3 * 4
    row = table[(table.depth == 2) & (table.point == 3)].iloc[0]
    assert row.scalar_curvature == found.scalar_curvature[2, 1, 1].item()


def test_degenerate_points_are_errors_or_nan(setting) -> None:
    chart, u = setting
    blocks = [lambda x: x * torch.tensor([1.0] + [0.0] * 7, dtype=torch.float64)]
    with pytest.raises(ff.errors.DegenerateImmersionError, match="rank 1"):
        ff.depth_profile(blocks, chart, u)
    with warnings.catch_warnings(record=True):
        assert ff.depth_profile(blocks, chart, u, degenerate="nan").scalar_curvature[1].isnan().all()


def test_bad_input_is_named(setting) -> None:
    chart, u = setting
    with pytest.raises(InputError, match="at least one block"):
        ff.depth_profile([], chart, u)
    with pytest.raises(InputError, match='"calibrated"'):
        ff.depth_profile(residual_stack(1), chart, u, family="calibrate")
    with pytest.raises(MapError, match="block 1"):
        ff.depth_profile([residual_stack(1)[0], lambda x: x @ torch.zeros(3, 3)], chart, u)
    with pytest.raises(InputError, match="k = 3"):
        ff.depth_profile(residual_stack(1), chart, torch.zeros(2))


def test_minilm_profile_is_the_geometry_of_its_first_blocks(minilm_path: Path) -> None:
    blocks = ff.load(str(minilm_path)).blocks("Curvature grows.")
    hidden = blocks[0].hidden_states
    chart = ff.charts.principal(hidden, 2)
    u = torch.tensor([[0.0, 0.0], [0.5, -0.5]])
    found = ff.depth_profile(blocks, chart, u)
    for depth in (1, 3):
        geometry = ff.StatisticalManifold(composed(blocks[:depth]), chart).at(u)
        error = (found.scalar_curvature[depth] - geometry.scalar_curvature).abs() / geometry.cancellation_scale
        assert error.max() < 1e-11
