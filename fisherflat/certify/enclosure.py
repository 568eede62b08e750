"""Curvature in balls: rigorous enclosures of the metric, the second fundamental form and the curvature at a point or box.

With `A_ij = d_ij f` and all products in `Sigma^-1` (so no root of the covariance is taken),
`<II_a, II_b> = <A_a, A_b> - <A_a, d_l f> g^lm <d_m f, A_b>`, and the Gauss equation gives the curvature from these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from flint import arb, arb_mat

from fisherflat.charts import Chart
from fisherflat.errors import EnclosureError
from fisherflat.family import Gaussian
from fisherflat.jets.ball import BallAlgebra, BallArray, balls
from fisherflat.jets.graph import Graph
from fisherflat.jets.jet import pair_index, size
from fisherflat.jets.rules import evaluate
from fisherflat.jets.series import Series

#: a point or box: one ball a coordinate
Box = Sequence[arb]


def jet(graph: Graph, chart: Chart, box: Box) -> np.ndarray:
    """The 2-jet of the graph on the chart over a box, `[S, D]` balls.

    **Raises:** `UnsupportedOpError` for an op without a ball rule, `EnclosureError` where a sign or an order is open.
    """
    k = chart.dim
    point, basis = balls(chart.point), balls(chart.basis)
    x = np.empty((1 + k, 1, *point.shape), dtype=object)
    x[0, 0] = point + sum(basis[i] * box[i] for i in range(k))
    x[1:, 0] = basis
    y = evaluate(graph, BallAlgebra(), Series(BallArray(x), k))
    values = balls(y)[None] if isinstance(y, torch.Tensor) else y.data.balls
    out = np.full((size(k), values[0].size), arb(0), dtype=object)
    out[: values.shape[0]] = values.reshape(values.shape[0], -1)
    return out


class Curvature:
    """The geometry of a surface from its 2-jet `[S, D]` in balls, under a covariance.

    **Attributes:** `metric` (`arb_mat`, k by k), `determinant` of the metric.

    **Raises:** `EnclosureError` where the determinant of the metric may vanish, or where the jet is not finite.
    """

    def __init__(self, jet: np.ndarray, k: int, family: Gaussian) -> None:
        self.k = k
        gram = _gram(jet[1:], family)
        count = len(jet) - 1
        blocks = [[range(k), range(k)], [range(k), range(k, count)], [range(k, count), range(k, count)]]
        self.metric, mixed, second = (arb_mat([[gram[i, j] for j in columns] for i in rows]) for rows, columns in blocks)
        self.determinant = self.metric.det()
        if not self.determinant.is_finite():
            raise EnclosureError("the derivatives are not finite there: the point is outside the map's domain")
        if not self.determinant > 0:
            raise EnclosureError(f"the immersion may be degenerate: det g = {self.determinant.str(8)} is not bounded away from zero")
        try:
            self._normal = second - mixed.transpose() * self.metric.solve(mixed)
        except ZeroDivisionError as error:
            raise EnclosureError("the metric could not be inverted in balls") from error

    def riemann(self, i: int, j: int, m: int, n: int) -> arb:
        """`R_ijmn = <II_in, II_jm> - <II_im, II_jn>` (the Gauss equation)."""
        pair = pair_index(self.k).tolist()
        return self._normal[pair[i][n], pair[j][m]] - self._normal[pair[i][m], pair[j][n]]

    def sectional(self, x: Sequence[float], y: Sequence[float]) -> arb:
        """The sectional curvature of the plane spanned by `x` and `y`, tangent vectors in coordinates."""
        rx, ry = range(self.k), range(self.k)
        # x^i y^j (x^m y^n - y^m x^n) over i < j and m < n, by the symmetries of R
        planes = [(i, j, arb(x[i]) * arb(y[j]) - arb(x[j]) * arb(y[i])) for i in rx for j in ry if i < j]
        top = sum((a * b * self.riemann(i, j, n, m) for i, j, a in planes for m, n, b in planes), arb(0))
        area = sum(
            (a * b * (self.metric[i, m] * self.metric[j, n] - self.metric[i, n] * self.metric[j, m])
             for i, j, a in planes for m, n, b in planes),
            arb(0),
        )  # fmt: skip
        return top / area

    def scalar(self) -> arb:
        """The scalar curvature, `g^im g^jl R_ijlm`."""
        inverse, every = self.metric.inv(), range(self.k)
        return sum(
            (inverse[i, m] * inverse[j, n] * self.riemann(i, j, n, m) for i in every for j in every for m in every for n in every),
            arb(0),
        )


def _gram(vectors: np.ndarray, family: Gaussian) -> arb_mat:
    """`v Sigma^-1 w` for all pairs of rows."""
    rows = arb_mat(*vectors.shape, vectors.ravel().tolist())
    sigma = balls(family.covariance)
    if sigma.ndim == 2:
        return rows * arb_mat(*sigma.shape, sigma.ravel().tolist()).solve(rows.transpose())
    scaled = vectors / sigma
    return rows * arb_mat(*scaled.shape, scaled.ravel().tolist()).transpose()
