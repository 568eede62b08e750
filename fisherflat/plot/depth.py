"""Figures of depth: how curvature grows, who pays for it, and what becomes of it on the way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fisherflat.charts import Chart
from fisherflat.depth.budget import CurvatureBudget
from fisherflat.depth.maps import curvature_fields
from fisherflat.depth.profile import QUANTITIES, DepthProfile
from fisherflat.depth.stack import Map
from fisherflat.errors import InputError
from fisherflat.family import Gaussian
from fisherflat.field import CurvatureField
from fisherflat.jets.graph import ROLES
from fisherflat.plot.maps import fields
from fisherflat.plot.style import COLOURS, CURVATURE_LABEL, MARKERS, OKABE_ITO, axes_for, profile_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LABELS = {
    "scalar_curvature": CURVATURE_LABEL,
    "smallest_sectional_curvature": "smallest sectional curvature [1/σ²]",
    "largest_sectional_curvature": "largest sectional curvature [1/σ²]",
    "second_fundamental_form_norm": "|II| [1/σ]",
    "mean_curvature_norm": "|H| [1/σ]",
    "volume_density": "√det g",
    "condition_number": "condition of the metric",
}
_HATCHES = ("", "//", "..", "\\\\", "xx", "--")


def profiles(profiles: Mapping[str, DepthProfile], ax: Axes | None = None, quantity: str = "scalar_curvature") -> Axes:
    """A quantity against depth, one line for each profile: the median over points, and their middle half as a band.

    **Args:** `profiles`, by the name that the legend shows (models, or readings of one); `ax`, to draw into (default: a
    new figure one column wide); `quantity`, one of a profile's.

    **Raises:** `InputError` for no profile or an unknown quantity.
    """
    if quantity not in QUANTITIES:
        raise InputError(f"{quantity!r} is not in a profile; there are {', '.join(QUANTITIES)}")
    if not profiles:
        raise InputError("there is no profile to draw")
    ax = axes_for(ax, (3.4, 2.6))
    drawn = []
    for index, (name, profile) in enumerate(profiles.items()):
        values = getattr(profile, quantity).reshape(profile.depth + 1, -1).cpu().numpy()
        low, median, high = np.nanquantile(values, (0.25, 0.5, 0.75), axis=1)
        colour, marker = OKABE_ITO[index % len(OKABE_ITO)], MARKERS[index % len(MARKERS)]
        depth = np.arange(profile.depth + 1)
        ax.fill_between(depth, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.plot(depth, median, color=colour, marker=marker, markersize=3, linewidth=1, label=name)
        drawn += [low, median, high]
    sizes = np.abs(np.concatenate(drawn))
    profile_axis(ax, sizes[np.isfinite(sizes)], "blocks passed", _LABELS[quantity])
    return ax


def budget(budget: CurvatureBudget, ax: Axes | None = None) -> Axes:
    """The budget's matrix, averaged over points, as coloured cells.

    Cells hold their number, in the power of ten that the title names, where there are at most eight labels, and a
    colour bar stands beside them where there are more. Labels without any curvature are left out. The sum of all cells
    is the scalar curvature, in the title.
    """
    from matplotlib.colors import Normalize

    ax = axes_for(ax, (3.4, 3.0))
    matrix = _mean(budget, "matrix")
    kept = [i for i in range(len(budget.labels)) if matrix[i].any()] or [0]
    cells, labels = matrix[np.ix_(kept, kept)], [budget.labels[i].replace("_", " ") for i in kept]
    end = float(np.nanmax(np.abs(cells))) or 1.0
    image = ax.imshow(cells, cmap=COLOURS, norm=Normalize(-end, end))
    title = f"sum = scal = {matrix.sum():.3g} /σ²"
    few = len(kept) <= 8
    size = 7.0 if few else max(4.0, 7.0 - 0.15 * len(kept))
    if few:
        power = math.floor(math.log10(end)) - 1  # the largest cell has two digits before the point
        title += f", cells in $10^{{{power}}}$/σ²"
        for row, column in np.ndindex(cells.shape):
            dark = abs(cells[row, column]) > 0.6 * end
            text = f"{cells[row, column] / 10.0**power:.1f}"
            ax.text(column, row, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
    else:
        bar = ax.figure.colorbar(image, ax=ax, label="cells [1/σ²]")
        bar.ax.tick_params(labelsize=7)
    turned = {"rotation": 40, "ha": "right"} if few else {"rotation": 90}
    ax.set_xticks(range(len(kept)), labels, fontsize=size, **turned)
    ax.set_yticks(range(len(kept)), labels, fontsize=size)
    ax.set_title(title, fontsize=8)
    return ax


def budget_by_layer(budget: CurvatureBudget, ax: Axes | None = None) -> Axes:
    """What each layer pays, stacked by role: positive parts above zero, negative ones below. The bars sum to scal.

    **Args:** `budget`, made with `by="layer-role"`. **Raises:** `InputError` for another one.
    """
    if not all(": " in label for label in budget.labels):
        raise InputError('these bars need a budget made with by="layer-role"')
    ax = axes_for(ax, (3.4, 2.6))
    paid = _mean(budget, "own") + _mean(budget, "interaction")
    split = [label.removeprefix("layer ").split(": ") for label in budget.labels]
    depth = 1 + max((int(layer) for layer, _ in split), default=0)
    bottoms = {1: np.zeros(depth), -1: np.zeros(depth)}
    for index, role in enumerate(ROLES):
        heights = np.zeros(depth)
        for (layer, own), value in zip(split, paid, strict=True):
            if own == role:
                heights[int(layer)] += value
        if not heights.any():
            continue
        for sign in (1, -1):
            part = np.where(np.sign(heights) == sign, heights, 0)
            label = role.replace("_", " ") if sign == 1 else None
            ax.bar(range(depth), part, bottom=bottoms[sign], width=0.75, label=label, color=OKABE_ITO[index],
                   hatch=_HATCHES[index], edgecolor="white", linewidth=0.3)  # fmt: skip
            bottoms[sign] += part
    ax.axhline(0, color="0.3", linewidth=0.6)
    low, high = bottoms[-1].min(), bottoms[1].max()
    if high > low:
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    profile_axis(ax, np.zeros(0), "layer", "share of scal [1/σ²]", columns=3)
    return ax


def transport(budget: CurvatureBudget, ax: Axes | None = None) -> Axes:
    """For each layer, the second fundamental form it creates and what of it survives to the output.

    **Args:** `budget`, made with `by="layer"`. **Raises:** `InputError` for another one.
    """
    if not all(label.removeprefix("layer ").isdigit() for label in budget.labels):
        raise InputError('this chart needs a budget made with by="layer"')
    ax = axes_for(ax, (3.4, 2.4))
    layers = np.arange(len(budget.labels))
    ax.bar(layers - 0.2, _mean(budget, "created"), width=0.38, color=OKABE_ITO[0], label="created")
    ax.bar(layers + 0.2, _mean(budget, "surviving"), width=0.38, color=OKABE_ITO[1], hatch="//", edgecolor="white",
           linewidth=0.3, label="at the output")  # fmt: skip
    profile_axis(ax, np.zeros(0), "layer", "|II| of its sources [1/σ]")
    return ax


def depth_maps(
    blocks: Sequence[Map],
    chart: Chart,
    extent: tuple[float, float, float, float],
    resolution: int = 41,
    axes: Sequence[Axes] | None = None,
    family: Gaussian | str | None = None,
) -> Sequence[Axes]:
    """Small curvature maps of the same chart after each block, on one colour scale.

    **Args:** as `fisherflat.plot.curvature_map` and `depth_profile`; `axes`, one for each block (default: new ones).

    **Raises:** `InputError` for a chart that is not two-dimensional or axes that are not as many as blocks.
    """
    return field_strip(curvature_fields(blocks, chart, extent, resolution, family), axes)


def field_strip(samples: Sequence[CurvatureField], axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Small maps after 1, 2, ... blocks from numbers that are already there, as of `fisherflat.depth.curvature_fields`.

    **Raises:** `InputError` for axes that are not as many as maps.
    """
    axes = strip_axes(len(samples)) if axes is None else axes
    if len(axes) != len(samples):
        raise InputError(f"{len(samples)} blocks need as many axes, got {len(axes)}")
    bar = fields(samples, axes, ellipses=0)
    bar.ax.tick_params(labelsize=6)
    bar.set_label(CURVATURE_LABEL, fontsize=7)
    for depth, ax in enumerate(axes, 1):
        ax.set_title(f"after {depth}", fontsize=8)
        ax.tick_params(labelsize=6)
        ax.set(xlabel="", ylabel="")
    return axes


def strip_axes(count: int, figure: Figure | None = None) -> list[Axes]:
    """Axes for so many small maps, three in a row and one column wide, in `figure` or a new one."""
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure(layout="constrained")
    columns = min(count, 3)
    rows = -(-count // columns)
    figure.set_size_inches(3.4, 0.3 + 3.0 / columns * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for spare in grid.flat[count:]:
        spare.set_visible(False)
    return list(grid.flat[:count])


def _mean(budget: CurvatureBudget, name: str) -> np.ndarray:
    """A field of a budget, averaged over the points that have a geometry."""
    n = len(budget.labels)
    values = getattr(budget, name)
    trailing = (n, n) if name == "matrix" else (n,)
    points = values.shape[: values.dim() - len(trailing)].numel()
    return values.reshape(points, *trailing).nanmean(0).cpu().numpy()
