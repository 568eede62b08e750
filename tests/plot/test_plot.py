"""The figures show the numbers they are given: colours, ellipses and lines against closed forms."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.collections import EllipseCollection, QuadMesh
from matplotlib.colors import SymLogNorm
from torch import Tensor

import fisherflat as ff
from fisherflat import plot, statistics
from fisherflat.errors import InputError
from fisherflat.geometry import curvature_field

EXTENT = (-1.0, 2.0, -0.5, 1.5)


@pytest.fixture(autouse=True)
def figures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No figure is left open, no window is shown, and the global settings stay as they are."""
    monkeypatch.setattr(plt, "show", lambda *_: pytest.fail("plt.show was called"))
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


def surface(f: Callable[[Tensor, Tensor], list[Tensor]], family: ff.Gaussian | None = None) -> ff.StatisticalManifold:
    return ff.StatisticalManifold(lambda u: torch.stack(f(u[0], u[1])), ff.charts.identity(2), family)


def paraboloid() -> ff.StatisticalManifold:
    return surface(lambda x, y: [x, y, x**2 + y**2])


def mesh(ax: plt.Axes) -> QuadMesh:
    (found,) = [c for c in ax.collections if isinstance(c, QuadMesh)]
    return found


def ellipses(ax: plt.Axes) -> list[EllipseCollection]:
    return [c for c in ax.collections if isinstance(c, EllipseCollection)]


def texts(ax: plt.Axes) -> str:
    return " | ".join(text.get_text() for text in ax.texts)


# -- the numbers behind a map ----------------------------------------------------------------------------------------


def test_field_of_a_paraboloid_is_its_closed_form() -> None:
    field = curvature_field(paraboloid(), EXTENT, resolution=7)
    x, y = np.meshgrid(np.linspace(-1, 2, 7), np.linspace(-0.5, 1.5, 7))
    np.testing.assert_allclose(field.u.numpy(), np.stack([x, y], -1), atol=1e-15)
    # K = 4 / (1 + 4 r²)², scal = 2 K
    np.testing.assert_allclose(field.scalar_curvature.numpy(), 8 / (1 + 4 * (x**2 + y**2)) ** 2, rtol=1e-12)
    np.testing.assert_allclose(field.metric[..., 0, 1].numpy(), 4 * x * y, atol=1e-13)
    assert not field.is_flat


@pytest.mark.parametrize("covariance", [1.0, 0.01])
def test_total_curvature_of_a_sphere_cap_is_its_area_whatever_the_covariance(covariance: float) -> None:
    # longitude and colatitude on a sphere of radius 3: ∫ K dA is the solid angle
    sphere = surface(
        lambda x, y: [3 * torch.sin(y) * torch.cos(x), 3 * torch.sin(y) * torch.sin(x), 3 * torch.cos(y)],
        ff.Gaussian(covariance),
    )
    field = curvature_field(sphere, (0.0, 1.0, 0.5, 1.5), resolution=201)
    assert field.total_curvature == pytest.approx(math.cos(0.5) - math.cos(1.5), rel=1e-3)


def test_affine_maps_are_flat_to_rounding_in_any_unit() -> None:
    for size in (1e-6, 1.0, 1e6):
        plane = surface(lambda x, y, s=size: [s * (2 * x - y / 3), s * (x / 7 + y), s * (0.1 * x + 0.7 * y)])
        assert curvature_field(plane, EXTENT, resolution=9).is_flat
        assert not curvature_field(
            surface(lambda x, y, s=size: [s * x, s * y, s * x * y]), EXTENT, resolution=9
        ).is_flat


