"""Checking a certificate about curvature against its map and chart, without trusting who made it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import flint
import numpy as np
import torch
from flint import arb, fmpq_mat
from torch import Tensor

from fisherflat.certificates import Bound, CurvatureCertificate, Step
from fisherflat.errors import EnclosureError, FisherflatError, UnsupportedOpError
from fisherflat.jets.graph import Graph, Node
from fisherflat.jets.recording import Mapping
from fisherflat.parts import trace, traced
from fisherflat.spaces.charts import Chart
from fisherflat.spaces.families import Gaussian
from fisherflat.spaces.families import check as check_family
from fisherflat.verifier import _identity as identity
from fisherflat.verifier._affinity import ANALYTIC, Affinity
from fisherflat.verifier._embedding import dimension
from fisherflat.verifier._evaluator import FOREIGN, evaluate
from fisherflat.verifier._held import Comparison, HeldError
from fisherflat.verifier._polynomials import matrix
from fisherflat.verifier._surface import Surface, rational, real

#: bits that the verifier takes beyond those of the prover
EXTRA = 64
#: how many times as many it takes, where these leave open whether a number at a point is as the certificate says
_TIMES = (1, 4, 16)
#: pieces that the verifier may cut the pieces of a box into
PIECES = 256


class _Failed(Exception):
    """A check that failed."""


class _Open(_Failed):
    """A check that more bits may decide."""


def check(
    certificate: CurvatureCertificate, mean: Callable[[Tensor], Tensor], chart: Chart
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The checks that fail, and notes about what the certificate says and nothing has checked.

    The map is traced again, what is held is found again, digests are compared, and the decisive computation is done
    anew: it shares no rule with the engine that proved, and takes more bits.
    """
    reasons = [f"chart: {reason}" for reason in identity.chart_differences(certificate.chart, chart)]
    if reasons:
        return tuple(reasons), ()
    try:
        graph = _traced(certificate, mean, chart).to(torch.float64, torch.device("cpu"))
        found = Comparison(graph) if graph.holdings else None
    except FisherflatError as error:
        return (f"graph: the map could not be traced: {error}",), ()
    except HeldError as error:
        return (f"held: {error}",), ()
    bits = certificate.precision + EXTRA
    reasons = [*identity.differences(certificate, graph, found)]
    if not reasons:
        graph, reasons = identity.with_numbers(certificate, graph, found, bits)
    if not reasons:
        try:
            _Checker(certificate, graph).check()
        except _Failed as failure:
            reasons = [str(failure)]
        except UnsupportedOpError as error:
            reasons = [f"verifier: {error}"]
        except EnclosureError as error:
            reasons = [f"enclosure: the verifier's arithmetic leaves open what the certificate decides ({error})"]
        except FOREIGN as error:  # numbers that nothing was written for: what cannot be computed is not believed
            reasons = [f"verifier: what decides cannot be computed: {type(error).__name__}: {error}"]
    return tuple(reasons), tuple(identity.notes(certificate, graph))


def _traced(certificate: CurvatureCertificate, mean: Callable[[Tensor], Tensor], chart: Chart) -> Graph:
    """The graph of the map, several outputs of which are joined as its family has it."""
    if isinstance(certificate.family, Gaussian) or isinstance(mean, Graph):
        return trace(mean, chart)
    mapping = Mapping(mean, chart.point.dtype, chart.point.device, certificate.family.together)
    check_family(certificate.family, tuple(mapping.check(chart.point).shape))
    return traced(mapping, chart)


