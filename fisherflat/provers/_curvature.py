"""`certify`: flat by structure, curved by enclosure, or undecided with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import flint
import numpy as np
import torch
from flint import arb, fmpz_mat
from torch import Tensor

from fisherflat._arrays import as_float64
from fisherflat.certificates import ARGUMENTS, Bound, CurvatureCertificate, Step, Weight, bounds, digests, versions
from fisherflat.errors import EnclosureError, InputError, UnsupportedOpError
from fisherflat.geometry import StatisticalManifold
from fisherflat.jets.balls import matrix
from fisherflat.jets.graph import Graph, Node
from fisherflat.parts.structure import NAMES, read
from fisherflat.provers._analytic import analytic
from fisherflat.provers._enclosure import Box, jet, sectional
from fisherflat.provers._search import Plane, find
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian

#: how often the precision is doubled before the answer is "undecided"
DOUBLINGS = 2
#: bits in which the rank of an affine map of deficient rank is computed, so that nothing is rounded
EXACT = 4096
#: how many pieces of a box are tried, over all bisections
PIECES = 64
#: by what share of its width an enclosure over a box is widened, so that other arithmetic than the prover's fits in
SLACK = 0.5


def certify(
    mean: Callable[[Tensor], Tensor],
    chart: Chart,
    family: Gaussian | None = None,
    at: Any = None,
    radius: float = 0.0,
    precision: int = 128,
) -> CurvatureCertificate:
    """A proof that the manifold of `mean` on `chart` is flat, or curved at a point, or why neither was found.

    It is flat where the traced graph is affine, by structure alone; curved where rigorous 2-jets in ball arithmetic
    give an enclosure of a sectional curvature that excludes zero.

    **Args:** `mean`, `chart`, `family` as in `StatisticalManifold`. `at` `[k]`: the point to prove curvature at
    (default: a point of large curvature is searched for). `radius`: prove it on the box of all coordinates within this
    distance of the point, bisecting it within a budget. `precision`: bits of the ball arithmetic, doubled up to twice
    where they do not suffice.

    **Returns:** a `CurvatureCertificate`; see there for what exactly is certified.

    **Raises:** `InputError` for a bad argument, and what `StatisticalManifold` and `trace` raise.
    """
    manifold = StatisticalManifold(mean, chart, family, degenerate="nan")
    if type(precision) is not int or not 24 <= precision <= 2**12:
        raise InputError(f"precision is a number of bits from 24 to {2**12}, got {precision!r}")
    if not 0 <= float(radius) < float("inf"):
        raise InputError(f"radius must be a finite number, at least 0, got {radius!r}")
    point = None
    if at is not None:
        point = as_float64(at, "at")
        if tuple(point.shape) != (chart.k,):
            raise InputError(f"at must hold k = {chart.k} coordinates; it has shape {list(point.shape)}")
    return _Prover(manifold, float(radius), precision).certificate(None if point is None else tuple(point.tolist()))


def cell(point: Sequence[float], radius: float, path: str) -> Box:
    """A piece of the box around a point: a path of halvings, of one coordinate after the other."""
    centre, half = [arb(c) for c in point], [arb(radius)] * len(point)
    for depth, side in enumerate(path):
        i = depth % len(point)
        half[i] = half[i] / 2
        centre[i] = centre[i] + half[i] if side == "1" else centre[i] - half[i]
    return [c + arb(0, 1) * h for c, h in zip(centre, half, strict=True)]


def affine_rank(jacobian: np.ndarray) -> int:
    """A lower bound of the rank of a matrix of balls `[k, D]`: the size of a set of certainly independent rows."""
    chosen: list[int] = []
    for row in range(len(jacobian)):
        rows = jacobian[[*chosen, row]]
        independent = (matrix(rows) * matrix(rows).transpose()).det() > 0
        if independent:
            chosen.append(row)
    return len(chosen)


def exact_rank(jacobian: np.ndarray) -> int | None:
    """The rank of a matrix of balls of radius zero, `None` where some ball has a radius."""
    if not all(x.is_exact() for x in jacobian.ravel()):
        return None
    parts = [[tuple(map(int, x.man_exp())) for x in row] for row in jacobian]
    lowest = min(exponent for row in parts for _, exponent in row)
    return fmpz_mat([[mantissa << (exponent - lowest) for mantissa, exponent in row] for row in parts]).rank()


def step(node: Node, order: int) -> Step:
    """A node of a graph as a step of a proof."""
    return Step(node.index, node.op, NAMES[order], node.role, node.module_path, node.source)


@dataclass(frozen=True)
class _Proof:
    """What was found out over a piece of a box."""

    argument: str
    cells: tuple[str, ...] = ()
    enclosure: tuple[Bound, Bound] | None = None
    determinant: tuple[Bound, Bound] | None = None
    unsupported: Node | None = None


class _Prover:
    def __init__(self, manifold: StatisticalManifold, radius: float, precision: int) -> None:
        self.manifold, self.chart, self.radius, self.precision = manifold, manifold.chart.to("cpu"), radius, precision
        graph: Graph = manifold.engine.graph  # type: ignore[attr-defined]
        self.graph = graph.to(torch.float64, torch.device("cpu"))  # balls live there
        self.structure = read(self.graph)
        if not isinstance(manifold.family, Gaussian):
            raise InputError(f"certificates are about Gaussians, got the family {type(manifold.family).__name__}")
        self.family = manifold.family

    def certificate(self, at: tuple[float, ...] | None) -> CurvatureCertificate:
        """The certificate at a point, or at one that is searched for."""
        k = self.chart.k
        origin = at if at is not None else (0.0,) * k
        if self.structure.order < 2:
            return self._written(_Proof("affine"), origin, rank=self._rank())
        if k == 1:
            return self._written(_Proof("one coordinate"), origin)
        point, plane = find(self.manifold, at)
        return self._written(self._decided(point, plane), point, plane)

    def _rank(self) -> tuple[int, bool]:
        """A lower bound of the rank of an affine map, and whether it is the rank."""
        k = self.chart.k
        try:
            with flint.ctx.workprec(self.precision):
                least = affine_rank(jet(self.graph, self.chart, [arb(0)] * k)[1 : 1 + k])
            if least == k:
                return k, True
            with flint.ctx.workprec(EXACT):
                exact = exact_rank(jet(self.graph, self.chart, [arb(0)] * k)[1 : 1 + k])
        except UnsupportedOpError:
            return 0, False  # flat all the same: structure looks at no numbers
        return (least, False) if exact is None else (exact, True)

    def _decided(self, point: Sequence[float], plane: Plane) -> _Proof:
        """First at the point, in as many bits as it takes, then on the box."""
        for doubling in range(DOUBLINGS + 1):
            bits = self.precision << doubling
            with flint.ctx.workprec(bits):
                proof = self._over(point, plane, "", 0.0, bits)
            if proof.argument in ("enclosure", "full dimension", "unsupported op"):
                break
        self.precision = bits
        if proof.argument != "enclosure" or self.radius == 0:
            return proof
        with flint.ctx.workprec(bits):
            return self._over_box(point, plane, bits)

    def _over_box(self, point: Sequence[float], plane: Plane, bits: int) -> _Proof:
        """Bisect the box until the curvature excludes zero on each piece, within the budget."""
        whole = self._over(point, plane, "", self.radius, bits)
        pending, proved, left = [("", whole)], [], PIECES
        while pending:
            path, proof = pending.pop()
            if proof.argument == "enclosure":
                proved.append(proof)
            elif left < 2:
                return whole
            else:
                left -= 2
                pending += [
                    (half, self._over(point, plane, half, self.radius, bits)) for half in (path + "1", path + "0")
                ]
        return replace(
            whole,
            argument="enclosure",
            cells=tuple(path for proof in proved for path in proof.cells),
            enclosure=_hull([proof.enclosure for proof in proved]),
            determinant=_hull([proof.determinant for proof in proved]),
        )

    def _over(self, point: Sequence[float], plane: Plane, path: str, radius: float, bits: int) -> _Proof:
        """The curvature over one piece of the box."""
        slack = SLACK if radius else 0.0
        try:
            derivatives = jet(self.graph, self.chart, cell(point, radius, path))
        except UnsupportedOpError as error:
            return _Proof("unsupported op", unsupported=getattr(error, "node", None))
        except EnclosureError:
            return _Proof("open decision")
        if not all(x.is_finite() for x in derivatives.ravel()):  # a derivative may have a value where the map has none
            return _Proof("not finite")
        try:
            found = sectional(derivatives, self.chart.k, self.family, plane)
            enclosure, determinant = bounds(found[0], bits, slack), bounds(found[1], bits, slack * 1e9)
        except EnclosureError:
            return _Proof("degenerate immersion")
        if self.chart.k == self.manifold.ambient_dim:
            return _Proof("full dimension", (), None, determinant)
        if enclosure[0] <= 0 <= enclosure[1]:
            return _Proof("zero enclosed", (), enclosure, determinant)
        return _Proof("enclosure", (path,), enclosure, determinant)

    def _written(
        self,
        proof: _Proof,
        point: Sequence[float],
        plane: Plane | None = None,
        rank: tuple[int, bool] | None = None,
    ) -> CurvatureCertificate:
        orders, witness = self.structure.orders, self.structure.witness
        constants = {id(tensor): digests.of_tensor(tensor) for _, tensor in self.graph.constants()}
        verdict = ARGUMENTS[proof.argument][0]
        return CurvatureCertificate(
            verdict=verdict,
            argument=proof.argument,
            chart=self.chart,
            family=self.family,
            frozen=self.graph.frozen,
            precision=self.precision,
            point=tuple(point),
            radius=self.radius if verdict != "flat" else 0.0,
            plane=plane if self.chart.k > 2 and proof.enclosure is not None else None,
            cells=proof.cells,
            enclosure=proof.enclosure,
            determinant=proof.determinant,
            rank=rank,
            witness=None if witness is None else step(witness, 2),
            unsupported=None if proof.unsupported is None else step(proof.unsupported, orders[proof.unsupported]),
            steps=tuple(step(node, order) for node, order in orders.items()) if proof.argument == "affine" else (),
            analytic=analytic(self.graph, self.structure) if proof.argument == "enclosure" else None,
            weights=tuple(
                Weight(name, tuple(tensor.shape), constants[id(tensor)]) for name, tensor in self.graph.constants()
            ),
            graph=digests.of_graph(self.graph, constants),
            outputs=self.manifold.ambient_dim,
            versions=versions(),
        )


def _hull(enclosures: Sequence[tuple[Bound, Bound] | None]) -> tuple[Bound, Bound]:
    known = [enclosure for enclosure in enclosures if enclosure is not None]
    return min(low for low, _ in known), max(high for _, high in known)