def test_singular_points_are_nan_without_warnings_whatever_the_manifold_does_with_them() -> None:
    fold = surface(lambda x, y: [x**2, y, x**2 * y])  # the metric is singular at x = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        field = curvature_field(fold, (-1.0, 1.0, -1.0, 1.0), resolution=5)
    assert field.scalar_curvature[:, 2].isnan().all()
    assert field.scalar_curvature[:, [0, 1, 3, 4]].isfinite().all()
    with pytest.raises(ff.errors.DegenerateImmersionError):
        fold.scalar_curvature(torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("extent", "resolution", "message"),
    [
        ((1.0, 1.0, 0.0, 1.0), 9, "low < high"),
        ((2.0, 1.0, 0.0, 1.0), 9, "low < high"),
        ((0.0, math.nan, 0.0, 1.0), 9, "finite"),
        ((0.0, math.inf, 0.0, 1.0), 9, "finite"),
        ((0.0, 1.0, 0.0, 1.0), 1, "at least 2"),
    ],
)
def test_bad_rectangles_are_refused(extent: tuple[float, float, float, float], resolution: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plot.curvature_map(paraboloid(), extent, resolution=resolution)


def test_only_two_coordinates_make_a_map() -> None:
    volume = ff.StatisticalManifold(lambda u: torch.cat([u, u**2]), ff.charts.identity(3))
    with pytest.raises(InputError, match="2 coordinates, this one has 3"):
        plot.curvature_map(volume, EXTENT)
    with pytest.raises(InputError, match="colour scale 'log'"):
        plot.curvature_map(paraboloid(), EXTENT, scale="log")
    for limit in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="positive number"):
            plot.curvature_map(paraboloid(), EXTENT, limit=limit)


# -- curvature maps --------------------------------------------------------------------------------------------------


def test_map_shows_the_curvature_where_it_is() -> None:
    _, ax = plt.subplots()
    assert plot.curvature_map(paraboloid(), EXTENT, resolution=31, ax=ax) is ax
    assert plt.get_fignums() == [1]
    drawn = mesh(ax)
    x, y = np.linspace(-1, 2, 31), np.linspace(-0.5, 1.5, 31)
    expected = 8 / (1 + 4 * (x[None, :] ** 2 + y[:, None] ** 2)) ** 2
    np.testing.assert_allclose(drawn.get_array(), expected, rtol=1e-12)
    # the cell around (x[20], y[3]) holds that point's value: columns are u1, rows u2
    corners = drawn.get_coordinates()[3:5, 20:22].reshape(-1, 2)
    assert (corners.min(0) < (x[20], y[3])).all() and (corners.max(0) > (x[20], y[3])).all()
    assert (ax.get_xlim(), ax.get_ylim()) == (EXTENT[:2], EXTENT[2:])


def test_map_makes_its_own_figure_and_names_the_unit() -> None:
    ax = plot.curvature_map(paraboloid(), EXTENT, resolution=9)
    assert mesh(ax).colorbar is not None
    assert "1/σ²" in mesh(ax).colorbar.ax.get_ylabel()


@pytest.mark.parametrize("scale", ["linear", "symlog"])
def test_colours_are_symmetric_about_a_neutral_zero(scale: str) -> None:
    monkey = surface(lambda x, y: [x, y, x**3 - 2 * x * y**2 + x**2])  # curvature of both signs
    drawn = mesh(plot.curvature_map(monkey, EXTENT, resolution=21, scale=scale))
    assert drawn.norm.vmin == -drawn.norm.vmax
    neutral = drawn.cmap(drawn.norm(0.0))[:3]
    assert min(neutral) > 0.95
    assert isinstance(drawn.norm, SymLogNorm) == (scale == "symlog")


def test_few_points_are_clipped_and_arrows_say_so() -> None:
    drawn = mesh(plot.curvature_map(paraboloid(), EXTENT, resolution=41, scale="linear"))
    above = (drawn.get_array() > drawn.norm.vmax).mean()
    assert 0 < above <= 0.021
    assert drawn.colorbar.extend == "max"
    drawn = mesh(plot.curvature_map(paraboloid(), EXTENT, resolution=41, limit=100.0, scale="linear"))
    assert drawn.colorbar.extend == "neither" and drawn.norm.vmax == 100
    saddle = surface(lambda x, y: [x, y, x * y])
    assert mesh(plot.curvature_map(saddle, EXTENT, resolution=41, limit=0.1)).colorbar.extend == "min"


def test_wide_ranges_get_a_logarithmic_scale() -> None:
    spike = surface(lambda x, y: [x, y, torch.exp(-20 * (x**2 + y**2))])
    assert isinstance(mesh(plot.curvature_map(spike, EXTENT, resolution=41)).norm, SymLogNorm)
    assert not isinstance(mesh(plot.curvature_map(paraboloid(), EXTENT, resolution=41)).norm, SymLogNorm)


