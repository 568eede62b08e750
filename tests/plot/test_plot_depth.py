"""Figures of depth: what is drawn is what was measured, into the axes that were given."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from cases.stacks import Map, linear_stack, paraboloid_stack, residual_stack
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgba

import fisherflat as ff
from fisherflat import plot
from fisherflat.errors import InputError

EXTENT = (-1.0, 2.0, -0.5, 1.5)


@pytest.fixture(autouse=True)
def figures() -> Iterator[None]:
    """No figure is left open, and the global settings stay as they are."""
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


@pytest.fixture(scope="module")
def stack() -> tuple[list[Map], ff.charts.Chart, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    chart = ff.charts.token(hidden, 1, torch.randn(2, 8, generator=generator, dtype=torch.float64))
    u = 0.3 * torch.randn(5, 2, generator=generator, dtype=torch.float64)
    return residual_stack(3, gate=ff.layers.Gate()), chart, u


def budget_of(stack, by: str) -> ff.CurvatureBudget:
    return ff.curvature_budget(*stack, by=by)


def heights(ax: plt.Axes) -> dict[str, np.ndarray]:
    """Heights with sign by legend entry; bars below zero carry no entry of their own, but the colour."""
    colours = {to_rgba(handle.get_facecolor()): handle.get_label() for handle in (c[0] for c in ax.containers)}
    labels = {to_rgba(c[0].get_facecolor()): c.get_label() for c in ax.containers if c.get_label()[0] != "_"}
    assert set(colours) == set(labels)
    sums: dict[str, np.ndarray] = {}
    for container in ax.containers:
        values = np.array([bar.get_height() for bar in container])
        name = labels[to_rgba(container[0].get_facecolor())]
        sums[name] = sums.get(name, 0) + values
    return sums


# -- profiles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantity", ["scalar_curvature", "volume_density"])
def test_lines_are_means_and_bands_their_intervals(stack, quantity: str) -> None:
    blocks, chart, u = stack
    found = {"live": ff.depth_profile(blocks, chart, u), "frozen": ff.depth_profile(blocks[::-1], chart, u)}
    ax = plot.profiles(found, quantity=quantity)
    lines = {line.get_label(): line for line in ax.lines if line.get_label() in found}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(found)
    for (name, profile), band in zip(found.items(), ax.collections, strict=True):
        values = getattr(profile, quantity)
        np.testing.assert_array_equal(lines[name].get_xdata(), [0, 1, 2, 3])
        np.testing.assert_allclose(lines[name].get_ydata(), values.mean(1))
        low, high = np.array([[e.low, e.high] for e in map(ff.statistics.estimate, values.tolist())]).T
        for depth in range(4):
            corners = [y for x, y in band.get_paths()[0].vertices if x == depth]
            assert min(corners) == pytest.approx(low[depth].item())
            assert max(corners) == pytest.approx(high[depth].item())


def test_a_single_point_is_a_line_without_a_band(stack) -> None:
    blocks, chart, u = stack
    profile = ff.depth_profile(blocks, chart, u[0])
    line = next(line for line in plot.profiles({"live": profile}).lines if line.get_label() == "live")
    np.testing.assert_array_equal(line.get_ydata(), profile.scalar_curvature)


def test_profiles_of_stacks_of_different_depth_share_axes(stack) -> None:
    blocks, chart, u = stack
    _, ax = plt.subplots()
    found = {"one": ff.depth_profile(blocks[:1], chart, u), "three": ff.depth_profile(blocks, chart, u)}
    assert plot.profiles(found, ax=ax) is ax
    assert [len(line.get_xdata()) for line in ax.lines if line.get_label() in found] == [2, 4]


def test_points_without_geometry_are_left_out(stack) -> None:
    blocks, chart, u = stack
    profile = ff.depth_profile(blocks, chart, u)
    profile.scalar_curvature[1:, 0] = float("nan")
    line = next(line for line in plot.profiles({"live": profile}).lines if line.get_label() == "live")
    np.testing.assert_allclose(line.get_ydata(), np.nanmean(profile.scalar_curvature.numpy(), 1))


def test_bad_profiles_are_named(stack) -> None:
    with pytest.raises(InputError, match="no profile"):
        plot.profiles({})
    with pytest.raises(InputError, match="scalar_curvature"):
        plot.profiles({"live": ff.depth_profile(*stack)}, quantity="torsion")


# -- budgets -----------------------------------------------------------------------------------------------------------


def test_cells_are_the_matrix_and_name_their_power_of_ten(stack) -> None:
    budget = budget_of(stack, "role")
    ax = plot.budget(budget)
    matrix = budget.matrix.mean(0)
    kept = [i for i in range(6) if matrix[i].any()]
    assert [t.get_text() for t in ax.get_yticklabels()] == [budget.labels[i].replace("_", " ") for i in kept]
    np.testing.assert_allclose(ax.images[0].get_array(), matrix[kept][:, kept])
    title = ax.get_title()
    assert f"scal = {budget.scalar_curvature.mean().item():.3g}" in title
    power = 10.0 ** int(title.split("{")[1].split("}")[0])
    for text in ax.texts:
        column, row = (int(c) for c in text.get_position())
        assert float(text.get_text()) * power == pytest.approx(
            matrix[kept[row], kept[column]].item(), abs=0.051 * power
        )
        assert len(text.get_text()) <= 5  # what a cell has room for
    low, high = ax.images[0].get_clim()
    assert high == -low == pytest.approx(matrix.abs().max().item())


def test_many_labels_have_a_colour_bar_instead_of_numbers(stack) -> None:
    ax = plot.budget(budget_of(stack, "layer-role"))
    assert not ax.texts
    assert len(ax.figure.axes) == 2


def test_bars_by_layer_sum_to_the_scalar_curvature(stack) -> None:
    budget = budget_of(stack, "layer-role")
    bars = heights(plot.budget_by_layer(budget))
    assert sum(values.sum() for values in bars.values()) == pytest.approx(budget.scalar_curvature.mean().item())
    attributed = dict(zip(budget.labels, budget.matrix.sum(-1).mean(0).tolist(), strict=True))
    for role, values in bars.items():
        for layer, value in enumerate(values):
            assert value == pytest.approx(attributed.get(f"layer {layer}: {role.replace(' ', '_')}", 0))


def test_stacked_bars_do_not_overlap(stack) -> None:
    ax = plot.budget_by_layer(budget_of(stack, "layer-role"))
    low, high = ax.get_ylim()
    for layer in range(3):
        spans = sorted((b.get_y(), b.get_y() + b.get_height()) for c in ax.containers for b in [c[layer]])
        spans = sorted((min(span), max(span)) for span in spans if span[0] != span[1])
        assert all(one[1] <= two[0] + 1e-12 for one, two in itertools.pairwise(spans))
        assert low < spans[0][0] and spans[-1][1] < high


def test_transport_shows_creation_and_survival() -> None:
    blocks, chart = paraboloid_stack(2, 0.5)
    stretch = torch.tensor([1.0, 1.0, 3.0], dtype=torch.float64)
    budget = ff.curvature_budget([*blocks, lambda x: x * stretch], chart, torch.zeros(2), by="layer")
    bars = heights(plot.transport(budget))
    np.testing.assert_allclose(bars["created"], [2**0.5, 2**0.5, 0])  # |II| of z = (x² + y²) / 2
    np.testing.assert_allclose(bars["at the output"], [3 * 2**0.5, 3 * 2**0.5, 0])


@pytest.mark.parametrize(
    ("draw", "by"), [(plot.budget, "role"), (plot.budget_by_layer, "layer-role"), (plot.transport, "layer")]
)
def test_given_axes_are_drawn_into(stack, draw, by: str) -> None:
    figure, (ax, other) = plt.subplots(1, 2)
    assert draw(budget_of(stack, by), ax=ax) is ax
    assert figure.axes[:2] == [ax, other] and len(plt.get_fignums()) == 1
    assert not other.has_data()


def test_flat_budgets_can_be_drawn(stack) -> None:
    _, chart, u = stack
    flat = {by: ff.curvature_budget(linear_stack(2), chart, u, by=by) for by in ("role", "layer", "layer-role")}
    assert [text.get_text() for text in plot.budget(flat["role"]).texts] == ["0.0"]
    assert not any(values.any() for values in heights(plot.transport(flat["layer"])).values())
    assert not plot.budget_by_layer(flat["layer-role"]).containers


def test_budgets_of_another_split_are_refused(stack) -> None:
    with pytest.raises(InputError, match="layer-role"):
        plot.budget_by_layer(budget_of(stack, "role"))
    with pytest.raises(InputError, match='by="layer"'):
        plot.transport(budget_of(stack, "role"))


# -- maps --------------------------------------------------------------------------------------------------------------


def meshes(ax: plt.Axes) -> QuadMesh:
    (found,) = [c for c in ax.collections if isinstance(c, QuadMesh)]
    return found


def test_maps_are_the_curvature_after_each_block() -> None:
    a = 0.5
    blocks, chart = paraboloid_stack(4, a)
    axes = plot.depth_maps(ff.curvature_fields(blocks, chart, EXTENT, resolution=5))
    x, y = np.meshgrid(np.linspace(-1, 2, 5), np.linspace(-0.5, 1.5, 5))
    for depth, ax in enumerate(axes, 1):
        slope = 2 * a * depth  # z = a depth r², K = slope² / (1 + slope² r²)²
        expected = 2 * slope**2 / (1 + slope**2 * (x**2 + y**2)) ** 2
        np.testing.assert_allclose(meshes(ax).get_array().reshape(5, 5), expected, rtol=1e-12)
        assert ax.get_title() == f"after layer {depth - 1}"
    assert len({meshes(ax).get_clim() for ax in axes}) == 1
    width, _ = axes[0].figure.get_size_inches()
    assert width == pytest.approx(3.4)


def test_maps_are_drawn_into_given_axes() -> None:
    blocks, chart = paraboloid_stack(2, 0.5)
    _, grid = plt.subplots(1, 3)
    assert list(plot.depth_maps(ff.curvature_fields(blocks, chart, EXTENT, resolution=3), axes=grid[:2])) == list(
        grid[:2]
    )
    assert not grid[2].has_data()
    assert len(plt.get_fignums()) == 1


def test_maps_that_cannot_be_drawn_are_refused(stack) -> None:
    blocks, chart = paraboloid_stack(2, 0.5)
    with pytest.raises(InputError, match="2 maps need as many axes, got 1"):
        plot.depth_maps(ff.curvature_fields(blocks, chart, EXTENT, resolution=3), axes=[plt.subplots()[1]])
    line = ff.charts.affine(torch.zeros(3), torch.eye(3, dtype=torch.float64)[:1])
    with pytest.raises(InputError, match="2 coordinates"):
        ff.curvature_fields(blocks, line, EXTENT, resolution=3)
