"""Eigenfeatures of a bilinear classifier, and the curvature of its outputs along them.

Pearce, Dooms, Rigg, Oramas and Sharkey, *Bilinear MLPs enable weight-based mechanistic interpretability* (ICLR 2025):
with h = (Wx) ⊙ (Vx), each logit is a quadratic form xᵀBx whose leading eigenvectors are features that can be looked
at. Here the images are digits in the fonts that come with matplotlib, turned, shifted, scaled and with noise.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from fisherflat._typing import Tensor
from fisherflat.errors import DegenerateImmersionWarning, PrecisionWarning, without
from fisherflat.geometry import StatisticalManifold
from fisherflat.lab.claims._figures import plain
from fisherflat.plot import OKABE_ITO
from fisherflat.spaces import charts

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

TITLE = "Eigenfeatures of a bilinear classifier"
#: pixels a side
SIDE = 14
_FONTS = ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono")


@cache
def _glyphs() -> Tensor:
    """The ten digits in three fonts, `[3, 10, 64, 64]`, between 0 and 1."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = []
    for font in _FONTS:
        for digit in range(10):
            figure = Figure(figsize=(0.64, 0.64), dpi=100)
            figure.text(0.5, 0.46, str(digit), fontsize=34, family=font, ha="center", va="center")
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            found.append(1 - np.asarray(canvas.buffer_rgba())[..., 0] / 255.0)
    return torch.tensor(np.array(found)).double().reshape(len(_FONTS), 10, 64, 64)


def digits(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images `[count, SIDE²]` and which digit each shows."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)

    font = torch.randint(len(_FONTS), (count,), generator=generator)
    label = torch.randint(10, (count,), generator=generator)
    angle, size = uniform(-0.3, 0.3), uniform(1.0, 1.4)
    turn = torch.stack([torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)], -1).view(-1, 2, 2)
    shift = torch.stack([uniform(-0.15, 0.15), uniform(-0.15, 0.15)], -1)[..., None]
    theta = torch.cat([turn * size[:, None, None], shift], -1)
    places = nn.functional.affine_grid(theta, [count, 1, SIDE, SIDE], align_corners=False)
    images = nn.functional.grid_sample(_glyphs()[font, label][:, None], places, align_corners=False)[:, 0]
    noise = 0.1 * torch.randn(count, SIDE, SIDE, generator=generator, dtype=torch.float64)
    return (images + noise).flatten(1), label


class Bilinear(nn.Module):
    """Logits P ((Wx) ⊙ (Vx)), without biases."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.left = nn.Linear(SIDE**2, width, bias=False)
        self.right = nn.Linear(SIDE**2, width, bias=False)
        self.output = nn.Linear(width, 10, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[..., SIDE²]` to logits `[..., 10]`."""
        return self.output(self.left(x) * self.right(x))

    def forms(self) -> Tensor:
        """The symmetric matrices B of the logits, `[10, SIDE², SIDE²]`."""
        form = torch.einsum("ch,hi,hj->cij", self.output.weight, self.left.weight, self.right.weight)
        return (form + form.transpose(1, 2)) / 2


