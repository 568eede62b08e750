"""A circle through a deep random network: its metric and curvature, and the curvature of a sphere that it belongs to.

Poole, Lahiri, Raghu, Sohl-Dickstein and Ganguli, *Exponential expressivity in deep neural networks through transient
chaos* (NeurIPS 2016), section 3: tanh layers of width N with weights of variance σ_w²/N and biases of variance σ_b²,
in the limit of large N. With q the fixed point of the mean square of a preactivation, χ₁ = σ_w² E φ'(√q z)² and χ₂ =
σ_w² E φ''(√q z)² over a standard normal z, a circle of radius √(Nq) has after l layers the metric N q χ₁^(l−1) and
the curvature κ with N κ² = 1/q at first, then 3 χ₂/χ₁² + (that before)/χ₁.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from fisherflat._typing import Tensor
from fisherflat.geometry import StatisticalManifold
from fisherflat.lab.claims._figures import plain
from fisherflat.plot import MARKERS, OKABE_ITO
from fisherflat.spaces import charts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TITLE = "A circle through random depth"
#: of weights, one ordered network and two chaotic ones, and of biases
WEIGHTS, BIASES = (1.3, 2.5, 4.0), 0.3


def mean_field(weights: float, biases: float = BIASES) -> tuple[float, float, float]:
    """The fixed point q, and χ₁ and χ₂ there.

    **Args:** the standard deviations σ_w and σ_b.
    """
    z = np.linspace(-12, 12, 20001)  # of a function that is smooth and decays, the plain sum is exact to rounding
    mass = np.exp(-(z**2) / 2)
    mass = mass / mass.sum()
    q = 1.0
    for _ in range(1000):
        q = weights**2 * float(mass @ np.tanh(math.sqrt(q) * z) ** 2) + biases**2
    t = np.tanh(math.sqrt(q) * z)
    slope, bend = 1 - t**2, -2 * t * (1 - t**2)
    return q, weights**2 * float(mass @ slope**2), weights**2 * float(mass @ bend**2)


def theory(weights: float, layers: int) -> pd.DataFrame:
    """Metric and curvature of the circle and curvature of the sphere in the limit of large width, layer by layer.

    The sphere stays a round one of radius² N q χ₁^(l−1), as inner products of outputs depend on the angle alone: its
    Gauss curvature is one over that.
    """
    import pandas as pd

    q, first, second = mean_field(weights)
    metric, bend, rows = q, 1 / q, []
    for layer in range(1, layers + 1):
        rows.append({"layer": layer, "metric": metric, "kappa": math.sqrt(bend), "gauss": 1 / metric})
        metric, bend = first * metric, 3 * second / first**2 + bend / first
    return pd.DataFrame(rows)


def measure(width: int = 500, layers: int = 10, networks: int = 3, points: int = 12) -> pd.DataFrame:
    """Mean and spread over points and networks at each layer, next to the theory.

    **Returns:** a row a σ_w and layer: `metric`, |∂f|²/N; `kappa`, √N κ of the circle; `gauss`, N K of the sphere and
    its standard deviation `spread`; and the three of the theory with `_theory`.
    """
    import pandas as pd

    rows = []
    for weights in WEIGHTS:
        q = mean_field(weights)[0]
        expected = theory(weights, layers)
        found: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {layer: [] for layer in range(1, layers + 1)}
        for seed in range(networks):
            generator = torch.Generator().manual_seed(seed)
            frame = torch.linalg.qr(torch.randn(width, 3, generator=generator, dtype=torch.float64))[0]
            net = [
                (weights / math.sqrt(width) * torch.randn(width, width, generator=generator, dtype=torch.float64),
                 BIASES * torch.randn(width, generator=generator, dtype=torch.float64))
                for _ in range(layers - 1)
            ]  # fmt: skip
            angles = 2 * math.pi * torch.rand(points, 2, generator=generator, dtype=torch.float64)
            for layer in found:
                found[layer].append(_at(net[: layer - 1], math.sqrt(width * q) * frame, angles, width))
        for layer, several in found.items():
            metric, kappa, gauss = (torch.cat(values) for values in zip(*several, strict=True))
            about = expected.iloc[layer - 1]
            rows.append({
                "sigma_w": weights, "layer": layer, "metric": metric.mean().item(), "kappa": kappa.mean().item(),
                "gauss": gauss.mean().item(), "spread": gauss.std().item(), "points": len(gauss), "width": width,
                **{f"{name}_theory": about[name] for name in ("metric", "kappa", "gauss")},
            })  # fmt: skip
    return pd.DataFrame(rows)


def _at(net: list[tuple[Tensor, Tensor]], frame: Tensor, angles: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Metric and curvature of the circle, and the Gauss curvature of the sphere, near its equator."""

    def through(start: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def network(u: Tensor) -> Tensor:
            h = start(u)
            for matrix, bias in net:
                h = matrix @ torch.tanh(h) + bias
            return h

        return network

    def circle(u: Tensor) -> Tensor:
        return frame[:, 0] * torch.cos(u[0]) + frame[:, 1] * torch.sin(u[0])

    def sphere(u: Tensor) -> Tensor:
        around = frame[:, 0] * torch.cos(u[0]) + frame[:, 1] * torch.sin(u[0])
        return around * torch.cos(u[1]) + frame[:, 2] * torch.sin(u[1])

    curve = StatisticalManifold(through(circle), charts.identity(1)).at(angles[:, :1])
    surface = StatisticalManifold(through(sphere), charts.identity(2))
    length = curve.metric[..., 0, 0]
    bend = curve.second_fundamental_form[..., 0, 0, :].norm(dim=-1) / length
    gauss = surface.scalar_curvature(angles * torch.tensor([1.0, 0.05], dtype=torch.float64)) / 2
    return length / width, bend * math.sqrt(width), gauss * width


def draw(found: pd.DataFrame) -> Figure:
    """The metric and the curvature of the circle, and the Gauss curvature of the sphere; lines: theory."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure = Figure(figsize=(9.0, 2.9), layout="constrained")
    panels = (
        ("metric", "|∂f|² / N of the circle"),
        ("kappa", "√N κ of the circle"),
        ("gauss", "N K of the sphere; band: ± sd"),
    )
    for axes, (name, label) in zip(figure.subplots(1, 3), panels, strict=True):
        for index, (weights, rows) in enumerate(found.groupby("sigma_w")):
            axes.plot(rows["layer"], rows[f"{name}_theory"], color=OKABE_ITO[index], lw=1.2)
            axes.plot(
                rows["layer"],
                rows[name],
                MARKERS[index],
                color=OKABE_ITO[index],
                ms=4,
                label=f"$\\sigma_w$ = {weights}",
            )
            if name == "gauss":
                axes.fill_between(
                    rows["layer"], rows[name] - rows["spread"], rows[name] + rows["spread"], color=OKABE_ITO[index],
                    alpha=0.15, lw=0,
                )  # fmt: skip
        axes.set_yscale("symlog", linthresh=1e-2) if name == "gauss" else axes.set_yscale("log")
        if name == "kappa":
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_locator(NullLocator())
        axes.set_title(label)
        axes.set_xlabel("layer", fontsize=8)
        axes.title.set_fontsize(9)
        plain(axes)
    axes.legend(fontsize=7, frameon=False)
    return figure


def said(found: pd.DataFrame) -> str:
    """What it shows, and what exact curvature adds."""
    last = found[(found["layer"] == found["layer"].max()) & (found["sigma_w"] == WEIGHTS[1])].iloc[0]
    off = {name: float((found[name] / found[f"{name}_theory"] - 1).abs().max()) for name in ("metric", "kappa")}
    return (
        f"Metric and curvature of the circle follow the theory to {off['metric']:.0%} and {off['kappa']:.0%} at every "
        "layer. That is curvature in the space around it: a curve has none of its own. The sphere that it belongs to "
        f"has, and in the limit of large width it falls as the metric grows: at σ_w = {WEIGHTS[1]} and layer "
        f"{last['layer']:.0f} to N K = {last['gauss_theory']:.2g}, while the circle bends as before (√N κ = "
        f"{last['kappa']:.3g}, theory {last['kappa_theory']:.3g}). At width {last['width']:.0f} that is not seen: N K "
        f"has mean {last['gauss']:+.2g} and standard deviation {last['spread']:.2g} over {last['points']:.0f} points, "
        "of either sign, since two large bends nearly cancel and what is left is noise of finite width. In the "
        "limit, depth that folds a circle flattens the surface that it lies on."
    )
