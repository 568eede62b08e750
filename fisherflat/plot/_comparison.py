"""Models side by side: their curvature by layer, and how it differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fisherflat.errors import InputError
from fisherflat.plot._style import COLUMN, MARKERS, OKABE_ITO, family_of, plain_label, profile_axis
from fisherflat.spaces.families import labelled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def compared(table: pd.DataFrame, *, first: str, axes: np.ndarray | None = None) -> np.ndarray:
    """Scalar curvature of models by layer, and the paired differences to the first, one row of panels a part.

    On the left the means of all models, on the right the differences with their bootstrap intervals. The grey band is
    the noise floor: how much two halves of one analysis differ; where there are several models, the smallest.

    **Args:**

    - `table`, as `table` of a `Comparison` in one reading; `first`, the name of the model that the others are compared
      with.
    - `axes`, `[parts, 2]`, to draw into (default: a new figure two columns wide).

    **Returns:** the axes. **Raises:** `InputError` for a table without rows, or axes that do not fit it.

    >>> import pandas as pd, fisherflat as ff
    >>> row = {"model": "b", "layer": 0, "part": "mlp", "reading": "live", "before": 1.0, "after": 3.0, "mean": 2.0}
    >>> row |= {"low": 1.5, "high": 2.5, "noise_floor": 0.5}
    >>> ff.plot.compared(pd.DataFrame([row]), first="a")[0, 1].get_title(loc="left")
    'mlp: difference to a'
    """
    parts, models = list(dict.fromkeys(table["part"])), list(dict.fromkeys(table["model"]))
    if not parts:
        raise InputError("the table has no rows, so there is nothing to draw")
    panels = _new(len(parts)) if axes is None else axes
    if np.shape(panels) != (len(parts), 2):
        raise InputError(f"axes must be [{len(parts)}, 2], one row a part; they have shape {list(np.shape(panels))}")
    every = np.abs(table[["before", "after", "mean", "low", "high"]].to_numpy(dtype=float)).ravel()
    sizes = every[np.isfinite(every)]  # of all panels, so that they have one kind of scale
    for part, (left, right) in zip(parts, panels, strict=True):
        rows = table[table["part"] == part].sort_values("layer", kind="stable")
        own = rows.drop_duplicates("layer")
        _line(left, own["layer"], own["before"], 0, first)
        for index, model in enumerate(models, 1):
            of = rows[rows["model"] == model]
            _line(left, of["layer"], of["after"], index, model)
            x = of["layer"] + 0.12 * (index - (len(models) + 1) / 2)
            ends = np.stack([of["mean"] - of["low"], of["high"] - of["mean"]])
            right.errorbar(
                x, of["mean"], np.nan_to_num(ends), color=OKABE_ITO[index % 6], fmt=MARKERS[index % 6], ms=3.5, lw=1,
                capsize=2,
            )  # fmt: skip
        right.use_sticky_edges = False  # else the band ends at the frame
        floors = rows.groupby("layer")["noise_floor"].min().dropna()
        right.bar(
            floors.index, 2 * floors, 0.8, bottom=-floors, color="0.88", lw=0, zorder=0, label="noise floor of halves"
        )
        for ax, title in ((left, part), (right, f"{part}: difference to {plain_label(first)}")):
            profile_axis(ax, sizes, "layer", labelled("scal", family_of(table)))
            ax.margins(y=0.12)  # of the scale that it has now: no marker on the frame
            ax.set_title(title, fontsize=9, loc="left", pad=3)
            ax.legend_ = None  # there is one for all of them
        for ax in (left, right):
            if part != parts[-1]:
                ax.set_xlabel("")
    handles = {label: h for ax in panels[0] for h, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    few = " (too few for 95 %)" if "word" in table and (table["word"] == "too few").any() else " of 95 %"
    panels[0, 0].figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=3, fontsize=7, frameon=False,
        title=f"{', '.join(dict.fromkeys(table['reading']))}: means; paired differences with intervals{few}",
        title_fontsize=7,
    )  # fmt: skip
    return panels


def _line(ax: Axes, layer: pd.Series, value: pd.Series, index: int, label: str) -> None:
    look = index % 6
    ax.plot(layer, value, color=OKABE_ITO[look], marker=MARKERS[look], ms=3.5, lw=1, label=plain_label(label))


def _new(count: int) -> np.ndarray:
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(2 * COLUMN, 1.2 + 1.5 * count), layout="constrained")
    found: np.ndarray = figure.subplots(count, 2, sharex=True, squeeze=False)
    return found