def fit(steps: int = 600, seed: int = 0) -> Bilinear:
    """Train with noise on the inputs and weight decay, which make features that can be looked at."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = Bilinear().double()
    images, labels = digits(4000, seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.5)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.005 * (1 + math.cos(math.pi * step / steps))
        chosen = torch.randint(len(images), (250,), generator=generator)
        noise = 0.3 * torch.randn(250, SIDE**2, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images[chosen] + noise), labels[chosen]).backward()
        optimizer.step()
    return net.requires_grad_(False)


def measure(steps: int = 600) -> pd.DataFrame:
    """Train, and measure at 40 test images of each digit the surface of all logits over two planes through the image.

    **Returns:** a row an image: `digit`; the two leading eigenvalues `first` and `second` of its form, by size;
    `share`, of the squares of all; `accuracy`, of the network; `scal` and `kept`, the scalar curvature over the plane
    of the two eigenvectors, and which share of the squares of the second derivatives is normal to the surface;
    `scal_random`, `kept_random`, the same over a random plane.
    """
    import pandas as pd

    net = fit(steps)
    images, labels = digits(2000, 1)
    accuracy = (net(images).argmax(-1) == labels).double().mean().item()
    forms = net.forms()
    values, vectors = torch.linalg.eigh(forms)
    generator = torch.Generator().manual_seed(2)
    rows = []
    for digit in range(10):
        order = values[digit].abs().argsort(descending=True)[:2]
        basis = vectors[digit][:, order].T
        other = torch.linalg.qr(torch.randn(SIDE**2, 2, generator=generator, dtype=torch.float64))[0].T
        first, second = values[digit][order].tolist()
        share = (values[digit][order] ** 2).sum().item() / (values[digit] ** 2).sum().item()
        for image in images[labels == digit][:40]:
            own, random = bent(net, forms, image, basis), bent(net, forms, image, other)
            rows.append((digit, first, second, share, accuracy, *own, *random))
    return pd.DataFrame(rows, columns=[
        "digit", "first", "second", "share", "accuracy", "scal", "kept", "scal_random", "kept_random",
    ])  # fmt: skip


def bent(net: Bilinear, forms: Tensor, image: Tensor, basis: Tensor) -> tuple[float, float]:
    """The scalar curvature of the logits over a plane through an image, and the normal share of second derivatives."""
    with without(DegenerateImmersionWarning, PrecisionWarning):
        manifold = StatisticalManifold(net, charts.affine(image, basis), degenerate="nan")
        geometry = manifold.at(torch.zeros(2, dtype=torch.float64))
    second = 2 * torch.einsum("cij,ai,bj->abc", forms, basis, basis)
    share = geometry.second_fundamental_form.pow(2).sum() / second.pow(2).sum()
    return geometry.scalar_curvature.item(), share.item()


def numbers(found: pd.DataFrame) -> dict[str, float]:
    """What the sentence needs."""
    sizes = found.dropna().assign(size=lambda rows: rows["scal"].abs())
    spread = sizes.groupby("digit")["size"].quantile([0.1, 0.9]).unstack()
    positive = sizes.groupby("digit")["scal"].agg(lambda values: (values > 0).mean())
    return {
        "accuracy": float(found["accuracy"].iloc[0]),
        "share": float(found.groupby("digit")["share"].first().median()),
        "spread": float((spread[0.9] / spread[0.1]).median()),
        "kept": float(sizes["kept"].median()),
        "least": float(sizes["kept"].quantile(0.1)),
        "most": float(sizes["kept"].quantile(0.9)),
        "ratio": float(sizes["size"].median() / sizes["scal_random"].abs().median()),
        "mixed": float(((positive > 0) & (positive < 1)).sum()),
        "images": float(len(sizes)),
    }


def draw(found: pd.DataFrame, steps: int = 600) -> Figure:
    """Leading eigenfeatures of three digits, and the curvature along them from image to image."""
    from matplotlib.figure import Figure

    values, vectors = torch.linalg.eigh(fit(steps).forms())
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=[1.25, 1])
    left, right = halves
    grid = left.subplots(2, 5)
    for column, digit in enumerate((0, 2, 3, 5, 8)):
        order = values[digit].argsort(descending=True)
        for axes, index in zip(grid[:, column], (order[0], order[-1]), strict=True):
            feature = vectors[digit][:, index].reshape(SIDE, SIDE)
            end = feature.abs().max().item()
            axes.imshow(feature, cmap="RdBu", vmin=-end, vmax=end)
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{digit}: {values[digit][index]:+.2f}", fontsize=8)
    axes = right.subplots()
    for name, index, label in (("scal", 0, "leading eigenfeatures"), ("scal_random", 1, "a random plane")):
        axes.plot(
            found["digit"] + 0.3 * index - 0.15, found[name], "os"[index], ms=2.5, lw=0, color=OKABE_ITO[index],
            alpha=0.6, label=label,
        )  # fmt: skip
    axes.set_yscale("symlog", linthresh=float(found["scal"].abs().quantile(0.05)))
    axes.axhline(0, color="black", lw=0.6)
    axes.set_xticks(range(10))
    axes.set_xlabel("digit", fontsize=8)
    axes.set_ylabel("scal of the logits, an image a point", fontsize=8)
    plain(axes)
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def said(found: pd.DataFrame) -> str:
    """What it shows, and what exact curvature adds."""
    it = numbers(found)
    return (
        f"The classifier ({it['accuracy']:.1%} of test images right) has forms whose two leading eigenvectors hold "
        f"{it['share']:.0%} of the squares of all eigenvalues (median over digits). The eigenvalues are the same for "
        f"every image; the curvature of the logits along them is not. Over {it['images']:.0f} images, |scal| at the "
        f"ninth decile is {it['spread']:.0f} times that at the first for the same digit; for {it['mixed']:.0f} of 10 "
        "digits its sign is not the same for all images; and the share of the second derivatives that is normal to "
        f"the surface, and so bends it, is {it['kept']:.0%} in the median ({it['least']:.0%} to {it['most']:.0%} at "
        f"the deciles). The median |scal| along the leading features is {it['ratio']:.2g} times that along a random "
        "plane. An eigenvalue says how a logit bends over the inputs, and not how the outputs bend in their own "
        "space."
    )
