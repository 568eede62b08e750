"""Figures of depth: how curvature grows, to which parts it is attributed, and what becomes of it on the way."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np

from fisherflat._typing import Tensor
from fisherflat.errors import InputError
from fisherflat.geometry import CurvatureField
from fisherflat.jets.graph import ROLES
from fisherflat.plot._maps import fields
from fisherflat.plot._style import (
    COLOURS,
    COLUMN,
    CURVATURE_LABEL,
    MARKERS,
    OKABE_ITO,
    STATISTIC,
    axes_for,
    profile_axis,
)
from fisherflat.statistics import estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")

_LABELS = {
    "scalar_curvature": CURVATURE_LABEL,
    "smallest_sectional_curvature": "smallest sectional curvature [1/σ²]",
    "largest_sectional_curvature": "largest sectional curvature [1/σ²]",
    "second_fundamental_form_norm": "|II| [1/σ]",
    "mean_curvature_norm": "|H| [1/σ]",
    "volume_density": "√det g",
    "condition_number": "condition of the metric",
}


@runtime_checkable
class Profile(Protocol):
    """A profile over depth, such as `fisherflat.depth_profile` makes; its quantities are `[depths, *batch]`."""

    @property
    def passed(self) -> Tensor:
        """How many blocks have been passed, `[depths]`."""

    @property
    def decided(self) -> Tensor:
        """The scalar curvature, NaN where it is undecided, `[depths, *batch]`."""


@runtime_checkable
class Part(Protocol):
    """What a row of a budget is about."""

    @property
    def label(self) -> str:
        """Its name."""

    @property
    def layer(self) -> str | None:
        """The layer, or half of one; `None` for all."""

    @property
    def role(self) -> str | None:
        """The role; `None` for all."""


@runtime_checkable
class Budget(Protocol):
    """Curvature attributed to n parts, such as `fisherflat.curvature_budget` makes."""

    @property
    def parts(self) -> Sequence[Part]:
        """The parts."""

    @property
    def layers(self) -> Sequence[str]:
        """The names of all layers."""

    @property
    def decided(self) -> Budget:
        """The same with NaN at points where the error of the scalar curvature exceeds its value."""

    @property
    def matrix(self) -> Tensor:
        """What is attributed to each pair of parts, `[*batch, n, n]`."""

    @property
    def attributed(self) -> Tensor:
        """What is attributed to each part, `[*batch, n]`."""

    @property
    def created(self) -> Tensor:
        """The norm of the second fundamental form of its sources where they are born, `[*batch, n]`."""

    @property
    def surviving(self) -> Tensor:
        """That norm at the output, `[*batch, n]`."""


_HATCHES = ("", "//", "..", "\\\\", "xx", "--")


def profiles(profiles: Mapping[str, Profile], *, quantity: str = "scalar_curvature", ax: Axes | None = None) -> Axes:
    """A quantity against depth, one line for each profile: the mean over points, and its bootstrap interval as a band.

    Scalar curvatures that are undecided are left out; a cross on the axis says at which depths there are such.

    **Args:**

    - `profiles`, as of `fisherflat.depth_profile`, by the name that the legend shows (models, or readings of one).
    - `quantity`, one of a profile's, such as `"scalar_curvature"` [1/σ²].
    - `ax`, to draw into (default: a new figure one column wide, 3.4 inches).

    **Returns:** the axes. **Raises:** `InputError` for no profile or an unknown quantity.

    >>> import torch, fisherflat as ff
    >>> bowl = lambda x: x + torch.stack([0 * x[0], 0 * x[1], x[0] ** 2 + x[1] ** 2])
    >>> chart = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])
    >>> ax = ff.plot.profiles({"bowls": ff.depth_profile([bowl] * 4, chart, torch.zeros(2))})
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('blocks passed', 'scalar curvature [1/σ²]')
    """
    if quantity not in _LABELS:
        raise InputError(f"{quantity!r} is not in a profile; there are {', '.join(_LABELS)}")
    if not profiles:
        raise InputError("there is no profile to draw")
    ax = axes_for(ax, (COLUMN, 2.6))
    drawn = []
    for index, (name, profile) in enumerate(profiles.items()):
        all_values, depth = getattr(profile, quantity), profile.passed.numpy()
        known = profile.decided if quantity == "scalar_curvature" else all_values
        values, whole = (tensor.reshape(len(depth), -1).cpu().numpy() for tensor in (known, all_values))
        found = [estimate(at_depth) for at_depth in values]
        low, mean, high = np.array([[item.low, item.mean, item.high] for item in found]).T
        colour, marker = OKABE_ITO[index % len(OKABE_ITO)], MARKERS[index % len(MARKERS)]
        if (unknown := (np.isnan(values) & ~np.isnan(whole)).any(1)).any():
            x = depth[unknown]
            ax.plot(x, [0.0] * len(x), "x", transform=ax.get_xaxis_transform(), color=colour, ms=4, clip_on=False)
        ax.fill_between(depth, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.plot(depth, mean, color=colour, marker=marker, markersize=3, linewidth=1, label=name)
        drawn += [low, mean, high]
    sizes = np.abs(np.concatenate(drawn))
    profile_axis(ax, sizes[np.isfinite(sizes)], "blocks passed", _LABELS[quantity], statistic=STATISTIC)
    return ax


def budget(budget: Budget, *, ax: Axes | None = None) -> Axes:
    """The budget's matrix, averaged over points, as coloured cells.

    Cells hold their number, in the power of ten that the title names, where there are at most eight labels, and a
    colour bar stands beside them where there are more. Labels without any curvature are left out. The sum of all cells
    is the scalar curvature, in the title.

    **Args:** `budget`, as of `fisherflat.curvature_budget`; `ax`, to draw into (default: a new figure one column wide).

    **Returns:** the axes.

    >>> import torch, fisherflat as ff
    >>> bowl = lambda x: x + torch.stack([0 * x[0], 0 * x[1], x[0] ** 2 + x[1] ** 2])
    >>> chart = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])
    >>> ff.plot.budget(ff.curvature_budget([bowl] * 2, chart, torch.zeros(2), by="layer")).get_title()
    'sum = scal = 32 /σ², cells in $10^{-1}$/σ²'
    """
    from matplotlib.colors import Normalize, SymLogNorm

    ax = axes_for(ax, (COLUMN, 3.0))
    matrix = _mean(budget, "matrix")
    kept = [i for i in range(len(budget.parts)) if matrix[i].any()] or [0]
    cells, parts = matrix[np.ix_(kept, kept)], [budget.parts[i] for i in kept]
    end = float(np.nanmax(np.abs(cells))) or 1.0
    numbered = len(kept) <= 8
    # numbers say what a linear scale hides; without them a few large cells must not leave all others white
    norm = Normalize(-end, end) if numbered else SymLogNorm(end / 100, linscale=1.0, vmin=-end, vmax=end)
    image = ax.imshow(cells, cmap=COLOURS, norm=norm)
    title = f"sum = {_averaged(budget)}scal = {matrix.sum():.3g} /σ²"
    if numbered:
        power = math.floor(math.log10(end)) - 1  # the largest cell has two digits before the point
        title += f", cells in $10^{{{power}}}$/σ²"
        for row, column in np.ndindex(cells.shape):
            dark = abs(cells[row, column]) > 0.6 * end
            text = f"{cells[row, column] / 10.0**power:.1f}"
            ax.text(column, row, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
    else:
        bar = ax.figure.colorbar(image, ax=ax, label="cells [1/σ²]")
        bar.ax.tick_params(labelsize=7)
    _matrix_ticks(ax, parts)
    ax.set_title(title, fontsize=8)
    return ax


def _matrix_ticks(ax: Axes, parts: Sequence[Part]) -> None:
    """Labels at rows and columns: of all parts where there is room, else one for each layer, between lines."""
    if len(parts) <= 14:
        labels = [part.label.replace("_", " ") for part in parts]
        long = max(map(len, labels)) > 2 and len(parts) > 8
        turned = {"rotation": 90} if long else {"rotation": 40, "ha": "right"}
        ax.set_xticks(range(len(parts)), labels, fontsize=7 if len(parts) <= 8 else 6, **turned)
        ax.set_yticks(range(len(parts)), labels, fontsize=7 if len(parts) <= 8 else 6)
        return
    layers = [part.layer or "" for part in parts]
    if len(set(layers)) > 14:
        layers = [re.sub(r"\D", "", layer) for layer in layers]
        ax.set_xlabel("layer", fontsize=8)
        ax.set_ylabel("layer", fontsize=8)
    starts = [i for i, layer in enumerate(layers) if i == 0 or layer != layers[i - 1]]
    ends = [*starts[1:], len(parts)]
    for edge in starts[1:]:
        ax.axhline(edge - 0.5, color="0.6", linewidth=0.3)
        ax.axvline(edge - 0.5, color="0.6", linewidth=0.3)
    every = -(-len(starts) // 14)
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)][::every]
    labels = [layers[start] for start in starts][::every]
    ax.set_xticks(middles, labels, fontsize=6, rotation=90 if max(map(len, labels)) > 2 else 0)
    ax.set_yticks(middles, labels, fontsize=6)


def budget_by_layer(budget: Budget, *, ax: Axes | None = None) -> Axes:
    """What is attributed to each layer, stacked by role: positive above zero, negative below. The bars sum to scal.

    **Args:** `budget`, as of `fisherflat.curvature_budget` with `by="layer-role"`; `ax`, to draw into (default: a new
    figure one column wide).

    **Returns:** the axes. **Raises:** `InputError` for another budget.

    >>> import torch, fisherflat as ff
    >>> bowl = lambda x: x + torch.stack([0 * x[0], 0 * x[1], x[0] ** 2 + x[1] ** 2])
    >>> chart = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])
    >>> budget = ff.curvature_budget([bowl] * 2, chart, torch.zeros(2), by="layer-role")
    >>> [float(bar.get_height()) for bar in ff.plot.budget_by_layer(budget).containers[0]]
    [16.0, 16.0]
    """
    if any(part.role is None or (part.layer is None and part.role in ROLES) for part in budget.parts):
        raise InputError('these bars need a budget made with by="layer-role"')
    ax = axes_for(ax, (COLUMN, 2.6))
    attributed = _mean(budget, "attributed")
    names = [*budget.layers, *(part.label for part in budget.parts if part.layer is None)]
    places, width, label = _places(names, ax)
    bottoms = {1: np.zeros(len(places)), -1: np.zeros(len(places))}
    for index, role in enumerate(ROLES):
        heights = np.zeros(len(places))
        for part, value in zip(budget.parts, attributed, strict=True):
            if part.role == role or (part.layer is None and role == ROLES[-1]):
                heights[names.index(part.layer or part.label)] += value
        if not heights.any():
            continue
        for sign in (1, -1):
            drawn = np.where(np.sign(heights) == sign, heights, 0)
            ax.bar(places, drawn, bottom=bottoms[sign], width=width, color=OKABE_ITO[index], hatch=_HATCHES[index],
                   label=role.replace("_", " ") if sign == 1 else None, edgecolor="white", linewidth=0.3)  # fmt: skip
            bottoms[sign] += drawn
    ax.axhline(0, color="0.3", linewidth=0.6)
    low, high = bottoms[-1].min(), bottoms[1].max()
    if high > low:
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    profile_axis(
        ax, np.zeros(0), label, "attributed scal [1/σ²]", columns=3, statistic=_averaged(budget, "means over points")
    )
    return ax


def transport(budget: Budget, *, ax: Axes | None = None) -> Axes:
    """For each layer, the second fundamental form that it creates, and what of it survives to the output.

    **Args:** `budget`, as of `fisherflat.curvature_budget` with `by="layer"`; `ax`, to draw into (default: a new figure
    one column wide).

    **Returns:** the axes. **Raises:** `InputError` for another budget.

    >>> import torch, fisherflat as ff
    >>> bowl = lambda x: x + torch.stack([0 * x[0], 0 * x[1], x[0] ** 2 + x[1] ** 2])
    >>> chart = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])
    >>> budget = ff.curvature_budget([bowl, lambda x: 2 * x], chart, torch.zeros(2), by="layer")
    >>> created, surviving = ff.plot.transport(budget).containers
    >>> round(float(created[0].get_height()), 3), round(float(surviving[0].get_height()), 3)
    (2.828, 1.414)
    """
    if any((part.layer is None) == (part.role is None) or part.role in ROLES for part in budget.parts):
        raise InputError('this chart needs a budget made with by="layer"')
    ax = axes_for(ax, (COLUMN, 2.4))
    places, width, label = _places(budget.layers, ax)
    half, count = width / 2, len(places)
    ax.bar(places - half / 2, _mean(budget, "created")[:count], width=half, color=OKABE_ITO[0], label="created")
    ax.bar(places + half / 2, _mean(budget, "surviving")[:count], width=half, color=OKABE_ITO[1], hatch="//" * 2,
           edgecolor="white", linewidth=0.3, label="at the output")  # fmt: skip
    profile_axis(ax, np.zeros(0), label, "|II| of its sources [1/σ]", statistic=_averaged(budget, "means over points"))
    return ax


def _places(layers: Sequence[str], ax: Axes) -> tuple[np.ndarray, float, str]:
    """Where the bars of layers stand, their width, and the label of the axis; halves stand side by side.

    What is no layer, such as a model's head, stands behind them under its name.
    """
    offsets = {"attention": -0.21, "mlp": 0.21}
    numbered = [layer for layer in layers if re.search(r"\d", layer)]
    halved = any(layer.split()[-1] in offsets for layer in numbered)
    places = [float(re.sub(r"\D", "", layer)) + offsets.get(layer.split()[-1], 0.0) for layer in numbered]
    after = math.floor(max(places, default=-1) + 0.5) + 1
    for place, name in enumerate((layer for layer in layers if layer not in numbered), after):
        places.append(float(place))
        ax.annotate(name, (place, 0), (0, -14), ("data", "axes fraction"), "offset points", fontsize=6, rotation=30,
                    ha="right", va="top")  # fmt: skip
    return np.array(places), 0.38 if halved else 0.76, "layer (left: attention, right: MLP)" if halved else "layer"


def depth_maps(samples: Mapping[str, CurvatureField], *, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Small curvature maps of the same chart after each block, on one colour scale.

    **Args:** `samples`, by what they are behind, such as `layer 3`, as of `fisherflat.curvature_fields`; `axes`, as
    many (default: new ones, three in a row and one column wide).

    **Returns:** the axes. **Raises:** `InputError` for axes that are not as many as maps.

    >>> import torch, fisherflat as ff
    >>> bowl = lambda x: x + torch.stack([0 * x[0], 0 * x[1], x[0] ** 2 + x[1] ** 2])
    >>> chart = ff.charts.affine(torch.zeros(3), torch.eye(3)[:2])
    >>> fields = ff.curvature_fields([bowl] * 2, chart, (-1.0, 1.0, -1.0, 1.0), resolution=3)
    >>> [ax.get_title() for ax in ff.plot.depth_maps(fields)]
    ['after layer 0', 'after layer 1']
    """
    axes = strip_axes(len(samples)) if axes is None else axes
    if len(axes) != len(samples):
        raise InputError(f"{len(samples)} maps need as many axes, got {len(axes)}")
    bar = fields(list(samples.values()), axes, ellipses=0)
    bar.ax.tick_params(labelsize=6)
    bar.set_label(CURVATURE_LABEL, fontsize=7)
    for label, ax in zip(samples, axes, strict=True):
        ax.set_title(f"after {label}", fontsize=7)
        ax.tick_params(labelsize=6)
        ax.set(xlabel="", ylabel="")
    return axes


