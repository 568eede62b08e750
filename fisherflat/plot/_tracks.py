"""Curvature through training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fisherflat.errors import InputError
from fisherflat.plot._style import COLUMN, STATISTIC, family_of, plain_label, profile_axis
from fisherflat.spaces.families import labelled

if TYPE_CHECKING:
    import pandas as pd

#: how deep layers are -> colours that people with colour vision deficiency tell apart, none too light for paper
_MAP, _LIGHTEST = "viridis", 0.9
#: so many layers have an entry of their own in the legend
_NAMED = 8


def tracks(table: pd.DataFrame, *, axes: np.ndarray | None = None) -> np.ndarray:
    """Scalar curvature by training step, a line a layer, a column of panels a run and a row a part.

    The line is the mean, the band its bootstrap interval; the deeper the layer, the lighter the colour.

    **Args:**

    - `table`, as `table` of a `Track` in one reading.
    - `axes`, `[parts, runs]`, to draw into (default: a new figure).

    **Returns:** the axes. **Raises:** `InputError` for a table without rows, or axes that do not fit it.

    >>> import pandas as pd, fisherflat as ff
    >>> row = {"run": "gated", "layer": 0, "part": "mlp", "reading": "live", "mean": 1.0, "low": 0.5, "high": 1.5}
    >>> table = pd.DataFrame([row | {"step": 100}, row | {"step": 200}])
    >>> ff.plot.tracks(table)[0, 0].get_title(loc="left")
    'gated: mlp'
    """
    import matplotlib as mpl

    parts, runs = (list(dict.fromkeys(table[name])) for name in ("part", "run"))
    if not parts:
        raise InputError("the table has no rows, so there is nothing to draw")
    panels = _new(len(parts), len(runs)) if axes is None else axes
    if np.shape(panels) != (len(parts), len(runs)):
        raise InputError(f"axes must be [{len(parts)}, {len(runs)}], one row a part and one column a run")
    layers = sorted(set(table["layer"]))
    named = {layers[round(float(at))] for at in np.linspace(0, len(layers) - 1, min(_NAMED, len(layers)))}
    colours = mpl.colormaps[_MAP](np.linspace(0, _LIGHTEST, len(layers)))
    markers = ("o", "s", "^", "D", "v", "P")
    sizes = np.abs(table[["mean", "low", "high"]].to_numpy(dtype=float)).ravel()  # one kind of scale for all panels
    for part, row in zip(parts, panels, strict=True):
        of_part = table[table["part"] == part]
        for run, ax in zip(runs, row, strict=True):
            for index, layer in enumerate(layers):
                of = of_part[(of_part["run"] == run) & (of_part["layer"] == layer)].sort_values("step")
                ax.plot(
                    of["step"], of["mean"], color=colours[index], marker=markers[index % 6], ms=3, lw=1,
                    label=f"layer {layer}" if layer in named else None,
                )  # fmt: skip
                low, high = (of[name].to_numpy(dtype=float) for name in ("low", "high"))
                ax.fill_between(of["step"], low, high, color=colours[index], alpha=0.15, lw=0)
            last, first = part == parts[-1], run == runs[0]
            what = labelled("scal", family_of(table)) if first else ""
            profile_axis(ax, sizes[np.isfinite(sizes)], "step" if last else "", what)
            ax.set_title(f"{plain_label(run)}: {part}", fontsize=9, loc="left", pad=3)
            ax.legend_ = None  # there is one for all of them
    handles = {label: h for ax in panels[0] for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    panels[0, 0].figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize=7, frameon=False,
        title=f"{', '.join(dict.fromkeys(table['reading']))}: {STATISTIC}", title_fontsize=7,
    )  # fmt: skip
    return panels


def _new(rows: int, columns: int) -> np.ndarray:
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(0.4 + COLUMN * columns, 1.1 + 1.6 * rows), layout="constrained")
    found: np.ndarray = figure.subplots(rows, columns, sharex="col", sharey="row", squeeze=False)
    return found
