"""Rigorous enclosures of 2-jets and of curvature, at a point or over a box of points.

With all products in `Sigma^-1` (so no root of the covariance is taken) and `A_a` a second derivative of `f` less any
multiples of its first derivatives, `<II_a, II_b> = <A_a, A_b> - <A_a, d_l f> g^lm <d_m f, A_b>`; the Gauss equation
makes the curvature of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from flint import arb, arb_mat

from fisherflat.errors import EnclosureError
from fisherflat.jets import pair_index, size
from fisherflat.jets.balls import BallAlgebra, applied, balls, chart_in_balls, matrix, through
from fisherflat.jets.graph import Graph, Node
from fisherflat.jets.rules import Series
from fisherflat.provers._families import in_family
from fisherflat.provers._search import Plane
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian, ParametricFamily

#: a point or box: one ball a coordinate
Box = Sequence[arb]


def jet(graph: Graph, chart: Chart, box: Box) -> np.ndarray:
    """The 2-jet of the graph on the chart over a box, `[S, D]` balls.

    **Raises:** `UnsupportedOpError` for an op without a ball rule, `EnclosureError` where a sign or an order is open.
    """
    output = graph.output
    if isinstance(output, torch.Tensor) or all(coordinate.is_exact() for coordinate in box):
        values = through(graph, chart_in_balls(chart, box)).data.balls
    else:
        values = _over(graph, chart, box, output).data.balls
    out = np.full((size(chart.k), values[0].size), arb(0), dtype=object)
    out[: values.shape[0]] = values.reshape(values.shape[0], -1)
    return out


def _over(graph: Graph, chart: Chart, box: Box, output: Node) -> Series:
    """The graph over a box, next to the graph at its centre: what is known there bounds how far values and slopes vary.

    Plain ball arithmetic forgets that all entries of a vector move together, so that every product with a matrix widens
    them by the sum of its sizes instead of by its effect.
    """
    xp, k, last = BallAlgebra(), chart.k, graph.last_use()
    centre = [coordinate.mid() for coordinate in box]
    steps = [coordinate - middle for coordinate, middle in zip(box, centre, strict=True)]
    there: dict[Node, Any] = {graph.input: chart_in_balls(chart, centre)}
    over: dict[Node, Any] = {graph.input: chart_in_balls(chart, box)}
    for node in graph.nodes[1:]:
        there[node] = applied(xp, node, there, k)
        over[node] = applied(xp, node, over, k)
        _tighten(over[node], there[node], steps)
        for dead in last.get(node, ()):
            del there[dead], over[dead]
    return over[output]


def _tighten(over: Any, there: Any, steps: Sequence[arb]) -> None:
    """Intersect values and slopes over a box with their mean value forms, `f(c) + f'(box) (box - c)`."""
    if isinstance(over, tuple):
        for part, centre in zip(over, there, strict=True):
            _tighten(part, centre, steps)
    if not isinstance(over, Series) or over.order == 0:
        return
    k, data, centre = over.k, over.data.balls, there.data.balls
    if over.order == 2:
        pair = pair_index(k).tolist()
        for i in range(k):
            moved = sum(data[1 + k + pair[i][j]] * steps[j] for j in range(k))
            data[1 + i] = _COMMON(data[1 + i], centre[1 + i] + moved)
    data[0] = _COMMON(data[0], centre[0] + sum(data[1 + i] * steps[i] for i in range(k)))


def _common(x: arb, y: arb) -> arb:
    return x if not y.is_finite() else y if not x.is_finite() else x.intersection(y)


_COMMON: Any = np.frompyfunc(_common, 2, 1)


def sectional(
    jet: np.ndarray, k: int, family: Gaussian | ParametricFamily, plane: Plane, shape: Sequence[int]
) -> tuple[arb, arb]:
    """The sectional curvature of a plane, and the determinant of the metric, from a 2-jet `[S, D]` in balls.

    **Args:** `plane`: two tangent vectors in coordinates; `shape`, of the outputs.

    **Raises:** `EnclosureError` where the determinant may vanish.
    """
    rows, around = (jet[1:], None) if isinstance(family, Gaussian) else in_family(family, jet, k, shape)
    flat = family if isinstance(family, Gaussian) else Gaussian()
    change, determinant = _frame(rows, k, flat, plane)
    vectors = change * matrix(rows)
    gram = _gram(vectors, flat)
    tangent, bent = range(k), range(k, k + 3)
    metric, mixed, second = _block(gram, tangent, tangent), _block(gram, tangent, bent), _block(gram, bent, bent)
    regular = metric.det()
    if not regular > 0:
        raise EnclosureError("the determinant of the metric is not bounded away from zero")
    try:
        normal = second - mixed.transpose() * metric.solve(mixed)
    except ZeroDivisionError as error:
        raise EnclosureError("the metric could not be inverted in balls") from error
    area = regular if k == 2 else metric[0, 0] * metric[1, 1] - metric[0, 1] ** 2
    gauss = normal[0, 1] - normal[2, 2]
    if around is not None:  # the first two rows span the plane
        gauss += around(*np.array(vectors.tolist()[:2], dtype=object))
    return gauss / area, regular / determinant**2


def _frame(rows: np.ndarray, k: int, family: Gaussian, plane: Plane) -> tuple[arb_mat, arb]:
    """What makes derivatives easy to enclose: `[k + 3, S - 1]`, and the determinant of the change of coordinates.

    The first k rows give derivatives along a basis of the tangent space whose first two vectors span the plane, about
    orthonormal in the middle of the jet. The last three give second derivatives along 11, 22 and 12, less multiples of
    first derivatives that make them about normal. The curvature of the plane is the same for every such basis and all
    multiples, so they are exact numbers that floats suggest; good ones keep balls small where they depend on each
    other.
    """
    middle = torch.from_numpy(np.frompyfunc(float, 1, 1)(rows).astype(float))
    white = family.whiten(middle).numpy()
    start = np.array([*plane, *np.linalg.qr(np.array(plane).T, mode="complete")[0].T[2:]])  # the plane, and across it
    mixing = _orthonormalising(start @ white[:k])
    basis = matrix(mixing) * matrix(start)  # in balls: mixed in floats, the first two would leave the plane
    pair = pair_index(k).tolist()
    second = arb_mat(3, len(rows))
    for row, (a, b) in enumerate(((0, 0), (1, 1), (0, 1))):
        for i in range(k):
            for j in range(k):
                second[row, k + pair[i][j]] += basis[a, i] * basis[b, j]
    first = arb_mat([[*row, *[0] * (len(rows) - k)] for row in basis.tolist()])
    tangent, bent = (np.array(some.tolist(), dtype=object).astype(float) @ white for some in (first, second))
    second -= matrix(np.nan_to_num(bent @ tangent.T)) * first
    return arb_mat([*first.tolist(), *second.tolist()]), basis.det()


def _orthonormalising(vectors: np.ndarray) -> np.ndarray:
    """A lower triangular matrix that makes rows about orthonormal; the identity where they are dependent."""
    triangular = np.linalg.qr(np.nan_to_num(vectors).T)[1].T
    if np.abs(np.diag(triangular)).min() <= 1e-12 * np.abs(triangular).max():
        return np.eye(len(vectors))
    return np.tril(np.linalg.inv(triangular))


def _gram(vectors: arb_mat, family: Gaussian) -> arb_mat:
    """`v Sigma^-1 w` for all pairs of rows."""
    sigma = balls(family.covariance)
    if sigma.ndim == 2:
        return vectors * matrix(sigma).solve(vectors.transpose())
    rows = np.array(vectors.tolist(), dtype=object)
    return vectors * matrix(rows / sigma).transpose()


def _block(whole: arb_mat, rows: Sequence[int], columns: Sequence[int]) -> arb_mat:
    return arb_mat([[whole[i, j] for j in columns] for i in rows])
