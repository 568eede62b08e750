"""Volume element and curvature of a hidden layer near a decision boundary.

Zavatone-Veth, Yang, Rubinfien and Pehlevan, *Neural networks learn to magnify areas near decision boundaries* (2023): a
network of one hidden layer learns the side of y = 3/5 sin(7x − 1), and the map from the plane to its hidden layer, in
units of their root number, has a volume element √det g and a Ricci scalar.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from fisherflat._typing import Tensor
from fisherflat.errors import DegenerateImmersionWarning, PrecisionWarning, without
from fisherflat.geometry import StatisticalManifold
from fisherflat.spaces import charts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TITLE = "Volume and curvature near a decision boundary"
#: how far from the boundary, along y, is near
NEAR = 0.1


def boundary(x: Tensor) -> Tensor:
    """The height of the boundary at `x`."""
    return 0.6 * torch.sin(7 * x - 1)


class Erf(nn.Module):
    """The activation of the paper's figure."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return torch.erf(x / math.sqrt(2))


class Scaled(nn.Module):
    """What multiplies by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return self.factor * x


def measure(width: int = 20, steps: int = 3000, resolution: int = 61, seed: int = 0) -> pd.DataFrame:
    """Train, and measure over the square [−1, 1]².

    **Returns:** a row a point, before and after training (`trained`): `x`, `y`, `volume`, `scal`, `score`, the output
    of the network, and `accuracy`, the same in all rows.
    """
    import pandas as pd

    generator = torch.Generator().manual_seed(seed)
    points = 2 * torch.rand(2000, 2, generator=generator, dtype=torch.float64) - 1
    labels = (points[:, 1] > boundary(points[:, 0])).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(2, width), Erf(), nn.Linear(width, 1)).double()
    side = torch.linspace(-1, 1, resolution, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side)
    tables = []
    for trained in (False, True):
        if trained:
            _fit(net, points, labels, steps)
        with torch.no_grad(), without(DegenerateImmersionWarning, PrecisionWarning):
            hidden = nn.Sequential(net[0], net[1], Scaled(1 / math.sqrt(width)))
            manifold = StatisticalManifold(hidden, charts.identity(2), degenerate="nan")
            geometry = manifold.at(grid)
            table = pd.DataFrame({"x": grid[:, 0], "y": grid[:, 1], "volume": geometry.volume_density,
                                  "scal": geometry.scalar_curvature, "score": net(grid)[:, 0]})  # fmt: skip
            accuracy = ((net(points)[:, 0] > 0).double() == labels).double().mean().item()
        tables.append(table.assign(trained=trained, accuracy=accuracy))
    return pd.concat(tables, ignore_index=True)


def _fit(net: nn.Sequential, points: Tensor, labels: Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(net(points)[:, 0], labels).backward()
        optimizer.step()
    optimizer.zero_grad()


def numbers(found: pd.DataFrame) -> dict[str, float]:
    """What the sentence needs, of the trained network."""
    from scipy.stats import spearmanr

    rows = found[found["trained"]].dropna()
    distance = (rows["y"] - boundary(torch.tensor(rows["x"].to_numpy())).numpy()).abs()
    near = distance < NEAR
    size, bend = np.log10(rows["volume"]), rows["scal"].abs()
    total = (bend / 2 * rows["volume"]).sum()
    largest = rows.loc[bend.nlargest(len(rows) // 20).index]
    return {
        "accuracy": float(rows["accuracy"].iloc[0]),
        "magnified": float(10 ** (size[near].median() - size[~near].median())),
        "curvature": float(bend[near].median() / bend[~near].median()),
        "rank": float(spearmanr(size, bend).statistic),
        "area": float(near.mean()),
        "total": float((bend / 2 * rows["volume"])[near].sum() / total),
        "collapsed": float((largest["volume"] < rows["volume"].median()).mean()),
    }


def draw(found: pd.DataFrame) -> Figure:
    """The volume element before and after training, the scalar curvature and |K| times the volume after it."""
    from matplotlib.colors import SymLogNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 2.7), layout="constrained")
    count = int(math.sqrt(found["trained"].sum()))
    before, after = (found[found["trained"] == trained] for trained in (False, True))

    def grid(values: pd.Series) -> np.ndarray:
        return values.to_numpy(float).reshape(count, count).T

    total = np.log10((after["scal"].abs() / 2 * after["volume"]).clip(lower=1e-6))
    end = float(np.nanquantile(after["scal"].abs(), 0.98))
    panels = [
        (grid(np.log10(before["volume"])), "log₁₀ √det g, untrained", "viridis", None),
        (grid(np.log10(after["volume"])), "log₁₀ √det g, trained", "viridis", None),
        (grid(after["scal"]), "scal, trained", "PuOr_r", SymLogNorm(end / 100, vmin=-end, vmax=end)),
        (grid(total), "log₁₀ |K| √det g, trained", "magma", None),
    ]
    line = torch.linspace(-1, 1, 200)
    for axes, (values, title, colours, norm) in zip(figure.subplots(1, 4), panels, strict=True):
        image = axes.imshow(values, origin="lower", extent=(-1, 1, -1, 1), cmap=colours, norm=norm)
        axes.plot(line, boundary(line), color="red" if colours != "PuOr_r" else "black", lw=1.0)
        axes.set_title(title, fontsize=8)
        axes.set(xticks=[], yticks=[], xlim=(-1, 1), ylim=(-1, 1))
        bar = figure.colorbar(image, ax=axes, shrink=0.8)
        if norm is not None:
            bar.set_ticks([-end, 0, end], labels=[f"{-end:.0f}", "0", f"{end:.0f}"])
        bar.ax.tick_params(labelsize=6)
    return figure


def said(found: pd.DataFrame) -> str:
    """What it shows, and what exact curvature adds."""
    it = numbers(found)
    return (
        f"After training ({it['accuracy']:.1%} of the points right) the median volume element within {NEAR} of the "
        f"boundary is {it['magnified']:.2g} times that elsewhere: areas near it are magnified, as the paper says. "
        f"Curvature tells less than it seems to: the median |scal| near the boundary is {it['curvature']:.2g} times "
        f"that elsewhere, and over the square |scal| and volume have rank correlation {it['rank']:+.2f}, since a "
        f"representation that is squeezed together curves more per unit of its own length; {it['collapsed']:.0%} of "
        "the most curved twentieth has less than the median volume. What does not depend on that unit is ∫|K| dA: "
        f"{it['total']:.0%} of it lies within {NEAR} of the boundary, which is {it['area']:.0%} of the square."
    )