def test_flat_maps_say_so_and_do_not_colour_rounding_noise() -> None:
    plane = surface(lambda x, y: [0.1 * x + 0.7 * y, x / 3 - y, x + y / 7])
    ax = plot.curvature_map(plane, EXTENT, resolution=15)
    assert "flat (proved)" in texts(ax)
    assert np.ptp(mesh(ax).norm(mesh(ax).get_array())) < 1e-9
    assert "flat" not in texts(plot.curvature_map(paraboloid(), EXTENT, resolution=15))


def test_maps_that_share_a_scale_share_its_bar() -> None:
    figure, axes = plt.subplots(1, 2)
    steep = surface(lambda x, y: [x, y, 5 * (x**2 + y**2)])
    plot.fields([curvature_field(M, EXTENT, resolution=15) for M in (paraboloid(), steep)], list(axes))
    assert mesh(axes[0]).norm is mesh(axes[1]).norm
    assert len(figure.axes) == 3


def test_singular_regions_show_the_grey_behind_them() -> None:
    fold = surface(lambda x, y: [x**2, y, x**2 * y])
    ax = plot.curvature_map(fold, (-1.0, 1.0, -1.0, 1.0), resolution=9)
    assert np.ma.getmaskarray(mesh(ax).get_array())[:, 4].all()
    assert ax.get_facecolor()[:3] == (0.7, 0.7, 0.7)
    ax.figure.canvas.draw()


def test_nowhere_regular_maps_are_drawn_as_nothing() -> None:
    curve = surface(lambda x, y: [x + y, x + y, 0 * x])
    ax = plot.curvature_map(curve, EXTENT, resolution=9)
    assert np.ma.getmaskarray(mesh(ax).get_array()).all()
    assert "flat" not in texts(ax)
    ax.figure.canvas.draw()


def test_ellipses_are_the_circles_of_the_metric() -> None:
    M = paraboloid()
    ax = plot.curvature_map(M, EXTENT, resolution=61, ellipses=5)
    radius = float(re.search(r"ellipses: (\S+) σ", texts(ax)).group(1))
    counts = 0
    for collection in ellipses(ax):
        shrunk = collection.get_linestyle()[0][1] is not None
        for (x, y), width, height, angle in zip(
            collection.get_offsets(),
            collection.get_widths(),
            collection.get_heights(),
            collection.get_angles(),
            strict=True,
        ):
            counts += 1
            turn = np.array([[np.cos(t := np.radians(angle)), -np.sin(t)], [np.sin(t), np.cos(t)]])
            half = turn @ np.diag([width, height]) / 2  # the semi-axes as columns
            metric = M.metric(torch.tensor([x, y])).numpy()
            lengths = half.T @ metric @ half
            if shrunk:
                assert 0 < lengths[0, 0] == pytest.approx(lengths[1, 1]) < radius**2
            else:
                np.testing.assert_allclose(lengths, radius**2 * np.eye(2), atol=1e-9 * radius**2)
            assert max(width, height) <= 2.0 / 5  # each stays in its cell
    assert counts == 25
    assert not ellipses(plot.curvature_map(M, EXTENT, resolution=9, ellipses=0))


def test_signs_differ_in_grey_too() -> None:
    wave = surface(lambda x, y: [x, y, torch.sin(3 * x) * torch.cos(2 * y)])
    ax = plot.curvature_map(wave, EXTENT, resolution=61, ellipses=0)
    styles = {line.get_linestyle()[0][1] is None for line in ax.collections if not isinstance(line, QuadMesh)}
    assert styles == {True, False}  # a solid and a dashed one


# -- profiles over layers --------------------------------------------------------------------------------------------


def table(**curvature: Callable[[int, int], float]) -> pd.DataFrame:
    """Six layers, three prompts, and one part and reading for each function of layer and prompt."""
    return pd.DataFrame(
        {
            "layer": layer,
            "part": part,
            "reading": reading.replace("_", " "),
            "prompt": prompt,
            "scalar_curvature": f(layer, prompt),
        }
        for name, f in curvature.items()
        for part, reading in [name.split("__")]
        for layer in range(6)
        for prompt in range(3)
    )


