"""The surface that a graph makes of a chart, in balls: its derivatives, its metric and the curvature of its planes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

import flint
import numpy as np
import torch
from flint import arb, arb_mat, fmpq

from fisherflat.errors import EnclosureError
from fisherflat.jets.graph import Graph
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian, ParametricFamily
from fisherflat.verifier._embedding import embedded
from fisherflat.verifier._evaluator import evaluate
from fisherflat.verifier._polynomials import Polynomial, exact, matrix, monomials

#: two tangent vectors in coordinates
Plane = tuple[tuple[float, ...], tuple[float, ...]]


class Surface:
    """The graph on the chart, in a family, in so many bits."""

    def __init__(self, graph: Graph, chart: Chart, family: Gaussian | ParametricFamily, bits: int) -> None:
        self.graph, self.family, self.k = graph, family, chart.k
        self.outputs = math.prod(graph.shape)
        self.point, self.basis = exact(chart.point), exact(chart.basis)
        # of another family: one over the squares of unit steps, known with the embedding
        self.sigma: np.ndarray = exact(family.covariance) if isinstance(family, Gaussian) else np.array(arb(1))
        with flint.ctx.workprec(bits):
            self.inverse = matrix(self.sigma).inv() if self.sigma.ndim == 2 else None

    def input(self, u: Sequence[arb], degree: int) -> Polynomial:
        value = self.point + sum(self.basis[i] * u[i] for i in range(self.k))
        k = self.k if degree else 0
        parts = [value, *(self.basis[i] for i in range(k)), *[None] * (len(monomials(k)) - 1 - k)]
        return Polynomial(parts, k)

    def jet(self, u: Sequence[arb]) -> tuple[np.ndarray, np.ndarray]:
        """The value `[D]` and the derivatives `[m, D]`, first and second."""
        middle = [x.mid() for x in u]
        steps = [x - c for x, c in zip(u, middle, strict=True)]
        is_box = not all(x.is_exact() for x in u)
        y = evaluate(self.graph, self.input(u, 2), self.input(middle, 2) if is_box else None, steps)
        if not all(x.is_finite() for part in y.parts if part is not None for x in part.ravel()):
            raise EnclosureError("the map or its derivatives are not finite there")
        zero = np.full(self.outputs, arb(0), dtype=object)
        rows = [zero if part is None else part.ravel() for part in y.parts]
        for m, monomial in enumerate(monomials(self.k)):
            if len(monomial) == 2 and monomial[0] == monomial[1]:
                rows[m] = rows[m] * 2  # from a Taylor coefficient to a derivative
        if not isinstance(self.family, Gaussian):
            found, self.sigma = embedded(self.family, np.stack(rows), tuple(self.graph.shape), self.k)
            return found[0], found[1:]
        return rows[0], np.stack(rows[1:])

    def _weighted(self, vector: np.ndarray) -> np.ndarray:
        """The inverse of the covariance times a vector."""
        if self.inverse is None:
            return vector / self.sigma
        product = self.inverse * arb_mat(len(vector), 1, vector.tolist())
        return np.array(product.entries(), dtype=object)

    def _frame(self, rows: Iterable[np.ndarray]) -> tuple[list[np.ndarray], list[list[arb]]]:
        """Orthonormal vectors that span the rows, by Gram and Schmidt, and the coefficients of the rows in them."""
        frame: list[np.ndarray] = []
        coefficients: list[list[arb]] = []
        for row in rows:
            inner = [_dot(self._weighted(e), row) for e in frame]
            rest = row - sum(c * e for c, e in zip(inner, frame, strict=True))
            square = _dot(self._weighted(rest), rest)
            if not square > 0:
                raise EnclosureError("the metric is not bounded away from degenerate ones")
            frame.append(rest / square.sqrt())
            coefficients.append([*inner, square.sqrt()])
        return frame, coefficients

    def metric_determinant(self, u: Sequence[arb]) -> arb:
        """The product of the squared lengths that Gram and Schmidt leave."""
        return _product(c[-1] ** 2 for c in self._frame(self.jet(u)[1][: self.k])[1])

    def curvature(self, u: Sequence[arb], plane: Plane | None) -> tuple[arb, arb]:
        """The sectional curvature and the determinant of the metric.

        `K = (II(e, e) . II(n, n) - |II(e, n)|^2) / (|e|^2 |n|^2 - (e . n)^2)` for a basis e, n of the plane, where II
        are the second derivatives less their projection to the tangent space.
        """
        k = self.k
        derivatives = self.jet(u)[1]
        change, multiples = self._suggested(derivatives, plane)
        first = change @ derivatives[:k]
        seconds = dict(zip(monomials(k)[1 + k :], derivatives[k:], strict=True))
        frame, coefficients = self._frame(first)
        bent = []
        for (a, b), less in zip(((0, 0), (1, 1), (0, 1)), multiples, strict=True):
            mixed = [(change[a][i] * change[b][j], (min(i, j), max(i, j))) for i in range(k) for j in range(k)]
            bent.append(sum(factor * seconds[pair] for factor, pair in mixed) - less @ first)
        tangential = [[_dot(self._weighted(e), vector) for e in frame] for vector in bent]

        def normal(a: int, b: int) -> arb:  # by Pythagoras
            both = zip(tangential[a], tangential[b], strict=True)
            return _dot(self._weighted(bent[a]), bent[b]) - sum((x * y for x, y in both), arb(0))

        gauss = normal(0, 1) - normal(2, 2)
        (size,), (_, height) = coefficients[:2]
        determinant = _product(c[-1] ** 2 for c in coefficients) / matrix(change).det() ** 2
        return gauss / (size * height) ** 2, determinant

    def _suggested(self, derivatives: np.ndarray, plane: Plane | None) -> tuple[np.ndarray, np.ndarray]:
        """A basis of the tangent space that starts in the plane `[k, k]`, and multiples of it `[3, k]`, from floats.

        The basis is about orthonormal, and the second derivatives along 11, 22 and 12 less the multiples about normal.
        Any multiples are right, and any basis of which two vectors are multiples of the plane's; these keep the balls
        of a box from adding up.
        """
        k = self.k
        axes = np.eye(k)
        x, y = np.array(plane) if plane is not None else axes[:2]
        minors = np.abs(np.outer(x, y) - np.outer(y, x))
        left_out = np.unravel_index(minors.argmax(), minors.shape)
        basis = np.array([x, y, *np.delete(axes, left_out, 0)])
        floats = torch.from_numpy(np.frompyfunc(float, 1, 1)(derivatives).astype(float))
        gaussian = isinstance(self.family, Gaussian)
        white = (self.family.whiten(floats) if isinstance(self.family, Gaussian) else floats).numpy()
        weights = np.ones(white.shape[1]) if gaussian else 1 / self.sigma.astype(float)
        triangular = _upper((basis @ white[:k]).T, weights)
        mixing = np.eye(k)
        if np.isfinite(triangular).all() and np.abs(np.diag(triangular)).min() > 0:
            mixing = np.tril(np.linalg.inv(triangular.T))
        orthonormal = weights[:, None] * (mixing @ basis @ white[:k]).T
        exact_basis = exact(torch.from_numpy(mixing)) @ exact(torch.from_numpy(basis))
        near = mixing @ basis
        bent = [sum(near[a][i] * near[b][j] * white[monomials(k).index((min(i, j), max(i, j))) - 1]
                    for i in range(k) for j in range(k)) for a, b in ((0, 0), (1, 1), (0, 1))]  # fmt: skip
        return exact_basis, exact(torch.from_numpy(np.nan_to_num(np.array(bent) @ orthonormal)))


def _upper(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The triangular factor of some columns; under weights of both signs that of their inner products, if there is."""
    if (weights > 0).all():
        return np.linalg.qr(columns * np.sqrt(weights)[:, None])[1]
    try:
        return np.linalg.cholesky(columns.T @ (weights[:, None] * columns)).T
    except np.linalg.LinAlgError:
        return np.zeros((columns.shape[1],) * 2)


def _dot(a: np.ndarray, b: np.ndarray) -> arb:
    return (arb_mat(1, len(a), a.tolist()) * arb_mat(len(b), 1, b.tolist()))[0, 0]


def _product(factors: Iterable[arb]) -> arb:
    return math.prod(factors, start=arb(1))


def real(number: Fraction) -> arb:
    return arb(fmpq(number.numerator, number.denominator))


def rational(ball: arb) -> fmpq:
    mantissa, exponent = (int(part) for part in ball.man_exp())
    return fmpq(mantissa) * fmpq(2) ** exponent
