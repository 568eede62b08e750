"""Where to look for curvature: a search in floats for the point and the plane of largest |K|.

What it finds is only a place to prove something at. Nothing in a certificate relies on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from fisherflat.errors import DegenerateImmersionWarning, FallbackWarning, without
from fisherflat.geometry import Geometry, StatisticalManifold

#: the search stays within this distance of the chart's origin, in each coordinate
REACH = 1.0
#: floating-point operations that a search may take, and evaluations
WORK, FEWEST, MOST = 2e10, 8, 96

Plane = tuple[tuple[float, ...], tuple[float, ...]]


def find(manifold: StatisticalManifold, at: Sequence[float] | None = None) -> tuple[tuple[float, ...], Plane]:
    """The point of largest sectional curvature in size, and the plane, two tangent vectors in coordinates.

    **Args:** `manifold`, with `degenerate="nan"`; `at`, a point to stay at, else a sample within `REACH` is searched
    and its best point refined by Nelder and Mead's method.

    Where the manifold is degenerate it is the plane of the first two coordinates.
    """
    k = manifold.k
    with without(DegenerateImmersionWarning, FallbackWarning):
        point = _best_point(manifold) if at is None else torch.tensor(at, dtype=torch.float64)
        geometry = manifold.at(point)
    plane: Plane = tuple(tuple(axis) for axis in torch.eye(2, k).tolist())  # type: ignore[assignment]
    if k > 2 and torch.isfinite(geometry.scalar_curvature):
        plane = _best_plane(geometry)
    return tuple(point.tolist()), plane


def _best_point(manifold: StatisticalManifold) -> torch.Tensor:
    from scipy.optimize import minimize

    evaluations = _evaluations(manifold)
    generator = torch.Generator().manual_seed(0)
    sample = (2 * torch.rand(evaluations // 2, manifold.k, generator=generator, dtype=torch.float64) - 1) * REACH
    sample[0] = 0
    sizes = torch.cat([_size(manifold.at(u)) for u in sample.split(8)])
    best = sample[int(sizes.argmax())]

    def loss(u: np.ndarray) -> float:
        return -math.log(max(float(_size(manifold.at(torch.from_numpy(u.copy())))), 1e-300))

    result = minimize(
        loss, best.numpy(), method="Nelder-Mead", bounds=[(-REACH, REACH)] * manifold.k,
        options={"maxfev": evaluations - len(sample), "xatol": 1e-2, "fatol": 1e-2},
    )  # fmt: skip
    # few digits, so that the point reads well; a place to prove at need not be the exact maximum
    return torch.round(torch.from_numpy(np.asarray(result.x)) * 1024) / 1024


def _evaluations(manifold: StatisticalManifold) -> int:
    """As many as fit into `WORK`."""
    graph: Any = manifold.engine.graph  # type: ignore[attr-defined]
    weights = sum(tensor.numel() for _, tensor in graph.constants())
    rows = math.prod(graph.input.shape[:-1])
    coefficients = (manifold.k + 1) * (manifold.k + 2) // 2
    return int(min(MOST, max(FEWEST, WORK / (2 * (weights + 1e4) * rows * coefficients))))


def _size(geometry: Geometry) -> torch.Tensor:
    """The largest sectional curvature of the coordinate planes, in size; zero where there is no geometry."""
    i, j = torch.triu_indices(geometry.k, geometry.k, 1)
    g, riemann = geometry.metric, geometry.riemann
    area = g[..., i, i] * g[..., j, j] - g[..., i, j] ** 2
    return (riemann[..., i, j, j, i] / area).abs().nan_to_num(0.0, 0.0, 0.0).amax(-1)


def _best_plane(geometry: Geometry) -> Plane:
    """The plane of largest curvature in size at one point, in coordinates."""
    from scipy.optimize import minimize

    k = geometry.k
    candidates = [(i, j) for i in range(k) for j in range(i + 1, k)]
    eye = torch.eye(k, dtype=torch.float64)

    def curvature(vectors: np.ndarray) -> float:
        x, y = torch.from_numpy(vectors.reshape(2, k).copy())
        area = float((x @ x) * (y @ y) - (x @ y) ** 2)
        return abs(float(geometry.sectional_curvature(x, y))) if area > 1e-6 else 0.0

    start = max((torch.stack([eye[i], eye[j]]).numpy().ravel() for i, j in candidates), key=curvature)
    result = minimize(lambda v: -curvature(v), start, method="Nelder-Mead", options={"maxfev": 200 * k, "xatol": 1e-3})
    best = np.asarray(result.x).reshape(2, k)
    best = np.round(best / np.abs(best).max(1, keepdims=True) * 1024) / 1024
    return tuple(best[0].tolist()), tuple(best[1].tolist())
