"""Figures of budgets: what of the curvature is attributed to which part, and what survives to the output."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from fisherflat._display import shown
from fisherflat._typing import Tensor
from fisherflat.errors import InputError
from fisherflat.jets.graph import ROLES
from fisherflat.plot._style import COLOURS, COLUMN, axes_for, profile_axis
from fisherflat.plot._style import ROLES as LOOKS
from fisherflat.spaces.families import labelled, unit
from fisherflat.studies.depth import EXTRAS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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

    def mean_error(self, name: str) -> Tensor:
        """How far off rounding may have put the mean of a field; NaN where that is not known."""


def budget(budget: Budget, *, ax: Axes | None = None) -> Axes:
    """The budget's matrix, averaged over points, as coloured cells.

    Cells hold their number, in the power of ten that the title names, where there are at most eight labels, and a
    colour bar stands beside them where there are more. Labels without any curvature are left out. Many parts are named
    by their layer, between lines, and by the colour of their role, in a strip along the matrix. The sum of all cells is
    the scalar curvature, in the title, with its error where that leaves fewer than three digits.

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
    linear = 10.0 ** math.floor(math.log10(end / 100))
    norm = Normalize(-end, end) if numbered else SymLogNorm(linear, linscale=0.7, vmin=-end, vmax=end)
    image = ax.imshow(cells, cmap=COLOURS, norm=norm, aspect="equal" if numbered else "auto")
    known = shown(matrix.sum(), float(budget.mean_error("scalar_curvature")))
    known = f"({known})" if "±" in known else known
    per = unit(_family(budget)).removeprefix("1")
    title = f"sum = {_averaged(budget)}scal = {known} {per}".rstrip()
    if numbered:
        power = math.floor(math.log10(end)) - 1  # the largest cell has two digits before the point
        title += f", cells in $10^{{{power}}}${per}"
        for row, column in np.ndindex(cells.shape):
            dark = abs(cells[row, column]) > 0.6 * end
            text = f"{cells[row, column] / 10.0**power:.1f}"
            ax.text(column, row, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
    else:
        bar = ax.figure.colorbar(image, ax=ax)
        bar.set_label(labelled("cells", _family(budget)), fontsize=8)
        bar.ax.tick_params(labelsize=7)
    _matrix_ticks(ax, parts)
    ax.set_title(title, fontsize=8, pad=6 if len(kept) <= 14 else 12)
    return ax


def _family(budget: Budget) -> str | None:
    """Something that is a family with a metric of its own, where the budget has its parts."""
    return next((part.role for part in budget.parts if part.role in EXTRAS), None)


def _matrix_ticks(ax: Axes, parts: Sequence[Part]) -> None:
    """Labels at rows and columns: of all parts where there is room, else one for each layer, between lines."""
    if len(parts) <= 14:
        labels = [part.label.replace("_", " ") for part in parts]
        long = max(map(len, labels)) > 2 and len(parts) > 8
        turned = {"rotation": 90} if long else {"rotation": 40, "ha": "right"}
        ax.set_xticks(range(len(parts)), labels, fontsize=7 if len(parts) <= 8 else 6, **turned)
        ax.set_yticks(range(len(parts)), labels, fontsize=7 if len(parts) <= 8 else 6)
        return
    if all(part.role in ROLES for part in parts):
        _role_strips(ax, [str(part.role) for part in parts])
    halves = [part.layer or "" for part in parts]
    layers = [re.sub(r"\D", "", half) or half for half in halves]
    for names, colour, width in ((halves, "0.75", 0.3), (layers, "0.3", 0.6)):
        for edge in _starts(names)[1:]:
            ax.axhline(edge - 0.5, color=colour, linewidth=width)
            ax.axvline(edge - 0.5, color=colour, linewidth=width)
    starts = _starts(layers)
    every = -(-len(starts) // 14)
    ends = [*starts[1:], len(parts)]
    middles = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)][::every]
    labels = [layers[start] for start in starts][::every]
    ax.set_xticks(middles, labels, fontsize=7)
    ax.set_yticks(middles, labels, fontsize=7)
    halved = {half.split()[-1] for half in halves if half} == {"attention", "mlp"}
    for axis, first in ((ax.xaxis, "left"), (ax.yaxis, "above")):
        axis.set_label_text(f"layer ({first}: attention, then MLP)" if halved else "layer", fontsize=8)


def _starts(names: Sequence[str]) -> list[int]:
    return [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]


def _role_strips(ax: Axes, roles: Sequence[str]) -> None:
    """Which role a row or column is of, as colours outside the matrix, and a legend of these."""
    from matplotlib.patches import Patch, Polygon

    for number, role in enumerate(roles):
        for across in (True, False):
            near, far = (1.01, 1.04) if across else (-0.01, -0.04)
            corners = [(number - 0.5, near), (number + 0.5, near), (number + 0.5, far), (number - 0.5, far)]
            corners = corners if across else [(side, along) for along, side in corners]
            where = ax.get_xaxis_transform() if across else ax.get_yaxis_transform()
            ax.add_patch(Polygon(corners, transform=where, clip_on=False, lw=0, fc=LOOKS[role].colour))
    ax.tick_params(axis="both", length=0)
    ax.tick_params(axis="y", pad=10)
    present = [role for role in ROLES if role in roles]
    handles = [Patch(facecolor=LOOKS[role].colour, label=role.replace("_", " ")) for role in present]
    ax.figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=7)


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
    for role in ROLES:
        heights = np.zeros(len(places))
        for part, value in zip(budget.parts, attributed, strict=True):
            if part.role == role or (part.layer is None and role == ROLES[-1]):
                heights[names.index(part.layer or part.label)] += value
        if not heights.any():
            continue
        for sign in (1, -1):
            drawn = np.where(np.sign(heights) == sign, heights, 0)
            look = LOOKS[role]
            ax.bar(places, drawn, bottom=bottoms[sign], width=width, color=look.colour, hatch=look.hatch,
                   label=role.replace("_", " ") if sign == 1 else None, edgecolor="white", linewidth=0.3)  # fmt: skip
            bottoms[sign] += drawn
    ax.axhline(0, color="0.3", linewidth=0.6)
    low, high = bottoms[-1].min(), bottoms[1].max()
    if high > low:
        ax.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    what = labelled("attributed scal", _family(budget))
    profile_axis(ax, np.zeros(0), label, what, columns=3, statistic=_averaged(budget, "means over points"))
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
    ax.bar(places - half / 2, _mean(budget, "created")[:count], width=half, color="0.35", label="created")
    ax.bar(places + half / 2, _mean(budget, "surviving")[:count], width=half, color="0.7", hatch="//" * 2,
           edgecolor="white", linewidth=0.3, label="at the output")  # fmt: skip
    what = labelled("|II| of its sources", _family(budget), -1)
    profile_axis(ax, np.zeros(0), label, what, statistic=_averaged(budget, "means over points"))
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
