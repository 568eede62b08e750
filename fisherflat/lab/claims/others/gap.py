"""Curvature along the layers of trained classifiers, and whether the step into the last one goes with accuracy.

Kaufman and Azencot, *Data Representations' Study of Latent Image Manifolds* (ICML 2023): the mean absolute principal
curvature (MAPC) of image representations, estimated from neighbours, has a profile over depth with a step at its end,
and that gap goes with the accuracy. Here the data manifold is a plane that is known, so that curvature is exact.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from fisherflat._typing import Tensor
from fisherflat.errors import DegenerateImmersionWarning, PrecisionWarning, without
from fisherflat.geometry import StatisticalManifold
from fisherflat.lab.claims._figures import plain
from fisherflat.plot import MARKERS, OKABE_ITO
from fisherflat.spaces import charts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TITLE = "The curvature gap and accuracy"
CLASSES, LAYERS = 5, 4
WIDTHS, STEPS = (8, 16, 32), (30, 100, 300, 1000)
#: how a gap is measured -> how it is called
GAPS = {
    "mapc": "MAPC, mean over points", "mapc_median": "MAPC, median", "bend": "|II|", "calibrated": "|II|, calibrated",
}  # fmt: skip


def sectors(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points of the square [−2, 2]² and which of five arms of a spiral each belongs to."""
    generator = torch.Generator().manual_seed(seed)
    x = 4 * torch.rand(count, 2, generator=generator, dtype=torch.float64) - 2
    turn = torch.atan2(x[:, 1], x[:, 0]) + 1.5 * x.norm(dim=1)
    return x, (turn.remainder(2 * math.pi) / (2 * math.pi) * CLASSES).long().clamp(max=CLASSES - 1)


def measure(seeds: int = 3, points: int = 64) -> pd.DataFrame:
    """Train networks of some widths for some numbers of steps, and measure each of their layers.

    **Returns:** a row a model and layer, the last being the logits: `accuracy` on other points; `mapc`, the mean over
    points of the mean |eigenvalue| of the shape operator, over 32 random unit normals a point, and `mapc_median`, the
    median of the same; `bend`, the median of |II|; `calibrated`, that in units of the spread of the layer's outputs.
    """
    import pandas as pd

    rows = []
    train, labels = sectors(1000, 0)
    test, truth = sectors(2000, 1)
    for width in WIDTHS:
        for seed in range(seeds):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                sizes = [2, *[width] * LAYERS]
                blocks = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairwise(sizes)]
                net = nn.Sequential(*blocks, nn.Linear(width, CLASSES)).double()
            optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
            for step in range(1, max(STEPS) + 1):
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(train), labels).backward()
                optimizer.step()
                if step in STEPS:
                    with torch.no_grad():
                        accuracy = (net(test).argmax(-1) == truth).double().mean().item()
                        about = {"width": width, "seed": seed, "steps": step, "accuracy": accuracy}
                        layers = range(1, len(net) + 1)
                        rows += [{**about, "layer": layer, **bent(net[:layer], test, points)} for layer in layers]
    return pd.DataFrame(rows)


def bent(net: nn.Module, test: Tensor, points: int) -> dict[str, float]:
    """The measures of one layer's outputs, at the first of some points of the plane."""
    outputs = net(test)
    spread = math.sqrt(outputs.var(0).mean().item())
    with without(DegenerateImmersionWarning, PrecisionWarning):
        manifold = StatisticalManifold(net, charts.identity(2), degenerate="nan")
        geometry = manifold.at(test[:points])
        kept = ~geometry.degenerate
        form, metric, size = (
            part[kept]
            for part in (geometry.second_fundamental_form, geometry.metric, geometry.second_fundamental_form_norm)
        )
        tangent = torch.linalg.qr(manifold.jet(test[:points][kept]).jacobian.mT)[0]
    root = torch.linalg.inv(torch.linalg.cholesky(metric))  # to an orthonormal frame
    form = torch.einsum("pai,pbj,pijd->pabd", root, root, form)
    generator = torch.Generator().manual_seed(0)
    normals = torch.randn(len(form), 32, form.shape[-1], generator=generator, dtype=form.dtype)
    normals = normals - torch.einsum("pdk,pek,pne->pnd", tangent, tangent, normals)
    normals = normals / normals.norm(dim=-1, keepdim=True)
    values = torch.linalg.eigvalsh(torch.einsum("pabd,pnd->pnab", form, normals))
    bend = size.median().item()
    each = values.abs().mean((1, 2))
    about = {"mapc": each.mean().item(), "mapc_median": each.median().item()}
    return {**about, "bend": bend, "calibrated": bend * spread}