class _Checker:
    """The decisive computation, for a certificate whose map and chart are those given."""

    def __init__(self, certificate: CurvatureCertificate, graph: Graph) -> None:
        self.c, self.graph, self.k = certificate, graph, certificate.chart.k
        self.affinity = Affinity(graph)
        self.bits = certificate.precision + EXTRA
        self.surface = Surface(graph, certificate.chart, certificate.family, self.bits)

    def check(self) -> None:
        """**Raises:** `_Failed` with the check that failed."""
        self._check_fields()
        self._check_nodes()
        checks = {
            "affine": self._affine,
            "affine by pieces": self._affine_by_pieces,
            "one coordinate": lambda: self._require(self.k == 1, "flatness: the chart has more than one coordinate"),
            "full dimension": self._full_dimension,
            "enclosure": self._curved,
        }
        structural = self.c.argument in ("affine", "affine by pieces")
        self._require(
            not structural or isinstance(self.c.family, Gaussian),
            "argument: the family's metric changes with its parameters, so that an affine map need not be flat",
        )
        check = checks.get(self.c.argument, self._undecided)
        for more in _TIMES if self.c.radius == 0 else _TIMES[:1]:
            try:
                if more > 1:
                    self.surface = Surface(self.graph, self.c.chart, self.c.family, more * self.bits)
                with flint.ctx.workprec(more * self.bits):
                    return check()
            except _Open:
                if more == _TIMES[-1] or self.c.radius:
                    raise

    def _require(self, condition: bool, failure: str) -> None:
        if not condition:
            raise _Failed(failure)

    # -- structure -----------------------------------------------------------------------------------------------------

    def _check_fields(self) -> None:
        """Fields that have no meaning for the argument are empty, so that nothing unchecked is said."""
        c, argument = self.c, self.c.argument
        enclosed = argument in ("enclosure", "zero enclosed")
        meant = {
            "enclosure": enclosed,
            "determinant": enclosed or argument == "full dimension",
            "plane": enclosed and self.k > 2,
            "cells": argument == "enclosure",
            "rank": argument == "affine",
            "steps": argument in ("affine", "affine by pieces"),
            "kinks": argument == "affine by pieces",
            "unsupported": argument == "unsupported op",
            "radius": c.verdict != "flat",
            "analytic": argument == "enclosure",
        }
        for name, wanted in meant.items():
            self._require(wanted or not getattr(c, name), f"{name}: it has no meaning for the argument {argument!r}")
        self._require(c.plane is not None or not meant["plane"], "plane: missing")
        somewhere = c.verdict != "flat" or argument == "full dimension" or c.schema == 1
        self._require(somewhere or not any(c.point), f"point: it has no meaning for the argument {argument!r}")

    def _check_nodes(self) -> None:
        """What is said about single nodes."""
        c, nodes = self.c, self.graph.nodes
        first = next((node for node in nodes if self._order(node) not in ("constant", "affine")), None)
        self._require((c.witness is None) == (first is None), "witness: there is none, or none was needed")
        kinks = self.affinity.kinks if c.argument == "affine by pieces" else []
        self._require(len(c.kinks) == len(kinks), f"kinks: there are {len(kinks)}")
        if identity.recorded_alike(c):
            self._require(not c.steps or len(c.steps) == len(nodes), "steps: they are not the nodes of the graph")
            expected = [("witness", c.witness, first)] if first is not None else []
            expected += [("steps", step, node) for step, node in zip(c.steps, nodes, strict=False)]
            expected += [("kinks", step, node) for step, node in zip(c.kinks, kinks, strict=True)]
            if c.unsupported is not None:
                self._require(c.unsupported.node < len(nodes), f"unsupported: there is no node %{c.unsupported.node}")
                expected.append(("unsupported", c.unsupported, nodes[c.unsupported.node]))
            for name, step, node in expected:
                mine = Step(node.index, node.op, self._order(node), node.role, node.module_path, node.source)
                self._require(step == mine, f"{name}: node %{node.index} is {mine}, not {step}")
        analytic = self.affinity.analytic() if c.argument == "enclosure" else None
        self._require(
            c.analytic == analytic,
            "analytic: the ops on the way, or where they are defined, are not as the certificate says",
        )

    def _order(self, node: Node) -> str:
        """What a node is in the coordinates, in the words of the certificate's schema."""
        order = self.affinity.orders[node]
        return "nonlinear" if self.c.schema == 1 and order in ("choice", "affine by pieces") else order

    def _is_open(self) -> bool:
        """Whether structure leaves open what the graph is."""
        output = self.graph.output
        if not isinstance(self.c.family, Gaussian):
            return True
        return isinstance(output, Node) and self._order(output) in ("nonlinear", "choice")

    # -- flat ----------------------------------------------------------------------------------------------------------

    def _affine(self) -> None:
        self._require(self.affinity.order in ("constant", "affine"), "flatness: the graph is not affine")
        try:
            value, derivatives = self.surface.jet([arb(0)] * self.k)
        except UnsupportedOpError:  # structure looks at no numbers, but a rank does
            self._require(self.c.rank == (0, False), "rank: the verifier lacks an op that the prover had")
            return
        # and by numbers: far away, the map is what its slopes at the origin say
        far = (4 * torch.randn(self.k, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).tolist()
        there = evaluate(self.graph, self.surface.input([arb(c) for c in far], 0)).value.ravel()
        defect = there - value - sum(arb(c) * row for c, row in zip(far, derivatives[: self.k], strict=True))
        small = arb(max(abs(float(x)) for x in there) + 1e-300) * arb(2) ** (-self.bits // 2)
        self._require(all(abs(x) < small for x in defect), "flatness: the map is not what its slopes at the origin say")
        self._rank(derivatives[: self.k])

    def _affine_by_pieces(self) -> None:
        self._require(self.affinity.order == "affine by pieces", "flatness: the graph is not affine by pieces")

    def _rank(self, jacobian: np.ndarray) -> None:
        assert self.c.rank is not None
        least, is_exact = self.c.rank
        if self.c.rank == (0, False):  # which says nothing
            return
        rows: list[Any] = []
        for row in jacobian:
            tried = matrix(np.stack([*rows, row]))
            if (tried * tried.transpose()).det() > 0:
                rows.append(row)
        if is_exact and len(rows) < self.k:
            with flint.ctx.workprec(64 * self.bits):
                jacobian = self.surface.jet([arb(0)] * self.k)[1][: self.k]
                self._require(all(x.is_exact() for x in jacobian.ravel()), "rank: it is not known exactly")
                rank = fmpq_mat([[rational(x) for x in row] for row in jacobian]).rank()
            self._require(rank == least, f"rank: it is {rank}, not {least}")
        else:
            self._require(len(rows) == least and is_exact == (least == self.k), f"rank: {len(rows)} is proved")

    def _full_dimension(self) -> None:
        filled = dimension(self.c.family, self.c.outputs)
        self._require(filled is not None, "flatness: the space of the family's parameters is not flat")
        self._require(filled == self.k, f"flatness: k = {self.k} is not D = {self.c.outputs}")
        self._within(self.surface.metric_determinant([arb(x) for x in self.c.point]), self.c.determinant, "determinant")

    # -- curved --------------------------------------------------------------------------------------------------------

    def _curved(self) -> None:
        c = self.c
        assert c.enclosure is not None and c.determinant is not None
        self._require(c.enclosure[0] > 0 or c.enclosure[1] < 0, "enclosure: it does not exclude zero")
        self._require(c.determinant[0] > 0, "determinant: the immersion is not proved to be regular")
        self._require(_covers(c.cells), "cells: they do not make up the box")
        left = PIECES
        pending = list(c.cells)
        while pending:
            path = pending.pop()
            left -= 2
            try:
                curvature, determinant = self.surface.curvature(self._cell(path), self.c.plane)
            except EnclosureError:
                if c.radius == 0 or left < 0:
                    raise
                pending += [path + "0", path + "1"]
                continue
            if _inside(curvature, c.enclosure) and _inside(determinant, c.determinant):
                left += 2
                continue
            apart = _apart(curvature, c.enclosure) or _apart(determinant, c.determinant)
            if apart or c.radius == 0 or left < 0:
                self._within(determinant, c.determinant, "determinant")
                self._within(curvature, c.enclosure, "enclosure")
            pending += [path + "0", path + "1"]

    def _cell(self, path: str) -> list[arb]:
        """The piece of the box after some halvings, of one coordinate after the other."""
        low = [Fraction(x) - Fraction(self.c.radius) for x in self.c.point]
        width = [2 * Fraction(self.c.radius)] * self.k
        for depth, side in enumerate(path):
            axis = depth % self.k
            width[axis] /= 2
            low[axis] += width[axis] * int(side)
        return [real(a).union(real(a + w)) for a, w in zip(low, width, strict=True)]

    def _within(self, ball: arb, bounds: tuple[Bound, Bound] | None, name: str) -> None:
        assert bounds is not None
        if not _inside(ball, bounds):
            raise (_Failed if _apart(ball, bounds) else _Open)(
                f"{name}: {ball.str(12)} was found, which does not lie between {bounds[0]:.12g} and {bounds[1]:.12g}"
            )

    def _check_unsupported(self) -> None:
        """The verifier may know an op that the prover does not; but not one that every prover knows."""
        step = self.c.unsupported
        known = step is None or step.op.removeprefix("aten.") in ANALYTIC - {"convolution", "pow"}
        self._require(not known, "argument: there is a rule for the op that is said to have none")
        self._require(self._is_open() and self.k > 1, "verdict: the manifold is flat by structure")

    # -- undecided -----------------------------------------------------------------------------------------------------

    def _undecided(self) -> None:
        """Nothing is claimed, but that nothing was found has to be true."""
        c = self.c
        if c.argument == "held in floats":
            return  # as was found before
        if c.argument == "unsupported op":
            self._check_unsupported()
            return
        self._require(self._is_open() and self.k > 1, "verdict: the manifold is flat by structure")
        try:
            curvature, determinant = self.surface.curvature(self._cell(""), self.c.plane)
        except EnclosureError:
            self._require(
                c.argument != "zero enclosed" or c.radius > 0, "argument: the verifier finds no enclosure at all"
            )
            return
        sizes = (abs(curvature), determinant)  # numbers that are smaller stand in no file
        filled = dimension(c.family, c.outputs) == self.k
        decided = all(x.lower() > arb(2) ** -2000 for x in sizes) and not filled
        self._require(not decided, f"verdict: the curvature is {curvature.str(12)}, which excludes zero")
        if c.enclosure is not None and c.determinant is not None:
            self._require(c.enclosure[0] <= 0 <= c.enclosure[1], "enclosure: it excludes zero")
            self._require(not _apart(curvature, c.enclosure), f"enclosure: {curvature.str(12)} was found")
            self._require(not _apart(determinant, c.determinant), f"determinant: {determinant.str(12)} was found")
        if c.radius == 0:  # over a box, two arithmetics may fail in different ways
            failed = c.argument == "zero enclosed" or (c.argument == "degenerate immersion" and not determinant > 0)
            self._require(failed, "argument: it is not what is open there")


def _inside(ball: arb, bounds: tuple[Bound, Bound]) -> bool:
    return bool(ball.is_finite() and ball >= real(bounds[0]) and ball <= real(bounds[1]))


def _apart(ball: arb, bounds: tuple[Bound, Bound]) -> bool:
    return bool(ball < real(bounds[0]) or ball > real(bounds[1]))


def _covers(paths: Sequence[str]) -> bool:
    """Whether the pieces are the leaves of a tree of halvings."""
    whole = sum(Fraction(1, 2 ** len(path)) for path in paths) == 1
    ordered = sorted(paths)
    return whole and not any(b.startswith(a) for a, b in pairwise(ordered))
