"""Second-order jets by differences alone: the truth that rules and engines are tested against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor

from fisherflat.charts import Chart
from fisherflat.jets.mapping import Mapping
from fisherflat.jets.taylor import TaylorEngine

Array = Any  # a torch tensor or a numpy array of mpmath numbers


def by_differences(g: Callable[[Array], Array], u: Array, h: Any) -> list[Array]:
    """`[value, d_i g ..., d_i d_j g (i <= j) ...]` at the coordinates `u` from five-point stencils along lines.

    Exact, up to rounding, for polynomials up to degree four; otherwise the error is of order h^4.
    """
    k = len(u)
    value = g(u)

    def along(*axes: int) -> tuple[Array, Array]:
        step = u * 0
        for axis in axes:
            step[axis] = step[axis] + h
        ahead, behind, far_ahead, far_behind = g(u + step), g(u - step), g(u + 2 * step), g(u - 2 * step)
        first = (8 * (ahead - behind) - (far_ahead - far_behind)) / (12 * h)
        second = (16 * (ahead + behind) - (far_ahead + far_behind) - 30 * value) / (12 * h * h)
        return first, second

    single = [along(i) for i in range(k)]
    pairs = [(i, j) for i in range(k) for j in range(i, k)]
    second = [single[i][1] if i == j else (along(i, j)[1] - single[i][1] - single[j][1]) / 2 for i, j in pairs]
    return [value, *(first for first, _ in single), *second]


def torch_jet(f: Callable[[Tensor], Tensor], chart: Chart, u: Tensor, h: float = 2.0**-11) -> Tensor:
    """The jets `[P, S, D]` of `f` after the chart, by differences in float64: for piecewise polynomials."""
    return torch.stack([torch.stack(by_differences(lambda v: f(chart(v)).reshape(-1), point, h)) for point in u])


@contextmanager
def digits(count: int) -> Iterator[None]:
    """Work with mpmath numbers of so many digits."""
    with mpmath.workdps(count):
        yield


def mpf_array(tensor: Tensor) -> np.ndarray:
    """The exact values of a tensor as mpmath numbers."""
    flat = [mpmath.mpf(v) for v in tensor.double().reshape(-1).tolist()]
    return np.array([*flat, None], dtype=object)[:-1].reshape(tuple(tensor.shape))


def mpmath_jet(f: Callable[[np.ndarray], Array], chart: Chart, u: Tensor) -> Tensor:
    """The jets `[P, S, D]` of `f` after the chart, by differences in 100 digits, of which 40 are right.

    `f` takes and returns numpy arrays of mpmath numbers.
    """
    jets = []
    with digits(100):
        origin, basis, h = mpf_array(chart.point), mpf_array(chart.basis), mpmath.mpf(10) ** -20

        def g(v: np.ndarray) -> np.ndarray:
            return np.asarray(f(origin + np.tensordot(v, basis, 1)), dtype=object).reshape(-1)

        for point in u:
            jets.append([[float(entry) for entry in row] for row in by_differences(g, mpf_array(point), h)])
    return torch.tensor(jets, dtype=torch.float64)


def taylor_engine(f: Callable[[Tensor], Tensor], chart: Chart, dtype: torch.dtype = torch.float64) -> TaylorEngine:
    mapping = Mapping(f, dtype, torch.device("cpu"))
    return TaylorEngine(mapping, chart, mapping.check(chart.point.to(dtype)).numel())


def taylor_jet(f: Callable[[Tensor], Tensor], chart: Chart, u: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """The jets `[P, S, D]` of `f` after the chart by the engine under test."""
    with torch.no_grad():
        return taylor_engine(f, chart, dtype).jet(u.to(dtype))


def dyadic(shape: tuple[int, ...], seed: int, step: float, steps: int = 1024) -> Tensor:
    """Random multiples of `step`, less than `steps` of them either way: sums and products of a few are exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-steps, steps, shape, generator=generator).double() * step


def dyadic_chart(shape: tuple[int, ...], k: int, seed: int = 0) -> Chart:
    return Chart(dyadic(shape, seed, 2.0**-9), dyadic((k, *shape), seed + 1, 2.0**-5, 16))


def dyadic_points(points: int, k: int, seed: int = 0) -> Tensor:
    """Coordinates less than 1/8."""
    return dyadic((points, k), seed, 2.0**-6, 8)
