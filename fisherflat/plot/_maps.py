"""Curvature maps over a two-dimensional chart, with the metric as ellipses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fisherflat._arrays import as_float64
from fisherflat.errors import InputError
from fisherflat.geometry import CurvatureField, curvature_field
from fisherflat.plot._style import COLOURS, axes_for
from fisherflat.spaces.families import labelled, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Normalize

    from fisherflat.geometry import StatisticalManifold

#: what the colour scale leaves out at the extremes, as a fraction of the points
CLIPPED = 0.02
#: the most decades on either side of zero of a symmetric logarithmic scale
DECADES = 6
#: sign of the curvature -> style of the line halfway to the end of the scale, which tells the signs apart in grey
_LINES = {-1: "dashed", 1: "solid"}


def curvature_map(
    M: StatisticalManifold,
    extent: tuple[float, float, float, float],
    *,
    resolution: int = 101,
    limit: float | None = None,
    scale: str = "auto",
    ellipses: int = 9,
    paths: Any = None,
    ax: Axes | None = None,
) -> Axes:
    """Scalar curvature over a rectangle of a two-dimensional chart, with the metric as ellipses.

    Orange is positive, purple negative, grey where the metric is singular. A thin line, marked on the colour bar too,
    is solid at one positive value and dashed at its negative. The ellipses are Tissot's indicatrices: each is the set
    of points at one small Fisher-Rao distance from its centre, named in the corner, so that small ellipses stand where
    the representation changes fast. A dashed ellipse was shrunk to fit.

    **Args:**

    - `M`, with a chart of 2 coordinates; `extent`, `(low 0, high 0, low 1, high 1)` in coordinates.
    - `resolution`, points a side.
    - `limit`, the curvature at which the colours end (default: that of all but the largest 2 % of the points,
      which arrows on the colour bar stand for).
    - `scale` of the colours: `"linear"`, `"symlog"`, or `"auto"` for one of the two.
    - `ellipses`, how many a side, 0 for none.
    - `paths` `[..., points, 2]`, lines over the map, such as `M.geodesic(u0, u1)`; dots at their ends.
    - `ax`, to draw into (default: a new figure).

    **Returns:** the axes. **Raises:** `InputError` for a chart that is not two-dimensional or an argument out of range.

    >>> import torch, fisherflat as ff
    >>> M = ff.StatisticalManifold(lambda u: torch.stack([u[0], u[1], u[0] * u[1]]), ff.charts.identity(2))
    >>> ff.plot.curvature_map(M, (-1.0, 1.0, -1.0, 1.0), resolution=5).get_xlabel()
    '$u_1$'
    """
    _check_scale(scale, limit)
    sampled = curvature_field(M, extent, resolution=resolution)
    ax = axes_for(ax, (4.4, 3.6))
    fields([sampled], [ax], limit=limit, scale=scale, ellipses=ellipses)
    for path in _lines(paths):
        ax.plot(*path.T, color="white", linewidth=2.6, zorder=4)
        ax.plot(*path.T, color="black", linewidth=1.3, zorder=4)
        ax.plot(*path[[0, -1]].T, "o", color="black", markersize=3.5, markeredgecolor="white", zorder=4)
    return ax


def _lines(paths: Any) -> np.ndarray:
    """Paths as an array `[n, points, 2]`. **Raises:** `InputError` where they are none."""
    if paths is None:
        return np.zeros((0, 2, 2))
    found = as_float64(paths, "paths").numpy(force=True)
    if found.ndim < 2 or found.shape[-1] != 2 or found.shape[-2] < 2:
        raise InputError(f"paths have shape [..., points, 2], with at least two points; got {list(found.shape)}")
    return found.reshape(-1, *found.shape[-2:])


def fields(
    samples: Sequence[CurvatureField],
    axes: Sequence[Axes],
    *,
    limit: float | None = None,
    scale: str = "auto",
    ellipses: int = 9,
) -> Colorbar:
    """Draw several curvature maps on one colour scale with one colour bar, from numbers that are already there.

    **Args:** `samples`, from `fisherflat.curvature_field`; `axes`, one for each, of one figure; the others as in
    `curvature_map`.

    **Returns:** the colour bar. **Raises:** `InputError` for an argument out of range.

    >>> import torch, fisherflat as ff
    >>> from matplotlib.figure import Figure
    >>> M = ff.StatisticalManifold(lambda u: torch.stack([u[0], u[1], u[0] * u[1]]), ff.charts.identity(2))
    >>> field = ff.curvature_field(M, (-1.0, 1.0, -1.0, 1.0), resolution=5)
    >>> ff.plot.fields([field, field], Figure().subplots(1, 2)).ax.get_ylabel()
    'scalar curvature [1/σ²]'
    """
    _check_scale(scale, limit)
    norm = _norm(samples, limit, scale)
    end = float(norm.inverse(1.0))
    level = float(norm.inverse(0.75))  # the value whose colour is halfway between zero and the end
    drawn = [_draw(sampled, ax, norm, level, ellipses) for sampled, ax in zip(samples, axes, strict=True)]
    label = labelled("scalar curvature", samples[0].family)
    bar = axes[0].figure.colorbar(
        drawn[0], ax=list(axes), extend=_extend(samples, end), label=label, aspect=20 * len(axes) ** 0.5
    )
    for value, style in _LINES.items():
        bar.ax.axhline(value * level, color="0.2", linewidth=0.7, linestyle=style)
    return bar


def _draw(sampled: CurvatureField, ax: Axes, norm: Normalize, level: float, ellipses: int) -> QuadMesh:
    values = sampled.scalar_curvature.numpy()
    first, second = sampled.u[0, :, 0].numpy(), sampled.u[:, 0, 1].numpy()
    ax.set_facecolor("0.7")  # seen where the curvature is NaN
    image = ax.pcolormesh(first, second, values, norm=norm, cmap=COLOURS, shading="nearest", rasterized=True)
    for sign, style in _LINES.items():
        if (values < sign * level).any() and (values > sign * level).any():
            ax.contour(first, second, values, levels=[sign * level], colors="0.2", linewidths=0.5, linestyles=style)
    if ellipses:
        _tissot(sampled, ax, ellipses)
    if sampled.is_flat:
        _note(ax, str(sampled.verdict), "left", size=9)
    unknown = np.isnan(sampled.decided.numpy()) & ~np.isnan(values)
    if unknown.any():
        ax.contourf(first, second, unknown, levels=[0.5, 1.5], colors="none", hatches=["xxxx"])
        _note(ax, f"{unknown.mean():.0%} undecided", "left", size=9)
    low0, high0, low1, high1 = sampled.extent
    ax.set(xlim=(low0, high0), ylim=(low1, high1), aspect="equal", xlabel="$u_1$", ylabel="$u_2$")
    return image


def _check_scale(scale: str, limit: float | None) -> None:
    if scale not in ("auto", "linear", "symlog"):
        raise InputError(f"unknown colour scale {scale!r}; choose 'auto', 'linear' or 'symlog'")
    if limit is not None and not (0 < limit < math.inf):
        raise InputError(f"the limit of the colour scale must be a positive number, got {limit}")


def _norm(samples: Sequence[CurvatureField], limit: float | None, scale: str) -> Normalize:
    """The symmetric colour scale: linear, or logarithmic on both sides of a linear middle."""
    from matplotlib.colors import Normalize, SymLogNorm

    curved = [sampled.decided.numpy() for sampled in samples if not sampled.is_flat]
    sizes = np.abs(np.concatenate([values[np.isfinite(values)] for values in curved])) if curved else np.zeros(0)
    if not sizes.any():
        # rounding noise must not be stretched over the colours
        return Normalize(-(limit or 1.0), limit or 1.0)
    end = limit or float(np.quantile(sizes, 1 - CLIPPED)) or float(sizes.max())
    typical = float(np.median(sizes))
    if scale == "linear" or (scale == "auto" and end <= 100 * typical):
        return Normalize(-end, end)
    end = limit or 10.0 ** math.ceil(math.log10(end))
    middle = 10.0 ** math.floor(math.log10(typical)) if typical else 0.0
    linear = min(max(middle, end * 10.0**-DECADES), end / 10)
    return SymLogNorm(linthresh=linear, linscale=0.5, vmin=-end, vmax=end)


def _extend(samples: Sequence[CurvatureField], end: float) -> str:
    """On which ends of the colour bar values are left out."""
    below = any(bool((sampled.scalar_curvature < -end).any()) for sampled in samples)
    above = any(bool((sampled.scalar_curvature > end).any()) for sampled in samples)
    return {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[below, above]


def _note(ax: Axes, text: str, side: str, size: float = 6.5) -> None:
    box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5}
    x = 0.98 if side == "right" else 0.02
    ax.text(x, 0.02, text, transform=ax.transAxes, ha=side, va="bottom", fontsize=size, bbox=box, zorder=5)


def _tissot(sampled: CurvatureField, ax: Axes, count: int) -> None:
    """Ellipses `{v : g(v, v) = r²}` on a grid, r a round number for which most of them fit between their neighbours."""
    from matplotlib.collections import EllipseCollection

    low0, high0, low1, high1 = sampled.extent
    resolution = sampled.scalar_curvature.shape[0]
    chosen = np.unique(((np.arange(count) + 0.5) / count * (resolution - 1)).round().astype(int))
    u = sampled.u.numpy()[np.ix_(chosen, chosen)].reshape(-1, 2)
    metric = sampled.metric.numpy()[np.ix_(chosen, chosen)].reshape(-1, 2, 2)
    stretch, directions = np.linalg.eigh(np.nan_to_num(metric))
    usable = stretch[:, 0] > 0
    if not usable.any():
        return
    u, stretch, directions = u[usable], stretch[usable], directions[usable]
    semi_axes = stretch**-0.5  # coordinates per σ; the first is the longer one
    room = 0.48 * min(high0 - low0, high1 - low1) / count
    radius = _round_below(room / float(np.quantile(semi_axes[:, 0], 0.75)))
    shrink = np.minimum(1, room / (radius * semi_axes[:, 0]))
    diameters = 2 * radius * shrink[:, None] * semi_axes
    angles = np.degrees(np.arctan2(directions[:, 1, 0], directions[:, 0, 0]))
    for fits, style in ((shrink == 1, "solid"), (shrink < 1, (0, (2, 1.5)))):
        look = {"facecolors": (1, 1, 1, 0.5), "edgecolors": "0.1", "linewidths": 0.6, "linestyles": style}
        (widths, heights), where = diameters[fits].T, {"offsets": u[fits], "offset_transform": ax.transData}
        ax.add_collection(EllipseCollection(widths, heights, angles[fits], units="xy", **where, **look))
    reach = f"{radius:g} {unit(sampled.family, 1)}".rstrip()
    _note(ax, f"ellipses: {reach}" + (" (dashed: shrunk)" if (shrink < 1).any() else ""), "right")


def _round_below(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above `value`."""
    decade = 10.0 ** math.floor(math.log10(value))
    return decade * max(mantissa for mantissa in (1, 2, 5) if mantissa * decade <= value * (1 + 1e-12))
