"""How well the bilinear surrogate of a gated MLP has its curvature."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from fisherflat._typing import Float, Tensor
from fisherflat.plot._style import COLUMN, CURVATURE_LABEL, axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fisherflat.gated_mlp import Surrogate
    from fisherflat.spaces.families import Gaussian


def surrogate_curvature(
    surrogate: Surrogate, basis: Float[Tensor, "k d"], *, family: Gaussian | None = None, ax: Axes | None = None
) -> Axes:
    """The scalar curvature of the surrogate against that of the MLP, one point an input; on the line they agree.

    Both axes are symmetric logarithmic, linear up to about a tenth of the median size. Inputs at which a metric is
    singular are left out.

    **Args:**

    - `surrogate`, of `fisherflat.symmetry.bilinear_surrogate`.
    - `basis` `[k, d]` and `family`, as in its `scalar_curvatures`.
    - `ax`, to draw into (default: a new figure one column wide).

    **Returns:** the axes.

    >>> import torch, fisherflat as ff
    >>> mlp, x = ff.layers.GatedMLP(4, 6, "silu").double(), torch.randn(20, 4, dtype=torch.float64)
    >>> surrogate = ff.symmetry.bilinear_surrogate(mlp, x)
    >>> ff.plot.surrogate_curvature(surrogate, torch.eye(4, dtype=torch.float64)[:2]).get_ylabel()
    'bilinear surrogate'
    """
    exact, approximate = surrogate.scalar_curvatures(basis, family=family)
    known = torch.isfinite(exact) & torch.isfinite(approximate)
    points = torch.stack([exact, approximate])[:, known].cpu().numpy()
    ax = axes_for(ax, (COLUMN, 2.8))
    ax.plot(*points, ".", markersize=2, color="black", rasterized=True)
    threshold = 10.0 ** math.floor(math.log10(np.median(np.abs(points)) / 10)) if points.any() else 1.0
    ax.set_xscale("symlog", linthresh=threshold)
    ax.set_yscale("symlog", linthresh=threshold)
    ends = [points.min(initial=0), points.max(initial=0)]
    ax.plot(ends, ends, color="0.5", linewidth=0.6, zorder=0)
    ax.set_xlabel(f"gated MLP: {CURVATURE_LABEL}", fontsize=9)
    ax.set_ylabel("bilinear surrogate", fontsize=9)
    ax.tick_params(labelsize=7)
    return ax
