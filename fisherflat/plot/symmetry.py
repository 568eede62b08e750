"""Symmetries of gated MLPs: forms of their units, broken-symmetry strength, null space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fisherflat.errors import InputError
from fisherflat.plot.style import OKABE_ITO, axes_for

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from fisherflat.symmetry import NullDirections


def unit_forms(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """The two eigenvalues of each unit's quadratic form, one point a unit; the diagonal is g ⟂ u.

    **Args:** `table`, of `fisherflat.symmetry.study`; `ax`, to draw into (default: a new figure one column wide).

    **Raises:** `InputError` where a column is missing or the table is empty.
    """
    _check(table, "positive", "negative")
    ax = axes_for(ax, (3.4, 2.8))
    points = ax.scatter(-table["negative"], table["positive"], c=table["layer"], s=3, cmap="viridis", rasterized=True)
    largest = max(-table["negative"].min(), table["positive"].max())
    ax.plot([0, largest], [0, largest], color="0.5", linewidth=0.6, zorder=0)
    ax.set_xlabel("(|g||u| − g·u) / 2", fontsize=9)
    ax.set_ylabel("(|g||u| + g·u) / 2", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.figure.colorbar(points, ax=ax, label="layer")
    return ax


def broken_strength(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How strongly inverse scaling is broken: the units of each layer in order of strength.

    **Args** and **Raises** as `unit_forms`.
    """
    _check(table, "strength")
    ax = axes_for(ax, (3.4, 2.8))
    groups = list(table.groupby("layer")["strength"])
    for index, (layer, strength) in enumerate(groups):
        rank = np.linspace(0, 1, len(strength))
        shade = 0.85 * index / max(1, len(groups) - 1)
        ax.plot(rank, np.sort(strength), color=(shade, shade, 0.6), linewidth=1, label=f"layer {layer}")
    ax.set_xlabel("share of units", fontsize=9)
    ax.set_ylabel("broken inverse scaling", fontsize=9)
    ax.set_ylim(bottom=0)
    ax.tick_params(labelsize=8)
    if len(groups) <= 8:
        ax.legend(fontsize=7, frameon=False)
    return ax


def null_spectrum(found: NullDirections, ax: Axes | None = None) -> Axes:
    """The spectrum of the Fisher metric of the weights, with the number of null directions that symmetries predict.

    Eigenvalues below 1e-34 of the largest are drawn there.

    **Args:** `found`, of `fisherflat.symmetry.null_directions`; `ax` as in `unit_forms`.
    """
    ax = axes_for(ax, (3.4, 2.8))
    spectrum = found.spectrum.cpu().numpy()
    order = np.arange(1, len(spectrum) + 1)
    ax.semilogy(order, np.maximum(spectrum, 1e-34 * spectrum[-1]), ".", markersize=3, color=OKABE_ITO[0])
    label = f"predicted: {found.predicted}"
    ax.axvline(found.predicted + 0.5, color=OKABE_ITO[1], linestyle="--", linewidth=1, label=label)
    ax.set_xlabel("eigenvalue, in order", fontsize=9)
    ax.set_ylabel("Fisher information", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=7, frameon=False)
    return ax


def _check(table: pd.DataFrame, *columns: str) -> None:
    missing = [name for name in ("layer", *columns) if name not in table.columns]
    if missing or table.empty:
        what = f"has no column {missing[0]!r}" if missing else "is empty"
        raise InputError(f"the table {what}; pass the table of fisherflat.symmetry.study of a model with gated MLPs")