def gaps(found: pd.DataFrame) -> pd.DataFrame:
    """For each model the step into the last layer, relative to the mean over layers, next to its accuracy."""
    import pandas as pd

    rows = []
    for (width, seed, steps), own in found.groupby(["width", "seed", "steps"]):
        own = own.sort_values("layer")
        last = {name: (own[name].iloc[-1] - own[name].iloc[-2]) / own[name].mean() for name in GAPS}
        rows.append({"width": width, "seed": seed, "steps": steps, "accuracy": own["accuracy"].iloc[0], **last})
    return pd.DataFrame(rows)


def correlations(found: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of each gap with accuracy: over all models, and mean of those within steps of training."""
    import pandas as pd
    from scipy.stats import spearmanr

    table, rows = gaps(found), []
    for name in GAPS:
        within = [spearmanr(own[name], own["accuracy"]).statistic for _, own in table.groupby("steps")]
        rows.append((name, spearmanr(table[name], table["accuracy"]).statistic, float(np.mean(within)), len(table)))
    return pd.DataFrame(rows, columns=["gap", "pooled", "within_steps", "models"])


def draw(found: pd.DataFrame) -> Figure:
    """Left: profiles over depth by steps of training; right: the gap against accuracy, measured in four ways."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 2.7), layout="constrained")
    axes = figure.subplots(1, 5)
    for index, (steps, own) in enumerate(found.groupby("steps")):
        middle = own.groupby("layer")["calibrated"].median()
        axes[0].plot(middle.index, middle, MARKERS[index], ls="-", ms=4, color=OKABE_ITO[index], label=f"{steps} steps")
    axes[0].set_yscale("log")
    axes[0].set_xlabel("layer (last: logits)", fontsize=8)
    axes[0].set_title("|II|, calibrated, median over models", fontsize=8)
    axes[0].legend(fontsize=6, frameon=False)
    table, values = gaps(found), correlations(found).set_index("gap")
    for panel, (name, label) in zip(axes[1:], GAPS.items(), strict=True):
        for index, (_, own) in enumerate(table.groupby("steps")):
            panel.plot(own[name], 100 * own["accuracy"], MARKERS[index], ms=4, lw=0, color=OKABE_ITO[index])
        panel.set_xlabel(f"relative gap in {label}", fontsize=8)
        pooled, within = values["pooled"][name], values["within_steps"][name]
        panel.set_title(f"pooled {pooled:+.2f}, within steps {within:+.2f}", fontsize=8)
    axes[1].set_ylabel("accuracy [%]", fontsize=8)
    for panel in axes:
        plain(panel)
    return figure


def said(found: pd.DataFrame) -> str:
    """What it shows, and what exact curvature adds."""
    values = correlations(found).set_index("gap")
    parts = [
        f"{pooled:+.2f} by {GAPS[name]} ({within:+.2f} within a number of steps)"
        for name, pooled, within in zip(values.index, values["pooled"], values["within_steps"], strict=True)
    ]
    first, last = (found[found["layer"] == layer] for layer in (found["layer"].min(), found["layer"].max()))
    wide = (first["bend"] / first["mapc_median"]).groupby(first["width"]).median()
    tail = float((last["mapc"] / last["mapc_median"]).median())
    return (
        f"Over {len(found.groupby(['width', 'seed']))} networks of three widths, each measured after four numbers of "
        f"steps of one training ({values['models'].iloc[0]} rows, which are not independent), the rank correlation of "
        f"the relative step into the logits with accuracy is {'; '.join(parts)}. The number is as much "
        "one of the measure as of the network. A mean over points is made by few of them: at the logits "
        f"it is {tail:.2g} times the median. A mean over unit normals makes the same "
        f"bend smaller the more normals there are: in the first layer |II| is {wide.iloc[0]:.2g} times MAPC at width "
        f"{wide.index[0]} and {wide.iloc[-1]:.2g} times at width {wide.index[-1]}. And |II| has a unit that each "
        "layer sets anew."
    )
