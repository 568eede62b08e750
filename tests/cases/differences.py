"""Second-order jets by differences alone: the truth that rules and engines are tested against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor

from fisherflat.jets.engines import TensorAlgebra, evaluated, packed
from fisherflat.jets.graph import Graph
from fisherflat.jets.rules import Series
from fisherflat.spaces.jets import pairs

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


def _polynomial(coefficients: Array, k: int) -> Callable[[Array], Array]:
    """`u -> x + sum_i u_i d_i x + 1/2 sum_ij u_i u_j d_ij x` from the coefficients `[C, *shape]` of a series."""

    def x(u: Array) -> Array:
        total = coefficients[0]
        position = 1
        for i in range(k):
            total = total + u[i] * coefficients[position]
            position += 1
        for i in range(k):
            for j in range(i, k):
                if position < len(coefficients):
                    total = total + u[i] * u[j] * coefficients[position] / (2 if i == j else 1)
                    position += 1
        return total

    return x


def torch_jet(f: Callable[[Tensor], Tensor], series: Tensor, k: int, h: float = 2.0**-11) -> Tensor:
    """The jets `[P, S, D]` of `f` of a series `[C, P, *shape]` by differences: for piecewise polynomials."""
    jets = []
    for coefficients in series.unbind(1):
        x = _polynomial(coefficients, k)
        jets.append(torch.stack(by_differences(lambda u, x=x: f(x(u)).reshape(-1), series.new_zeros(k), h)))
    return torch.stack(jets)


@contextmanager
def digits(count: int) -> Iterator[None]:
    """Work with mpmath numbers of so many digits."""
    with mpmath.workdps(count):
        yield


def exactly(tensor: Tensor) -> np.ndarray:
    """The numbers of a tensor as mpmath numbers."""
    flat = [mpmath.mpf(v) for v in tensor.double().reshape(-1).tolist()]
    return np.array([*flat, None], dtype=object)[:-1].reshape(tuple(tensor.shape))


def _flat(y: Array) -> np.ndarray:
    return np.asarray(y, dtype=object).reshape(-1)


def mpmath_jet(f: Callable[[np.ndarray], Array], series: Tensor, k: int) -> Tensor:
    """The jets `[P, S, D]` of `f` of a series, by differences in 100 digits, of which 40 are right.

    `f` takes and returns numpy arrays of mpmath numbers.
    """
    jets = []
    with digits(100):
        for coefficients in series.unbind(1):
            x = _polynomial(exactly(coefficients), k)
            origin = np.array([mpmath.mpf(0)] * k)
            rows = by_differences(lambda u, x=x: _flat(f(x(u))), origin, mpmath.mpf(10) ** -20)
            jets.append([[float(entry) for entry in row] for row in rows])
    return torch.tensor(jets, dtype=torch.float64)


def taylor_jet(graph: Graph, series: Tensor, k: int) -> Tensor:
    """The jets `[P, S, D]` of a graph of a series by the rules under test, in the precision of the series."""
    return _evaluated(TensorAlgebra(), graph, series, k)


def taylor_jet_in_blocks(graph: Graph, series: Tensor, k: int) -> Tensor:
    """The same with the sources of every other node in a second block of second derivatives, and the blocks added."""
    algebra = TensorAlgebra({node: node.index % 2 for node in graph.nodes}, 2)
    pairs = k * (k + 1) // 2
    if len(series) > 1 + k:
        series = torch.cat([series, torch.zeros_like(series[1 + k :])])
    jets = _evaluated(algebra, graph, series, k)
    return torch.cat([jets[:, : 1 + k], jets[:, 1 + k : 1 + k + pairs] + jets[:, 1 + k + pairs :]], 1)


def collapsed(jets: Tensor, k: int, axis: int = 1) -> Tensor:
    """Jets with the sum of all `d_i d_i` in the place of their second derivatives."""
    first, second = jets.split([1 + k, jets.shape[axis] - 1 - k], axis)
    squares = torch.tensor([row for row, (i, j) in enumerate(pairs(k)) if i == j])
    return torch.cat([first, second.index_select(axis, squares).sum(axis, keepdim=True)], axis)


def collapsed_taylor_jet(graph: Graph, series: Tensor, k: int) -> Tensor:
    """The same of a series, by rules that carry that sum alone: `[P, 2 + k, D]`."""
    given = collapsed(series, k, 0) if len(series) > 1 + k else series
    return _evaluated(TensorAlgebra(seconds="sum"), graph, given, k)


def first_taylor_jet(graph: Graph, series: Tensor, k: int) -> Tensor:
    """The jets without second derivatives, by rules that carry none: `[P, 1 + k, D]`."""
    return _evaluated(TensorAlgebra(seconds="none"), graph, series[: 1 + k], k)


def _evaluated(algebra: TensorAlgebra, graph: Graph, series: Tensor, k: int) -> Tensor:
    graph = graph.to(series.dtype, series.device) if series.dtype != torch.float64 else graph
    with torch.no_grad():
        return packed(algebra, evaluated(algebra, graph, Series(series.clone(), k)))


def dyadic(shape: tuple[int, ...], seed: int, step: float, steps: int = 1024) -> Tensor:
    """Random multiples of `step`, less than `steps` of them either way: sums and products of a few are exact."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-steps, steps, shape, generator=generator).double() * step


def dyadic_series(shape: tuple[int, ...], order: int, k: int, points: int, seed: int = 0) -> Tensor:
    """Random coefficients `[C, P, *shape]`: values less than 2 but no multiples of 2^-9, derivatives less than 1/2."""
    coefficients = 1 + k + (k * (k + 1) // 2 if order == 2 else 0)
    value, rest = (1, points, *shape), (coefficients - 1, points, *shape)
    return torch.cat([dyadic(value, seed, 2.0**-9) + 2.0**-10, dyadic(rest, seed + 1, 2.0**-5, 16)])
