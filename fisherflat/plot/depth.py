"""Figures of depth: how curvature grows, who pays for it, and what becomes of it on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from fisherflat.charts import Chart
from fisherflat.depth.budget import CurvatureBudget
from fisherflat.depth.profile import QUANTITIES, DepthProfile, measure_depths
from fisherflat.depth.stack import Map, Stack
from fisherflat.errors import InputError
from fisherflat.family import Gaussian
from fisherflat.field import CurvatureField
from fisherflat.jets.graph import ROLES
from fisherflat.plot.maps import fields
from fisherflat.plot.style import COLOURS, CURVATURE_LABEL, MARKERS, OKABE_ITO, axes_for, profile_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LABELS = {
    "scalar_curvature": CURVATURE_LABEL,
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
    """The budget's matrix, averaged over points, as coloured cells with their numbers.

    Rows and columns without any curvature are left out. The sum of all cells is the scalar curvature, in the title.
    """
    from matplotlib.colors import Normalize

    ax = axes_for(ax, (3.4, 3.0))
    matrix = _mean(budget, "matrix")
    kept = [i for i in range(len(budget.labels)) if matrix[i].any()] or [0]
    cells, labels = matrix[np.ix_(kept, kept)], [budget.labels[i].replace("_", " ") for i in kept]
    end = float(np.abs(cells).max()) or 1.0
    ax.imshow(cells, cmap=COLOURS, norm=Normalize(-end, end))
    for row, column in np.ndindex(cells.shape):
        dark = abs(cells[row, column]) > 0.6 * end
        text = f"{cells[row, column]:.2g}"
        ax.text(column, row, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
    ax.set_xticks(range(len(kept)), labels, rotation=40, ha="right", fontsize=7)
    ax.set_yticks(range(len(kept)), labels, fontsize=7)
    ax.set_title(f"sum = scal = {matrix.sum():.3g} /σ²", fontsize=8)
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
    bottoms = {1: np.zeros(1 + max(int(layer) for layer, _ in split)), -1: np.zeros(0)}
    bottoms[-1] = bottoms[1].copy()
    for index, role in enumerate(ROLES):
        heights = np.zeros_like(bottoms[1])
        for (layer, own), value in zip(split, paid, strict=True):
            if own == role:
                heights[int(layer)] += value
        if not heights.any():
            continue
        for sign in (1, -1):
            part = np.where(np.sign(heights) == sign, heights, 0)
            look = {"color": OKABE_ITO[index], "hatch": _HATCHES[index], "edgecolor": "white", "linewidth": 0.3}
            label = role.replace("_", " ") if sign == 1 else None
            ax.bar(range(len(part)), part, bottom=bottoms[sign], width=0.75, label=label, **look)
            bottoms[sign] += part
    ax.axhline(0, color="0.3", linewidth=0.6)
    profile_axis(ax, np.zeros(0), "layer", "share of scal [1/σ²]", columns=3)
    return ax


def transport(budget: CurvatureBudget, ax: Axes | None = None) -> Axes:
    """For each layer, the second fundamental form it creates and what of it survives to the output.

    **Args:** `budget`, made with `by="layer"`.
    """
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
    """A strip of curvature maps of the same chart after each block, on one colour scale.

    **Args:** as `fisherflat.plot.curvature_map` and `depth_profile`; `axes`, one for each block (default: new ones).

    **Raises:** `InputError` for a chart that is not two-dimensional or axes that are not as many as blocks.
    """
    if chart.dim != 2:
        raise InputError(f"a map needs a chart with 2 coordinates, this one has {chart.dim}")
    if axes is None:
        import matplotlib.pyplot as plt

        columns = min(len(blocks), 6)
        rows = -(-len(blocks) // columns)
        _, grid = plt.subplots(rows, columns, figsize=(1.5 * columns + 0.8, 1.7 * rows), layout="constrained",
                               sharex=True, sharey=True, squeeze=False)  # fmt: skip
        axes = list(grid.flat)
        for spare in axes[len(blocks) :]:
            spare.set_visible(False)
        axes = axes[: len(blocks)]
    if len(axes) != len(blocks):
        raise InputError(f"{len(blocks)} blocks need as many axes, got {len(axes)}")
    low0, high0, low1, high1 = extent
    first, second = (torch.linspace(*ends, resolution, dtype=torch.float64) for ends in ((low0, high0), (low1, high1)))
    u = torch.stack(torch.meshgrid(first, second, indexing="xy"), -1)
    stack = Stack(blocks, chart, family if family is not None else Gaussian())
    found = measure_depths(stack, u, ["scalar_curvature", "metric"], degenerate="nan")
    samples = [
        CurvatureField(u, found["scalar_curvature"][depth].cpu(), found["metric"][depth].cpu(), extent)
        for depth in range(1, len(blocks) + 1)
    ]
    fields(samples, axes, ellipses=0)
    for depth, ax in enumerate(axes, 1):
        ax.set_title(f"after {depth}", fontsize=8)
        ax.tick_params(labelsize=6)
        ax.set(xlabel="", ylabel="")
    return axes


def _mean(budget: CurvatureBudget, name: str) -> np.ndarray:
    """A field of a budget, averaged over points."""
    n = len(budget.labels)
    values = getattr(budget, name)
    trailing = (n, n) if name == "matrix" else (n,)
    return values.reshape(-1, *trailing).mean(0).cpu().numpy()
