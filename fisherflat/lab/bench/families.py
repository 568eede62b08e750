"""What a family costs: time of the scalar curvature over that in the Gaussian mean of the same outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fisherflat.geometry import StatisticalManifold
from fisherflat.lab.bench._measure import Spread, by_clock
from fisherflat.lab.bench.floor import filling
from fisherflat.lab.bench.maps import subject
from fisherflat.spaces import families

#: map and coordinates
MAP, DIM = "attention-64", 4
#: families, and how many of a token's 64 outputs are their parameters; tokens are independent of each other
FAMILIES: dict[str, tuple[Any, int]] = {
    "Categorical": (families.Categorical(), 64),
    "Bernoulli": (families.Bernoulli(), 64),
    "Poisson": (families.Poisson(), 64),
    "DiagonalGaussian": (families.DiagonalGaussian(), 64),
    "IsotropicGaussian": (families.IsotropicGaussian(), 64),
    "FullGaussian(9)": (families.FullGaussian(9), 54),
    "VonMisesFisher": (families.VonMisesFisher(), 64),
    "VonMisesFisher(3.0)": (families.VonMisesFisher(3.0), 64),
    "ExponentialFamily(exp)": (families.ExponentialFamily(torch.exp), 64),
}


class First(torch.nn.Module):
    """The first outputs of each token."""

    def __init__(self, inner: torch.nn.Module, count: int) -> None:
        super().__init__()
        self.inner, self.count = inner, count

    def forward(self, x: Tensor) -> Tensor:
        """`[*batch, n, d]` to `[*batch, n, count]`."""
        return self.inner(x)[..., : self.count]


def over_gaussian(name: str, repeats: int, share: float = 1.0) -> dict[str, Any]:
    """Process seconds of both for the same points of the same map, in turns."""
    family, count = FAMILIES[name]
    made = subject(MAP, DIM)
    inner: Any = made.module
    module, u = First(inner, count).eval(), made.points(filling(made, share))
    curved, flat = (StatisticalManifold(module, made.chart, of) for of in (family, families.Gaussian()))
    calls = {"family": lambda: curved.scalar_curvature(u), "gaussian": lambda: flat.scalar_curvature(u)}
    taken = by_clock(calls, repeats, made.device)["process"]
    return {
        "family": name,
        "map": MAP,
        "k": DIM,
        "points": len(u),
        "seconds": {what: Spread.of(samples) for what, samples in taken.items()},
        "family_over_gaussian": Spread.ratio(taken["family"], taken["gaussian"]),
    }


def table(rows: list[dict[str, Any]]) -> tuple[str, tuple[str, ...], list[tuple[str, ...]]]:
    """Title, header and rows for reading."""
    return (
        f"Scalar curvature of {MAP} in a family over that in Gaussians of one covariance, k = {DIM}, process time",
        ("family", "P", "family, s", "Gaussian, s", "over the Gaussian"),
        [
            (
                row["family"],
                str(row["points"]),
                *(str(row["seconds"][what]) for what in ("family", "gaussian")),
                str(row["family_over_gaussian"]),
            )
            for row in rows
        ],
    )