def test_profile_is_the_mean_by_layer_with_its_interval() -> None:
    data = table(
        attention__live=lambda layer, prompt: layer + [0.0, 1.0, 5.0][prompt], mlp__live=lambda layer, prompt: -1.0
    )
    ax = plot.layers(data)
    lines = {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}
    assert set(lines) == {"attention, live", "mlp, live"}
    np.testing.assert_allclose(lines["attention, live"].get_ydata(), np.arange(6) + 2.0)
    assert ax.get_legend().get_title().get_text() == "means, with 95 % intervals"
    (bars, _) = ax.collections
    for layer, ((_, low), (_, high)) in enumerate(bars.get_segments()):
        found = statistics.estimate([layer, layer + 1.0, layer + 5.0], [0, 1, 2])
        assert (low, high) == (found.low, found.high) and low < layer + 2.0 < high
    np.testing.assert_array_equal(np.round(lines["attention, live"].get_xdata()), np.arange(6))
    assert ax.get_yscale() == "linear"
    assert "1/σ²" in ax.get_ylabel()


def test_profile_over_many_decades_is_logarithmic_and_rounding_noise_does_not_stretch_it() -> None:
    data = table(
        attention__live=lambda layer, prompt: -(10.0 ** (layer - 3)),
        attention__frozen_pattern=lambda layer, prompt: 1e-17 * prompt,
    )
    ax = plot.layers(data)
    assert ax.get_yscale() == "symlog"
    assert ax.yaxis.get_transform().linthresh == pytest.approx(1e-2)


def test_profile_tells_its_lines_apart_without_colour() -> None:
    data = table(
        **{
            f"{part}__{reading}": lambda layer, prompt: 1.0
            for part in ("attention", "mlp", "block")
            for reading in ("live", "frozen_pattern")
        }
    )
    lines = [line for line in plot.layers(data).get_lines() if not line.get_label().startswith("_")]
    assert len({(line.get_marker(), line.get_linestyle()) for line in lines}) == len(lines) == 6


def test_profile_fits_one_column() -> None:
    data = table(
        attention__live=lambda layer, prompt: 1.0,
        attention__frozen_pattern=lambda layer, prompt: 0.0,
        mlp__live=lambda layer, prompt: 1.0,
    )
    ax = plot.layers(data)
    figure = ax.figure
    figure.canvas.draw()
    assert figure.get_size_inches()[0] == pytest.approx(3.4)
    for artist in (ax.get_legend(), ax.yaxis.label, ax.xaxis.label):
        box = artist.get_window_extent()
        assert (
            figure.bbox.x0 <= box.x0
            and box.x1 <= figure.bbox.x1
            and figure.bbox.y0 <= box.y0
            and box.y1 <= figure.bbox.y1
        )
    assert min(text.get_fontsize() for text in [*ax.get_legend().get_texts(), *ax.get_xticklabels()]) >= 7


def test_profile_leaves_out_rows_without_a_number_and_refuses_tables_without_any() -> None:
    data = table(mlp__live=lambda layer, prompt: math.nan if prompt == 2 else float(prompt))
    (line,) = [line for line in plot.layers(data).get_lines() if not line.get_label().startswith("_")]
    np.testing.assert_allclose(line.get_ydata(), 0.5)
    with pytest.raises(InputError, match="no finite"):
        plot.layers(table(mlp__live=lambda layer, prompt: math.nan))
    with pytest.raises(InputError, match="no column 'reading'"):
        plot.layers(data.drop(columns="reading"))


def test_geodesics_lie_over_a_map() -> None:

    M = ff.StatisticalManifold(lambda u: torch.stack([u[0], u[1], u[0] * u[1]]), ff.charts.identity(2))
    path = M.geodesic([[-0.8, -0.5], [-0.8, 0.5]], [[0.8, 0.6], [0.8, -0.6]], points=9)
    ax = ff.plot.curvature_map(M, (-1.0, 1.0, -1.0, 1.0), resolution=5, ellipses=0, paths=path)
    drawn = [line.get_xydata() for line in ax.get_lines() if line.get_color() == "black" and len(line.get_xydata()) > 2]
    assert len(drawn) == 2
    assert abs(drawn[1] - path[1].numpy()).max() == 0
    with pytest.raises(InputError, match="points, 2"):
        ff.plot.curvature_map(M, (-1.0, 1.0, -1.0, 1.0), resolution=5, paths=path[..., :1])
