"""`certify`: flat by structure, curved by enclosure, or undecided with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR
from fractions import Fraction
from typing import Any

import flint
import numpy as np
import torch
from flint import arb, fmpz_mat
from torch import Tensor

from fisherflat._arrays import as_float64, integer
from fisherflat.certificates import (
    ARGUMENTS,
    CERTIFIED,
    Bound,
    CurvatureCertificate,
    HeldNode,
    Numbers,
    Step,
    Weight,
    bounds,
    digests,
    rounded,
    versions,
)
from fisherflat.errors import EnclosureError, InputError, UnsupportedOpError
from fisherflat.geometry import StatisticalManifold
from fisherflat.jets.balls import matrix
from fisherflat.jets.graph import Graph, Node
from fisherflat.parts.structure import read
from fisherflat.provers import _pieces as pieces
from fisherflat.provers._analytic import analytic
from fisherflat.provers._enclosure import Box, jet, sectional
from fisherflat.provers._search import Plane, find
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Bernoulli, Gaussian, ParametricFamily, Poisson
from fisherflat.verifier import CLOSE, NUMERICAL, Comparison, HeldError, Surface, deviations

#: families whose space is flat, so that a surface that fills it is
FLAT = (Gaussian, Bernoulli, Poisson)
#: how often the precision is doubled before the answer is "undecided"
DOUBLINGS = 2
#: bits in which any two doubles keep apart in a sum, as scores and a mask of the least double that is added to them do:
#: what is held may rank such sums
APART = 2304
#: bits in which the rank of an affine map of deficient rank is computed, so that nothing is rounded
EXACT = 4096
#: how many pieces of a box are tried, over all bisections
PIECES = 64
#: by what share of its width an enclosure over a box is widened, so that other arithmetic than the prover's fits in
SLACK = 0.5


def certify(
    mean: Callable[[Tensor], Tensor],
    chart: Chart,
    family: Gaussian | ParametricFamily | None = None,
    at: Any = None,
    radius: float = 0.0,
    precision: int = 128,
) -> CurvatureCertificate:
    """A proof that the manifold of `mean` on `chart` is flat, or curved at a point, or why neither was found.

    It is flat where the traced graph is affine, by structure alone; curved where rigorous 2-jets in ball arithmetic
    give an enclosure of a sectional curvature that excludes zero.

    **Args:** `mean`, `chart` as in `StatisticalManifold`; `family`, a `Gaussian`, or one of `Categorical`, `Bernoulli`,
    `Poisson` and `DiagonalGaussian`, in which an affine map need not be flat. `at` `[k]`: the point to prove curvature
    at (default: a point of large curvature is searched for). `radius`: prove it on the box of all coordinates within
    this distance of the point, bisecting it within a budget. `precision`: bits of the ball arithmetic, doubled up to
    twice where they do not suffice, and raised further where what is held ranks numbers that only more bits keep apart.

    **Returns:** a `CurvatureCertificate`; see there for what exactly is certified.

    **Raises:** `InputError` for a bad argument, and what `StatisticalManifold` and `trace` raise.

    >>> import torch, fisherflat as ff
    >>> bowl = lambda x: torch.cat([x, (x * x).sum()[None]])
    >>> certificate = ff.certify(bowl, ff.charts.identity(2), at=[0.0, 0.0])
    >>> certificate.verdict, [round(float(bound), 9) for bound in certificate.enclosure]
    ('curved', [4.0, 4.0])
    """
    manifold = StatisticalManifold(mean, chart, family, degenerate="nan")
    precision = integer(precision, "precision, in bits,", 24)
    if precision > 2**12:
        raise InputError(f"precision is a number of bits from 24 to {2**12}, got {precision!r}")
    width = as_float64(radius, "radius")
    if width.dim() or not width >= 0:
        raise InputError(f"radius must be a finite number, at least 0, got {radius!r}")
    point = None
    if at is not None:
        point = as_float64(at, "at")
        if tuple(point.shape) != (chart.k,):
            raise InputError(f"at must hold k = {chart.k} coordinates; it has shape {list(point.shape)}")
    return _Prover(manifold, width.item(), precision).certificate(None if point is None else tuple(point.tolist()))


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


def step(node: Node, order: str) -> Step:
    """A node of a graph as a step of a proof."""
    return Step(node.index, node.op, order, node.role, node.module_path, node.source)


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
        if not isinstance(manifold.family, (Gaussian, *CERTIFIED)):
            raise InputError(
                "certificates are about Gaussian, Categorical, Bernoulli, Poisson and DiagonalGaussian, got the "
                f"family {type(manifold.family).__name__}"
            )
        self.family = manifold.family
        #: whether a surface that does not bend is flat
        self.straight = isinstance(manifold.family, Gaussian)
        self.orders = pieces.read(self.graph, self.structure)
        try:
            self.found = Comparison(self.graph) if self.graph.holdings else None
        except HeldError as error:
            raise InputError(f"nothing can be certified of this frozen graph: {error}") from error

    def certificate(self, at: tuple[float, ...] | None) -> CurvatureCertificate:
        """The certificate at a point, or at one that is searched for."""
        k = self.chart.k
        origin = (0.0,) * k
        if self.straight and pieces.order(self.graph, self.orders) in (pieces.CONSTANT, pieces.AFFINE):
            return self._written(_Proof("affine"), origin, rank=self._rank())
        if k == 1:
            return self._written(_Proof("one coordinate"), origin)
        by_pieces = pieces.order(self.graph, self.orders) == pieces.PIECES
        if self.straight and by_pieces and pieces.kinks(self.graph, self.orders):
            return self._written(_Proof("affine by pieces"), origin)
        point, plane = self._place(at)
        proof = self._decided(point, plane, [self.precision << doubling for doubling in range(DOUBLINGS + 1)])
        if proof.argument in NUMERICAL:
            for bits in sorted({self.precision, max(self.precision, APART)}):
                if bits > self.precision and proof.argument == "zero enclosed":
                    proof = self._decided(point, plane, (bits,))  # what is open is open in these bits
                self.precision = bits
                try:
                    return self._written(proof, point, plane, constants=self._constants())
                except EnclosureError:
                    continue
                except UnsupportedOpError:
                    break
            proof = _Proof("held in floats")
        return self._written(proof, point, plane)

    def _place(self, at: tuple[float, ...] | None) -> tuple[tuple[float, ...], Plane]:
        """Where to prove something: what the search in floats finds, if floats can be had."""
        try:
            return find(self.manifold, at)
        except Exception:  # the search is in floats, on ops that may have no derivative there; nothing relies on it
            k = self.chart.k
            first, second, *_ = torch.eye(k, dtype=torch.float64).tolist()
            return at if at is not None else (0.0,) * k, (tuple(first), tuple(second))

    def _constants(self) -> tuple[Numbers, ...]:
        """The constants that torch computed, and how close they are to what they stand for."""
        computed = [(name, t) for name, t in self.graph.constants() if digests.is_computed(name, t)]
        with flint.ctx.workprec(self.precision):
            apart = deviations(self.graph, self.found, {id(tensor): tensor for _, tensor in computed})
        made = self.found.worth if self.found is not None else {}
        numbers = []
        for name, tensor in computed:
            if id(tensor) not in apart:
                raise EnclosureError(f"{name} is not finite in balls")
            within = CLOSE  # a constant of constants, wherever it is computed again
            if id(tensor) in made:
                within = min(CLOSE, 4 * apart[id(tensor)] + Fraction(1, 2**self.precision))
            numbers.append(
                Numbers(name, tensor, rounded(within, 24, ROUND_FLOOR if within == CLOSE else ROUND_CEILING))
            )
        return tuple(numbers)

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

    def _decided(self, point: Sequence[float], plane: Plane, precisions: Sequence[int]) -> _Proof:
        """First at the point, in as many bits as it takes, then on the box."""
        for bits in precisions:
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
            found = sectional(derivatives, self.chart.k, self.family, plane, self.manifold.output_shape)
            if radius and not self.straight:  # by other formulas it may be wider, over a box
                found = self._or_wider(found, cell(point, radius, path), plane, bits)
            enclosure, determinant = bounds(found[0], bits, slack), bounds(found[1], bits, slack * 1e9)
        except EnclosureError:
            return _Proof("degenerate immersion")
        if determinant[0] <= 0:  # too small for a file
            return _Proof("degenerate immersion")
        if self.chart.k == self.manifold.ambient_dim and isinstance(self.family, FLAT):
            return _Proof("full dimension", (), None, determinant)
        if enclosure[0] <= 0 <= enclosure[1]:
            return _Proof("zero enclosed", (), enclosure, determinant)
        return _Proof("enclosure", (path,), enclosure, determinant)

    def _or_wider(self, found: tuple[arb, arb], box: Box, plane: Plane, bits: int) -> tuple[arb, arb]:
        """What holds both an enclosure over a box and what the verifier will find there.

        **Raises:** `EnclosureError` where that is nothing.
        """
        other = Surface(self.graph, self.chart, self.family, bits).curvature(box, plane if self.chart.k > 2 else None)
        return found[0].union(other[0]), found[1].union(other[1])

    def _written(
        self,
        proof: _Proof,
        point: Sequence[float],
        plane: Plane | None = None,
        rank: tuple[int, bool] | None = None,
        constants: tuple[Numbers, ...] = (),
    ) -> CurvatureCertificate:
        verdict = ARGUMENTS[proof.argument][0]
        by_structure = proof.argument in ("affine", "affine by pieces")
        kinks = pieces.kinks(self.graph, self.orders) if proof.argument == "affine by pieces" else []
        live = self.graph.live if self.graph.holdings else None
        return CurvatureCertificate(
            verdict=verdict,
            argument=proof.argument,
            chart=self.chart,
            family=self.family,
            frozen=self.graph.frozen,
            precision=self.precision,
            point=tuple(x + 0.0 for x in point),  # no zeros with a sign
            radius=self.radius if verdict != "flat" else 0.0,
            plane=plane if self.chart.k > 2 and proof.enclosure is not None else None,
            cells=proof.cells,
            enclosure=proof.enclosure,
            determinant=proof.determinant,
            rank=rank,
            witness=self._witness(),
            unsupported=None if proof.unsupported is None else self._step(proof.unsupported),
            steps=tuple(map(self._step, self.graph.nodes)) if by_structure else (),
            kinks=tuple(map(self._step, kinks)),
            analytic=analytic(self.graph, self.structure) if proof.argument == "enclosure" else None,
            weights=tuple(
                Weight(name, tuple(tensor.shape), digests.of_tensor(tensor))
                for name, tensor in self.graph.constants()
                if not digests.is_computed(name, tensor)
            ),
            graph=digests.of_graph(self.graph, digests.of_constants(self.graph)),
            held_nodes=self._held(),
            base=None if live is None or torch.equal(live.at.cpu(), self.chart.point) else live.at.cpu(),
            live="" if live is None else digests.of_graph(live.graph, digests.of_constants(live.graph)),
            constants=constants,
            outputs=self.manifold.ambient_dim,
            versions=versions(),
        )

    def _step(self, node: Node) -> Step:
        return step(node, self.orders[node])

    def _witness(self) -> Step | None:
        """The first node that is neither constant nor affine."""
        return next((self._step(n) for n in self.graph.nodes if self.orders[n] not in ("constant", "affine")), None)

    def _held(self) -> tuple[HeldNode, ...]:
        if self.graph.live is None:
            return ()  # and nothing is held, or the graph was refused
        nodes = self.graph.live.graph.nodes
        held = [(holding.role, nodes[holding.node]) for holding in self.graph.holdings]
        return tuple(HeldNode(role, node.index, node.op, node.module_path, node.source) for role, node in held)


def _hull(enclosures: Sequence[tuple[Bound, Bound] | None]) -> tuple[Bound, Bound]:
    known = [enclosure for enclosure in enclosures if enclosure is not None]
    return min(low for low, _ in known), max(high for _, high in known)
