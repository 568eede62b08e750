"""Figures of depth: how curvature grows, to which parts it is attributed, and what becomes of it on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np

from fisherflat._typing import Tensor
from fisherflat.errors import InputError
from fisherflat.geometry import CurvatureField
from fisherflat.plot._maps import fields
from fisherflat.plot._style import (
    COLUMN,
    STATISTIC,
    axes_for,
    line,
    profile_axis,
    series,
    undecided,
)
from fisherflat.spaces.families import labelled
from fisherflat.statistics import estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")

#: quantity -> what it is called, and how many lengths multiplied it is
_LABELS: dict[str, tuple[str, int | None]] = {
    "scalar_curvature": ("scalar curvature", -2),
    "smallest_sectional_curvature": ("smallest sectional curvature", -2),
    "largest_sectional_curvature": ("largest sectional curvature", -2),
    "second_fundamental_form_norm": ("|II|", -1),
    "mean_curvature_norm": ("|H|", -1),
    "volume_density": ("√det g", None),
    "condition_number": ("condition of the metric", None),
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


def profiles(profiles: Mapping[str, Profile], *, quantity: str = "scalar_curvature", ax: Axes | None = None) -> Axes:
    """A quantity against depth, one line for each profile: the mean over points, and its bootstrap interval as a band.

    Where all names are those of readings, each has its colour and its marker; other names have them in turn.
    Scalar curvatures that are undecided are left out; a cross on the axis says at which depths there are such.

    **Args:**

    - `profiles`, as of `fisherflat.depth_profile`, by the name that the legend shows (models, or readings of one).
    - `quantity`, one of a profile's, such as `"scalar_curvature"`, whose unit is that of the first profile's family.
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
    for index, ((name, profile), look) in enumerate(zip(profiles.items(), series(profiles), strict=True)):
        all_values, depth = getattr(profile, quantity), profile.passed.numpy()
        known = profile.decided if quantity == "scalar_curvature" else all_values
        values, whole = (tensor.reshape(len(depth), -1).cpu().numpy() for tensor in (known, all_values))
        found = [estimate(at_depth) for at_depth in values]
        low, mean, high = np.array([[item.low, item.mean, item.high] for item in found]).T
        if (unknown := (np.isnan(values) & ~np.isnan(whole)).any(1)).any():
            undecided(ax, depth[unknown], look.colour)
        ax.fill_between(depth, low, high, facecolor=(look.colour, 0.15), edgecolor=(look.colour, 0.5), linewidth=0.5)
        size = max(2.5, 4.5 - 0.5 * index)  # of lines that coincide all are seen
        ax.plot(depth, mean, **line(look), markersize=size, linewidth=size / 3, label=name)
        drawn += [low, mean, high]
    sizes = np.abs(np.concatenate(drawn))
    what, power = _LABELS[quantity]
    family = getattr(next(iter(profiles.values())), "family", None)
    label = what if power is None else labelled(what, family, power)
    profile_axis(ax, sizes[np.isfinite(sizes)], "blocks passed", label, statistic=STATISTIC)
    return ax


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
    bar.ax.yaxis.label.set_fontsize(7)
    for label, ax in zip(samples, axes, strict=True):
        ax.set_title(f"after {_passed(label)}", fontsize=7)
        ax.tick_params(labelsize=6)
        ax.xaxis.label.set_fontsize(7)
        ax.yaxis.label.set_fontsize(7)
        _label_edges(ax, axes)
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
    figure.set_size_inches(COLUMN, 0.4 + (2.1 / columns + 0.3) * rows)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for spare in grid.flat[count:]:
        spare.set_visible(False)
    return list(grid.flat[:count])


def _passed(label: str) -> str:
    """What lies behind a point of a stack: behind the MLP it is the whole layer."""
    number, _, half = label.partition(" ")
    return {"mlp": f"layer {number}", "attention": f"attention {number}"}.get(half, label)


def _label_edges(ax: Axes, axes: Sequence[Axes]) -> None:
    """Labels and numbers only below the lowest map of a column, and left of the first of a row."""
    place, found = ax.get_subplotspec(), [other.get_subplotspec() for other in axes]
    others = [other for other in found if other is not None]
    if place is None or len(others) < len(found):
        return
    lowest = all(other.rowspan.start <= place.rowspan.start for other in others if other.colspan == place.colspan)
    ax.tick_params(labelbottom=lowest, labelleft=place.is_first_col())
    ax.set(**({} if lowest else {"xlabel": ""}), **({} if place.is_first_col() else {"ylabel": ""}))
