"""What is measured of a trained representation: curvature by the library, live and held, and the paper's proxy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fisherflat._typing import Float, Tensor
from fisherflat.errors import DegenerateImmersionWarning, PrecisionWarning, without
from fisherflat.geometry import Geometry, Verdict, carried, refined
from fisherflat.jets.engines import TensorAlgebra, evaluated, packed
from fisherflat.jets.rules import Series
from fisherflat.lab.claims._protocol import Protocol
from fisherflat.lab.experiments.ring import HALF_WIDTH
from fisherflat.parts import trace
from fisherflat.spaces import charts
from fisherflat.spaces.families import Gaussian

#: the steps of the proxy, in units of the inputs
STEPS = (0.01, 0.1, 0.5)
READINGS = ("live", "held")
METRICS = ("unit", "calibrated", "whitened")
_WORDS = tuple(Verdict)
_CURVED, _UNDECIDED = _WORDS.index(Verdict.CURVED), _WORDS.index(Verdict.UNDECIDED)


@dataclass(frozen=True)
class Planes:
    """Planes of inputs, and points in them.

    **Attributes:** `origin` `[planes, *shape]` and `directions` `[planes, 2, *shape]`; `points` `[P, 3]`, coordinates
    in a plane and which one, where local quantities are measured; `region`, such points spread evenly over what a total
    is taken over, and `area`, that of the region in coordinates, a mean over planes.
    """

    origin: Tensor
    directions: Tensor
    points: Float[Tensor, "P 3"]
    region: Float[Tensor, "Q 3"]
    area: float

    def inputs(self, points: Float[Tensor, "P 3"]) -> Tensor:
        """The inputs `[P, *shape]` at points."""
        plane = points[:, 2].long()
        return self.origin[plane] + torch.einsum("pk,pk...->p...", points[:, :2], self.directions[plane])


def planes(protocol: Protocol, task: str, inputs: Tensor) -> Planes:
    """The plane itself for points; for sequences, those through three test sequences each.

    **Args:** `inputs`, those of the test examples, of which the first are taken.
    """
    sizes = protocol["measures"]
    if protocol["tasks"][task]["family"] == "point":
        side = HALF_WIDTH * (2 * torch.arange(sizes["grid"], dtype=torch.float64) + 1 - sizes["grid"]) / sizes["grid"]
        grid = torch.cartesian_prod(side, side)
        points = inputs[: sizes["points"]]
        identity = torch.eye(2, dtype=torch.float64)
        return Planes(torch.zeros(1, 2).double(), identity[None], _in_plane(points), _in_plane(grid), 4 * HALF_WIDTH**2)
    count, inside = sizes["planes"], sizes["inside"]
    corners = inputs[: 3 * count].unflatten(0, (count, 3))
    directions = corners[:, 1:] - corners[:, :1]
    u = torch.rand(count, inside, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = torch.where(u.sum(-1, keepdim=True) > 1, 1 - u, u)  # uniform in the triangle
    points = torch.cat([u, torch.arange(count).double()[:, None, None].expand(count, inside, 1)], -1).flatten(0, 1)
    return Planes(corners[:, 0], directions, points, points, 0.5)


def _in_plane(points: Float[Tensor, "P 2"]) -> Float[Tensor, "P 3"]:
    return torch.nn.functional.pad(points, (0, 1))


class Held(nn.Module):
    """A representation of two inputs `[2, *shape]`: where the patterns are those of the second."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, both: Tensor) -> Tensor:
        return self.encoder(both[0], both[1])


class _Engine:
    """Jets at points of planes, for `refined`, in a reading: patterns are held at the point itself, or not at all."""

    def __init__(self, encoder: nn.Module, where: Planes, held: bool) -> None:
        self.where, self.held = where, held
        example = where.origin[0]
        self.graph = trace(Held(encoder), torch.stack([example, example])) if held else trace(encoder, example)

    def jet(self, u: Float[Tensor, "P 3"], basis: Float[Tensor, "P 2 2"] | None = None) -> Float[Tensor, "P S D"]:
        """The 2-jets, along the directions of the planes, or along combinations of them."""
        x, directions = self.where.inputs(u), self.where.directions[u[:, 2].long()]
        if basis is not None:
            directions = torch.einsum("pak,pk...->pa...", basis, directions)
        if self.held:
            x, directions = torch.stack([x, x], 1), torch.stack([directions, torch.zeros_like(directions)], 2)
        algebra, rows = TensorAlgebra(), torch.cat([x[None], directions.transpose(0, 1)])
        return packed(algebra, evaluated(algebra, self.graph, Series(rows, 2)))

    def geometry(self, u: Float[Tensor, "P 3"], family: Gaussian) -> Geometry:
        """All quantities at points; where there is no geometry they are NaN."""
        return refined(self, charts.identity(2), u, self.jet(u), family, "nan")