def few(samples: Mapping[str, T], *, most: int = 9) -> dict[str, T]:
    """At most so many of the maps: those after whole blocks where there are more, at even distances, with the last.

    **Args:** `samples`, by label, as of `fisherflat.curvature_fields`; `most`, how many.

    >>> import fisherflat as ff
    >>> list(ff.plot.few({f"layer {i}": None for i in range(12)}, most=3))
    ['layer 3', 'layer 7', 'layer 11']
    """
    chosen = list(samples)
    if len(chosen) > most:
        chosen = [label for label in chosen if not label.endswith(" attention")]
    steps = min(most, len(chosen))
    picked = [chosen[round((i + 1) * len(chosen) / steps) - 1] for i in range(steps)]
    return {label: samples[label] for label in picked}


def strip_axes(count: int, *, figure: Figure | None = None) -> list[Axes]:
    """Axes for small maps, three in a row and one column wide.

    **Args:** `count`, how many; `figure`, an empty one (default: a new one of pyplot).

    >>> import fisherflat as ff
    >>> from matplotlib.figure import Figure
    >>> len(ff.plot.strip_axes(5, figure=Figure()))
    5
    """
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure(layout="constrained")
    columns = min(count, 3)
    rows = -(-count // columns)
    figure.set_size_inches(COLUMN, 0.3 + 3.0 / columns * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for spare in grid.flat[count:]:
        spare.set_visible(False)
    return list(grid.flat[:count])


def _averaged(budget: Budget, said: str = "mean ") -> str:
    """What to say of numbers that are averages; nothing where there is one point."""
    return said if budget.matrix.shape[:-2].numel() > 1 else ""


def _mean(budget: Budget, name: str) -> np.ndarray:
    """A field of a budget, averaged over the points that have a geometry and are decided."""
    n = len(budget.parts)
    values = getattr(budget.decided, name)
    trailing = (n, n) if name == "matrix" else (n,)
    points = values.shape[: values.dim() - len(trailing)].numel()
    return values.reshape(points, *trailing).nanmean(0).cpu().numpy()
