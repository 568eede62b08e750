"""Symmetries of gated MLPs: forms of their units, broken-symmetry strength, null space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fisherflat.errors import InputError
from fisherflat.plot._style import COLUMN, MARKERS, axes_for, shades

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from fisherflat.gated_mlp import NullDirections


def unit_forms(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """The two eigenvalues of each unit's quadratic form `sym(g uᵀ)`, one point a unit; on the diagonal g·u = 0.

    Above it gate and up vector point the same way, below it they oppose each other. The axes end where all but one
    unit in a thousand are inside.

    **Args:** `table`, of `fisherflat.symmetry.study`; `ax`, to draw into (default: a new figure one column wide).

    **Returns:** the axes. **Raises:** `InputError` where a column is missing or the table is empty.

    >>> import pandas as pd, fisherflat as ff
    >>> table = pd.DataFrame({"layer": [0, 0], "positive": [0.5, 0.25], "negative": [-0.25, -0.5]})
    >>> ff.plot.unit_forms(table).get_legend_handles_labels()[1]
    ['layer 0']
    """
    _check(table, "positive", "negative")
    ax = axes_for(ax, (COLUMN, 2.8))
    shuffled = table.sample(frac=1, random_state=0)  # or the last layer would hide the others
    x, y, layers = -shuffled["negative"].to_numpy(), shuffled["positive"].to_numpy(), shuffled["layer"].to_numpy()
    sizes = np.maximum(x, y)
    end = 1.04 * max(np.quantile(sizes, 0.999), 1e-300)
    ax.plot([0, end], [0, end], color="0.5", linewidth=0.6, zorder=0)
    turned: dict[str, Any] = {"ha": "center", "va": "bottom", "rotation": 45, "rotation_mode": "anchor"}
    ax.text(0.89 * end, 0.9 * end, "g·u = 0", fontsize=7, color="0.4", **turned)
    dots: dict[str, Any] = {"s": 6 if len(table) < 2000 else 1, "linewidths": 0, "rasterized": True}
    chosen = sorted(set(layers))
    if len(chosen) <= len(MARKERS):
        for place, (layer, marker) in enumerate(zip(chosen, MARKERS, strict=False)):
            mine, colour = layers == layer, _shade(place, len(chosen))
            ax.scatter(x[mine], y[mine], color=[colour], marker=marker, label=f"layer {layer}", **dots)
        ax.legend(fontsize=7, frameon=False, markerscale=2 if dots["s"] < 6 else 1, **_ABOVE)
    else:
        _layer_bar(ax, ax.scatter(x, y, c=layers, cmap=shades(), **dots))
    ax.set_xlim(0, end)
    ax.set_ylim(0, end)
    ax.set_aspect("equal")
    ax.set_xlabel("−λ₋ = (|g||u| − g·u) / 2", fontsize=9)
    ax.set_ylabel("λ₊ = (|g||u| + g·u) / 2", fontsize=9)
    ax.tick_params(labelsize=8)
    return ax


def broken_strength(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How strongly inverse scaling is broken: the units of each layer in order of strength.

    0 is a unit whose inverse scaling is a symmetry on the inputs, √2 the most that can be. Units that saw no inputs are
    left out.

    **Args:** `table`, of `fisherflat.symmetry.study`; `ax`, to draw into (default: a new figure one column wide).

    **Returns:** the axes. **Raises:** `InputError` where a column is missing or the table is empty.

    >>> import pandas as pd, fisherflat as ff
    >>> ax = ff.plot.broken_strength(pd.DataFrame({"layer": [0, 0], "strength": [0.5, 0.25]}))
    >>> ax.get_lines()[0].get_ydata().tolist()
    [0.25, 0.5]
    """
    _check(table, "strength")
    ax = axes_for(ax, (COLUMN, 2.8))
    groups = [(layer, np.sort(rows.dropna())) for layer, rows in table.groupby("layer")["strength"]]
    groups = [(layer, strength) for layer, strength in groups if len(strength)]
    few = len(groups) <= len(_LINES)
    for place, (layer, strength) in enumerate(groups):
        rank = (np.arange(len(strength)) + 0.5) / len(strength)
        style: dict[str, Any] = {"linestyle": _LINES[place], "label": f"layer {layer}"} if few else {}
        ax.plot(rank, strength, linewidth=1, color=_shade(place, len(groups)), **style)
    ax.axhline(2**0.5, color="0.5", linewidth=0.6, linestyle=":", zorder=0)
    ax.annotate("√2, the most", (0.01, 2**0.5), fontsize=7, color="0.4", va="bottom")
    ax.set_xlabel("units in order, as a share of the layer", fontsize=9)
    ax.set_ylabel("how broken inverse scaling is", fontsize=9)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.55)
    ax.tick_params(labelsize=8)
    if few:
        ax.legend(fontsize=7, frameon=False, **_ABOVE)
    else:
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        _layer_bar(ax, ScalarMappable(Normalize(groups[0][0], groups[-1][0]), shades()))
    return ax


def null_spectrum(found: NullDirections, *, ax: Axes | None = None) -> Axes:
    """The spectrum of the Fisher metric of the weights, with the number of null directions that symmetries predict.

    It is that of gate and up weights, the values profiled out; see `NullDirections`. Eigenvalues below 1e-34 of the
    largest are drawn there.

    **Args:** `found`, of `fisherflat.symmetry.null_directions`; `ax`, to draw into (default: a new figure one column
    wide).

    **Returns:** the axes.

    >>> import torch, fisherflat as ff
    >>> mlp, x = ff.layers.GatedMLP(3, 2, "relu").double(), torch.randn(40, 3, dtype=torch.float64)
    >>> ff.plot.null_spectrum(ff.symmetry.null_directions(mlp, x)).get_xlabel()
    'eigenvalue, in order'
    """
    ax = axes_for(ax, (COLUMN, 2.8))
    spectrum = found.spectrum.cpu().numpy()
    order = np.arange(1, len(spectrum) + 1)
    ax.semilogy(order, np.maximum(spectrum, 1e-34 * spectrum[-1]), ".", markersize=3, color="black")
    label = f"predicted by symmetries: {found.predicted}; found: {found.dimension}"
    ax.axvline(found.predicted + 0.5, color="0.4", linestyle="--", linewidth=1, label=label)
    ax.set_xlabel("eigenvalue, in order", fontsize=9)
    ax.set_ylabel("Fisher information", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=7, frameon=False, **_ABOVE)
    return ax


#: of a legend above the axes, where it hides nothing
_ABOVE: dict[str, Any] = {
    "loc": "lower center",
    "bbox_to_anchor": (0.5, 1.0),
    "ncols": 4,
    "handlelength": 1.6,
    "columnspacing": 1.2,
}
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))


def _shade(place: int, count: int) -> Any:
    """The colour of a layer among so many."""
    return shades()(place / max(count - 1, 1))


def _layer_bar(ax: Axes, mappable: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    bar = ax.figure.colorbar(mappable, ax=ax, ticks=MaxNLocator(integer=True, nbins=6))
    bar.set_label("layer", fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _check(table: pd.DataFrame, *columns: str) -> None:
    missing = [name for name in ("layer", *columns) if name not in table.columns]
    if missing or table.empty:
        what = f"has no column {missing[0]!r}" if missing else "is empty"
        raise InputError(f"the table {what}; pass the table of fisherflat.symmetry.study of a model with gated MLPs")
