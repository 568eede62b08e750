"""What all figures share: colours, labels, axes and scales.

The colours are from ColorBrewer and from Okabe & Ito, which people with colour vision deficiency can tell apart; what
they say is also said by line styles, markers and hatching, for print in grey.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

#: the width of a column of a paper, in inches
COLUMN = 3.4
#: lengths on the manifold are in standard deviations σ of the family, so curvature is per σ²
CURVATURE_LABEL = "scalar curvature [1/σ²]"
#: what lines and bars are, wherever they are drawn; the tables beside figures hold the same numbers
STATISTIC = "means, with 95 % intervals"
#: purple for negative, white for zero, orange for positive
COLOURS = "PuOr_r"
#: distinguishable to colour-blind people (Okabe & Ito, *Color universal design*, 2008), and of different lightness
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")


def axes_for(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """`ax`, or the axes of a new figure of `size` in inches."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=size, layout="constrained")[1]


def profile_axis(ax: Axes, sizes: np.ndarray, x: str, y: str, columns: int = 2, statistic: str | None = None) -> None:
    """Scale, ticks, labels and legend of a profile over layers.

    `sizes` are the absolute values that are drawn; `statistic` names what they are, above the legend.

    The vertical axis is symmetric logarithmic when they span more than two decades, and linear otherwise; at most four
    decades are told apart, so that those that matter have room.

    >>> import matplotlib.pyplot as plt, numpy as np, fisherflat as ff
    >>> ax = plt.figure().add_subplot()
    >>> line = ax.plot([1.0, 1e4], label="block")
    >>> ff.plot.profile_axis(ax, np.array([1.0, 1e4]), "layer", "scalar curvature")
    >>> ax.get_yscale()
    'symlog'
    """
    from matplotlib.ticker import MaxNLocator
    from matplotlib.transforms import offset_copy

    sizes = sizes[sizes > 0]
    if len(sizes):
        # what is below 1e-9 of the largest is zero to rounding and must not stretch the axis
        smallest = sizes[sizes > 1e-9 * sizes.max()].min()
        if sizes.max() > 100 * smallest:
            ax.set_yscale("symlog", linthresh=10.0 ** math.floor(math.log10(max(smallest, 1e-4 * sizes.max()))))
            ax.yaxis.get_major_locator().set_params(numticks=7)  # type: ignore[call-arg]
    ax.axhline(0, color="0.5", linewidth=0.6, zorder=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.tick_params(labelsize=8)
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
    if ax.get_legend_handles_labels()[0]:
        # below the label of the axis, where it hides neither curves nor a title
        below = offset_copy(ax.transAxes, ax.get_figure(root=True), y=-30, units="points")
        ax.legend(
            fontsize=7, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), bbox_transform=below, ncols=columns,
            title=statistic, title_fontsize=7,
        )  # fmt: skip