def measure(protocol: Protocol, task: str, encoder: nn.Module, inputs: Tensor) -> dict[str, float]:
    """All columns `quantity:reading:metric` of a representation in double precision, over test `inputs`."""
    where = planes(protocol, task, inputs)
    with torch.no_grad(), without(DegenerateImmersionWarning, PrecisionWarning):
        outputs = encoder(inputs)
        covariance = torch.cov(outputs.T)
        variance, axes = torch.linalg.eigh(covariance)
        kept = variance > protocol["measures"]["whitened_rank"] * variance[-1]
        whitening = axes[:, kept] / variance[kept].sqrt()
        found: dict[str, float] = {}
        for reading in READINGS:
            engine = _Engine(encoder, where, reading == "held")
            unit = _quantities(engine, Gaussian(1.0), where)
            spread = variance.mean().item()
            metrics = {
                "unit": unit,
                "calibrated": {name: value * spread ** UNITS.get(name, 0.0) for name, value in unit.items()},
                "whitened": _whitened(encoder, where, reading == "held", whitening),
            }
            metrics["calibrated"]["log_volume"] = unit["log_volume"] - math.log(spread)
            sizes = (variance.sum().sqrt().item(), math.sqrt(len(variance)), math.sqrt(int(kept.sum())))
            for (metric, values), size in zip(metrics.items(), sizes, strict=True):
                values["image_size"] = size
                values |= dict(_proxies(encoder, where, reading == "held", whitening if metric == "whitened" else None))
                found |= {f"{name}:{reading}:{metric}": value for name, value in values.items()}
    return found


#: the power of the variance by which quantities are multiplied where it is the unit
UNITS = {"scalar_mean": 1.0, "scalar_median": 1.0, "second_fundamental_norm": 0.5, "mean_second_fundamental_norm": 0.5}


class _Whitened(nn.Module):
    """A representation in coordinates in which its covariance is 1."""

    def __init__(self, encoder: nn.Module, whitening: Tensor) -> None:
        super().__init__()
        self.encoder, self.whitening = encoder, nn.Parameter(whitening, requires_grad=False)

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        return self.encoder(x, at) @ self.whitening


def _whitened(encoder: nn.Module, where: Planes, held: bool, whitening: Tensor) -> dict[str, float]:
    if whitening.shape[1] < 2:  # it varies along a curve at most
        return {}
    return _quantities(_Engine(_Whitened(encoder, whitening), where, held), Gaussian(1.0), where)


def _quantities(engine: _Engine, family: Gaussian, where: Planes) -> dict[str, float]:
    at = engine.geometry(where.points, family)
    words, error = at.verdicts(), at.error("scalar_curvature")
    scalar = torch.where(words == _UNDECIDED, math.nan, torch.where(words == _CURVED, at.scalar_curvature, 0.0))
    scalar = scalar.masked_fill(at.degenerate, math.nan)
    curved = words == _CURVED
    form, density = at.second_fundamental_form_norm, at.volume_density
    over = at if where.region is where.points else engine.geometry(where.region, family)
    known = carried(error, at.cancellation_scale, over.cancellation_scale)
    gauss = torch.where(over.scalar_curvature.abs() > known, over.scalar_curvature.abs() / 2, 0.0)
    total = (gauss * over.volume_density).masked_fill(over.degenerate, math.nan)
    return {
        "scalar_mean": scalar.nanmean().item(),
        "scalar_median": scalar.abs().nanmedian().item(),
        "scalar_positive_share": (at.scalar_curvature[curved] > 0).double().mean().item(),
        "total_absolute_gauss": total.nanmean().item() * where.area,
        "second_fundamental_norm": form.nanmedian().item(),
        "mean_second_fundamental_norm": form.nanmean().item(),
        "log_volume": density.log().nanmean().item(),
        "undecided": (words == _UNDECIDED).double().mean().item(),
        "degenerate": at.degenerate.double().mean().item(),
    }


def _proxies(encoder: nn.Module, where: Planes, held: bool, whitening: Tensor | None) -> Iterator[tuple[str, float]]:
    """The paper's: the second difference over the first, at the points, along a drawn direction of unit length."""
    x = where.inputs(where.points)
    plane = where.points[:, 2].long()
    turn = torch.randn(len(x), 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    v = torch.einsum("pk,pk...->p...", turn, where.directions[plane]).flatten(1)
    v = (v / v.norm(dim=1, keepdim=True)).reshape(x.shape)

    def f(x_: Tensor) -> Tensor:
        y = encoder(x_, x) if held else encoder(x_)
        return y if whitening is None else y @ whitening

    for h in STEPS:
        before, here, after = f(x - h * v), f(x), f(x + h * v)
        ratio = (after - 2 * here + before).norm(dim=1) / (after - before).norm(dim=1)
        yield f"proxy_{h:g}", ratio.mean().item()
        yield f"proxy_median_{h:g}", ratio.median().item()


def columns() -> list[str]:
    """The names of all columns, in order."""
    local = ["scalar_mean", "scalar_median", "scalar_positive_share", "total_absolute_gauss", "second_fundamental_norm",
             "mean_second_fundamental_norm", "log_volume", "undecided", "degenerate", "image_size"]  # fmt: skip
    names = [*local, *(f"{name}_{h:g}" for h in STEPS for name in ("proxy", "proxy_median"))]
    return [f"{name}:{reading}:{metric}" for reading in READINGS for metric in METRICS for name in names]


def described(found: dict[str, float]) -> dict[str, Any]:
    """A row's measures, all columns, NaN where a metric has no surface."""
    return {name: found.get(name, math.nan) for name in columns()}
