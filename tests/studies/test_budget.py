"""The curvature budget: it adds up, and each part gets what is its own."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.maps import as_functions
from cases.stacks import linear_stack, paraboloid_stack, residual_stack
from torch import Tensor

import fisherflat as ff
from fisherflat.errors import InputError
from fisherflat.jets.graph import ROLES


def relative(budget: ff.CurvatureBudget, geometry: Any) -> float:
    scale = geometry.cancellation_scale.clamp_min(1e-300)
    return ((budget.scalar_curvature - geometry.scalar_curvature).abs() / scale).max().item()


@pytest.fixture
def setting():
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    chart = ff.charts.token(hidden, 1, torch.randn(2, 8, generator=generator, dtype=torch.float64))
    return chart, 0.3 * torch.randn(3, 2, generator=generator, dtype=torch.float64)


def chain(blocks):
    def stack(x):
        for block in blocks:
            x = block(x)
        return x

    return stack


def test_roles_sum_to_the_reference_curvature(reference_case: dict[str, Any]) -> None:
    mean, chart, family, at = as_functions(reference_case)
    budget = ff.curvature_budget(mean, chart, at, family=family)
    expected = float(reference_case["expected"]["scalar_curvature"])
    scale = ff.StatisticalManifold(mean, chart, family).at(at).cancellation_scale.clamp_min(1e-300)
    assert budget.labels == ROLES
    assert ((budget.scalar_curvature - expected).abs() / scale).item() < 1e-11
    torch.testing.assert_close(budget.matrix, budget.matrix.mT)


@pytest.mark.parametrize("by", ["role", "layer", "layer-role"])
@pytest.mark.parametrize("gate", [None, ff.layers.Gate("sigmoid")])
def test_it_sums_to_the_scalar_curvature_of_the_stack(setting, by: str, gate) -> None:
    chart, u = setting
    blocks = residual_stack(3, gate=gate)
    geometry = ff.StatisticalManifold(chain(blocks), chart).at(u)
    budget = ff.curvature_budget(blocks, chart, u, by=by)
    assert relative(budget, geometry) < 1e-10
    assert relative(ff.curvature_budget(blocks, chart, u, by=by, memory=50_000), geometry) < 1e-10
    torch.testing.assert_close((budget.own + budget.interaction).sum(-1), budget.scalar_curvature)
    torch.testing.assert_close(budget.share.sum(-1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("by", ["role", "layer"])
def test_a_coarser_budget_is_the_one_made_directly(setting, by: str) -> None:
    """The direct one carries other coefficients: one block a role or a layer, not one for each of both."""
    chart, u = setting
    blocks = [*residual_stack(2, gate=ff.layers.Gate()), linear_stack(1)[0]]
    fine = ff.curvature_budget(blocks, chart, u, by="layer-role")
    direct, sums = ff.curvature_budget(blocks, chart, u, by=by), fine.by(by)
    assert sums.labels == direct.labels
    for name in ("matrix", "traces", "products", "created", "surviving", "transport"):
        one, other = getattr(sums, name), getattr(direct, name)
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-13, equal_nan=True)
    assert direct.created.isnan().any() == (by == "role")  # a role is born in both layers


def test_a_budget_cannot_be_made_finer(setting) -> None:
    chart, u = setting
    by_role = ff.curvature_budget(residual_stack(1), chart, u)
    with pytest.raises(InputError, match="not split by layer"):
        by_role.by("layer")
    with pytest.raises(InputError, match="coarser"):
        by_role.by("layer-role")


def test_creation_is_what_a_stack_cut_short_and_held_elsewhere_shows(setting) -> None:
    """With everything but one role held, |II| of the first block is what that role creates there."""
    chart, u = setting
    blocks = residual_stack(2, gate=ff.layers.Gate())
    held = ff.freeze_stack(blocks, chart.point, ("pattern", "norm", "mlp_gate", "activation"))
    created = ff.curvature_budget(held, chart, u, by="layer-role").created
    labels = ff.curvature_budget(held, chart, u, by="layer-role").labels
    form = ff.StatisticalManifold(held[0], chart).at(u).second_fundamental_form_norm
    torch.testing.assert_close(created[:, labels.index("layer 0: attention_gate")], form)


@pytest.mark.parametrize("role", ["pattern", "attention_gate", "norm", "mlp_gate"])
def test_nothing_is_attributed_to_a_frozen_part(setting, role: str) -> None:
    chart, u = setting
    blocks = residual_stack(1, gate=ff.layers.Gate())
    index = ROLES.index(role)
    live = ff.curvature_budget(blocks, chart, u)
    frozen = ff.curvature_budget(ff.freeze_stack(blocks, chart.point, (role,)), chart, u)
    assert (live.matrix[:, index, index] != 0).all()
    assert (frozen.matrix[:, index] == 0).all()
    assert (frozen.surviving[:, index] == 0).all()


@pytest.mark.parametrize("live", ["pattern", "norm", "mlp_gate"])
def test_all_is_attributed_to_what_is_left_live_where_it_is_one_part(setting, live: str) -> None:
    """All other roles held, the diagonal entry is the whole; with two roles live it is not."""
    chart, u = setting
    blocks = residual_stack(1)
    held = [role for role in ("pattern", "norm", "mlp_gate", "activation") if role != live]
    frozen = ff.freeze_stack(blocks, chart.point, held)
    geometry = ff.StatisticalManifold(frozen[0], chart).at(u)
    budget = ff.curvature_budget(frozen, chart, u)
    own = budget.own[:, ROLES.index(live)]
    assert ((own - geometry.scalar_curvature).abs() / geometry.cancellation_scale).max() < 1e-12
    assert (geometry.second_fundamental_form_norm > 1e-3).all()
    two = ff.curvature_budget(ff.freeze_stack(blocks, chart.point, held[1:]), chart, u)
    assert (two.own[:, ROLES.index(live)] - two.scalar_curvature).abs().max() > 1e-6


def test_all_is_attributed_to_a_single_nonlinear_part(setting) -> None:
    chart, u = setting
    gated = ff.layers.SelfAttention(8, heads=2, gate=ff.layers.Gate("identity")).double()
    frozen = ff.freeze(gated, chart.point)
    budget = ff.curvature_budget(frozen, chart, u)
    own = budget.own[:, ROLES.index("attention_gate")]
    torch.testing.assert_close(own, ff.StatisticalManifold(frozen, chart).scalar_curvature(u))
    # where two parts bend, neither alone is the whole
    both = ff.curvature_budget(gated, chart, u)
    assert (both.interaction[:, ROLES.index("attention_gate")].abs() > 1e-6).all()


@pytest.mark.parametrize("depth", [1, 4, 32])
def test_equal_layers_that_add_up_in_one_direction_share_equally(depth: int) -> None:
    a = 0.5
    blocks, chart = paraboloid_stack(depth, a)
    budget = ff.curvature_budget(blocks, chart, torch.zeros(2), by="layer")
    # K = 4 a^2 L^2 and scal = 2 K: every pair of layers has the same share
    torch.testing.assert_close(
        budget.matrix, torch.full((depth, depth), 8 * a**2, dtype=torch.float64), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(budget.transport, torch.ones(depth, dtype=torch.float64))


def test_what_a_linear_layer_behind_stretches_counts_as_transport() -> None:
    blocks, chart = paraboloid_stack(1, 0.5)
    stretch = torch.tensor([1.0, 1.0, 3.0], dtype=torch.float64)
    budget = ff.curvature_budget([blocks[0], lambda x: x * stretch], chart, torch.zeros(2), by="layer")
    torch.testing.assert_close(budget.transport[0], torch.tensor(3.0, dtype=torch.float64))
    assert budget.created[1] == 0
    assert budget.transport[1].isnan()


def test_the_table_is_labelled(setting) -> None:
    chart, u = setting
    budget = ff.curvature_budget(residual_stack(2), chart, u, by="layer")
    assert list(budget.table.index) == list(budget.table.columns) == ["layer 0", "layer 1"]
    assert budget.table.to_numpy().sum() == pytest.approx(budget.scalar_curvature.mean().item())


def test_an_unknown_split_is_refused(setting) -> None:
    chart, u = setting
    with pytest.raises(InputError, match="layer-role"):
        ff.curvature_budget(residual_stack(1), chart, u, by="head")


def test_a_model_and_a_prompt_will_do(minilm_path: Path) -> None:
    model = ff.load(str(minilm_path))
    budget = ff.curvature_budget(model, prompt="Curvature grows.", by="layer", reading="frozen pattern")
    blocks = model.blocks("Curvature grows.")
    with pytest.raises(InputError, match="prompt"):
        ff.curvature_budget(model)
    with pytest.raises(InputError, match="chart"):
        ff.curvature_budget(blocks)
    profile = ff.depth_profile(model, prompt="Curvature grows.", reading="frozen pattern")
    assert profile.reading == "frozen pattern" and profile.depth == 6
    torch.testing.assert_close(budget.scalar_curvature, profile.scalar_curvature[-1], rtol=1e-7, atol=0)


def test_minilm_is_bent_by_pattern_norm_and_activation(minilm_path: Path) -> None:
    blocks = ff.load(str(minilm_path)).blocks("Curvature grows.")[:2]
    chart = ff.charts.principal(blocks[0].hidden_states, 2)
    u = torch.zeros(2)
    geometry = ff.StatisticalManifold(chain(blocks), chart).at(u)
    for by in ("role", "layer", "layer-role"):
        assert relative(ff.curvature_budget(blocks, chart, u, by=by), geometry) < 1e-10
    budget = ff.curvature_budget(blocks, chart, u)
    bending = {label for label, norm in zip(budget.labels, budget.surviving, strict=True) if norm > 0}
    assert bending == {"pattern", "norm", "activation"}


def test_errors_of_entries_cover_where_parts_cancel() -> None:
    """Bowls `a (x² + y²)` one after the other: the entries are `8 a b` and lose all digits before their sum."""
    chart = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])
    for large in (1.0, 1e4, 1e8):
        sizes = [large / 3, -large / 3 + 1.0, 0.1]

        def bowl(x: Tensor, a: float) -> Tensor:
            return x + torch.stack([0 * x[0], 0 * x[1], a * (x[0] ** 2 + x[1] ** 2)])

        maps = [lambda x, a=a: bowl(x, a) for a in sizes]
        found = ff.curvature_budget(maps, chart, torch.zeros(2), by="layer")
        exact = [Fraction(a) for a in sizes]
        for i, a in enumerate(exact):
            for j, b in enumerate(exact):
                assert abs(Fraction(found.matrix[i, j].item()) - 8 * a * b) <= Fraction(
                    found.error("matrix")[i, j].item()
                )
            off = abs(Fraction(found.attributed[i].item()) - 8 * a * sum(exact))
            assert off <= Fraction(found.error("attributed")[i].item()) <= Fraction(1e-13) * 8 * Fraction(large) ** 2
        off = abs(Fraction(found.scalar_curvature.item()) - 8 * sum(exact) ** 2)
        assert off <= Fraction(found.error("scalar_curvature").item())
    assert found.error("scalar_curvature") > 0.1  # of 8 * 1.21: most digits are gone, and it is said
    with pytest.raises(InputError, match="errors are known of matrix"):
        found.error("share")


def test_coarser_budgets_keep_their_errors() -> None:
    torch.manual_seed(0)
    blocks = [ff.layers.SelfAttention(4).double() for _ in range(2)]
    chart = ff.charts.token(torch.randn(3, 4), -1, torch.randn(2, 4))
    fine = ff.curvature_budget(blocks, chart, torch.zeros(3, 2), by="layer-role")
    coarse, direct = fine.by("layer"), ff.curvature_budget(blocks, chart, torch.zeros(3, 2), by="layer")
    off = (coarse.matrix - direct.matrix).abs()
    assert (off <= coarse.error("matrix") + direct.error("matrix")).all()
    assert (coarse.error("matrix") <= 1e-12 * coarse.matrix.abs().max()).all()


def test_undecided_points_are_in_no_mean_of_a_budget() -> None:
    """A bowl behind a term that cancels, at the second point alone: no digit is left there."""

    def cancelling(x: Tensor) -> Tensor:
        large = torch.where(x[0] > 0.5, 1e17 * (x[0] + x[1]).exp(), 0 * x[0])
        return torch.stack([x[0], x[1], (x[0].square() + x[1].square() + large) - large])

    chart = ff.charts.identity(2)
    found = ff.curvature_budget(cancelling, chart, [[0.0, 0.0], [0.75, 0.5]], by="role")
    assert found.undecided.tolist() == [False, True]
    alone = ff.curvature_budget(cancelling, chart, [0.0, 0.0], by="role")
    assert not alone.undecided and alone.decided is alone
    for name in ("matrix", "attributed", "scalar_curvature"):
        torch.testing.assert_close(found.mean(name), getattr(alone, name))
    assert found.decided.scalar_curvature.isnan().tolist() == [False, True]
    assert found.table.to_numpy().sum() == pytest.approx(alone.scalar_curvature.item())
    assert found.error_table.shape == found.table.shape


def test_errors_of_entries_are_those_of_the_worst_point() -> None:
    """Two directions that a map tells apart less and less: what digits are left depends on the point."""

    def squeezed(x: Tensor) -> Tensor:
        near = (-x[2]).exp()
        return torch.stack([x[0] + x[1], near * x[1], x[2], near * (x[0] * x[1]).tanh(), near * x[1] * x[2]])

    chart = ff.charts.affine(torch.zeros(3), torch.eye(3))
    u = torch.stack([torch.tensor([0.1, 0.3, depth]) for depth in (0.0, 4.0, 8.0, 12.0)])
    found = ff.curvature_budget(squeezed, chart, u)
    truth = ff.StatisticalManifold(squeezed, chart).measure(u, ["scalar_curvature"], error=True)
    off = (found.scalar_curvature - truth["scalar_curvature"]).abs()
    assert (off <= found.error("scalar_curvature") + truth["scalar_curvature_error"]).all()
    assert found.sampled.tolist() == [3]
